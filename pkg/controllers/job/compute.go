package job

import (
	"cmp"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/controllers/podset"
)

// batchLimit bounds the pods that one reconcile makes, deletes or counts, and
// with it the UIDs in the status.
const batchLimit = 500

// observed is what one reconcile of a job sees.
type observed struct {
	job  *batchv1.Job
	pods []*corev1.Pod // the job's own
	// failures is what earlier reconciles found; nil if there was none, so that
	// the pods that are still there must tell.
	failures *failures
}

// notice is an Event about the job.
type notice struct{ eventType, reason, message string }

// plan is what one reconcile of a job does, in the order of the fields.
type plan struct {
	create []*corev1.Pod
	remove []*corev1.Pod // active pods to delete
	// forget is set when the removed pods were only too many: they lose their
	// finalizer first, and do not count as failed.
	forget bool
	// status is written before any pod loses its finalizer, so that a pod is
	// counted once whatever happens in between; settle and finish say what is
	// written afterwards.
	status  batchv1.JobStatus
	release []*corev1.Pod // these lose their finalizer
	// verdict is the interim condition of a job that ends, else nil; more is
	// set when there are pods that this plan does not count yet.
	verdict *batchv1.JobCondition
	more    bool

	notices  []notice
	failures failures
	// wake, when positive, is when time alone changes what is to be done.
	wake time.Duration
}

// view is what compute makes of the observed.
type view struct {
	job         *batchv1.Job
	now         time.Time
	completions int  // -1 without
	indexed     bool // each pod has one of the indexes below completions
	perIndex    bool // each index has a back-off limit of its own
	suspended   bool
	// patient is set when a pod is replaced only after it has ended.
	patient bool

	pods        []*corev1.Pod // by index and name
	active      []*corev1.Pod
	terminating int
	succeeded   int // pods, or indexes if indexed
	failed      int
	// before are the completed indexes of the status; done and bad have those
	// in addition that the pods tell.
	before, done, bad indexes
	// held is, by index, the last failed pod, which must stay until the next
	// pod of the index has taken over its number of failures.
	held     map[int]*corev1.Pod
	failures failures
}

func tracked(pod *corev1.Pod) bool {
	return slices.Contains(pod.Finalizers, batchv1.JobTrackingFinalizer)
}

func isSuspended(job *batchv1.Job) bool { return job.Spec.Suspend != nil && *job.Spec.Suspend }

func isIndexed(job *batchv1.Job) bool {
	return job.Spec.CompletionMode != nil && *job.Spec.CompletionMode == batchv1.IndexedCompletion
}

// condition returns the condition of the job if it is true, else nil.
func condition(s *batchv1.JobStatus, t batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t && s.Conditions[i].Status == corev1.ConditionTrue {
			return &s.Conditions[i]
		}
	}
	return nil
}

// finished reports whether nothing is done for the job any more.
func finished(job *batchv1.Job) bool {
	return condition(&job.Status, batchv1.JobComplete) != nil || condition(&job.Status, batchv1.JobFailed) != nil
}

// look makes the view. The status of o.job has uncounted pods, though maybe
// none.
func look(o observed, now time.Time) *view {
	spec := &o.job.Spec
	v := &view{
		job: o.job, now: now, completions: -1, indexed: isIndexed(o.job), suspended: isSuspended(o.job),
		perIndex: isIndexed(o.job) && spec.BackoffLimitPerIndex != nil,
		patient:  spec.PodReplacementPolicy != nil && *spec.PodReplacementPolicy == batchv1.Failed,
		pods:     slices.Clone(o.pods),
	}
	if spec.Completions != nil {
		v.completions = int(*spec.Completions)
	}
	slices.SortFunc(v.pods, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(indexOf(a), indexOf(b)), cmp.Compare(a.Name, b.Name))
	})
	for _, pod := range v.pods {
		switch {
		case podset.Active(pod):
			v.active = append(v.active, pod)
		case !podset.Finished(pod):
			v.terminating++
		}
	}
	v.lookAtFinished(o.failures)
	return v
}

// lookAtFinished counts the pods that have ended.
func (v *view) lookAtFinished(known *failures) {
	s := &v.job.Status
	u := s.UncountedTerminatedPods
	v.succeeded, v.failed = int(s.Succeeded)+len(u.Succeeded), int(s.Failed)+len(u.Failed)
	var news, all struct{ succeeded, failed []*corev1.Pod }
	for _, pod := range v.pods {
		good := pod.Status.Phase == corev1.PodSucceeded
		if !good && !v.hasFailed(pod) {
			continue
		}
		fresh := tracked(pod) && v.counts(pod) && !slices.Contains(u.Succeeded, pod.UID) && !slices.Contains(u.Failed, pod.UID)
		if !tracked(pod) && pod.DeletionTimestamp != nil {
			continue // it was let go as one too many, and its end means nothing
		}
		switch {
		case good:
			all.succeeded = append(all.succeeded, pod)
			if fresh {
				news.succeeded = append(news.succeeded, pod)
				v.succeeded++
			}
		default:
			all.failed = append(all.failed, pod)
			if fresh {
				news.failed = append(news.failed, pod)
				if judge(v.job.Spec.PodFailurePolicy, pod).counts() {
					v.failed++
				}
			}
		}
	}
	if known != nil {
		v.failures = known.after(news.succeeded, news.failed)
	} else {
		v.failures = failures{}.after(all.succeeded, all.failed)
	}
	if v.indexed {
		v.lookAtIndexes(news.succeeded)
	}
}

// hasFailed reports whether pod counts as failed. One that is being deleted
// does before it has ended, since it may never be seen to end; but not where
// the job waits for the end of pods.
func (v *view) hasFailed(pod *corev1.Pod) bool {
	if pod.Status.Phase == corev1.PodFailed {
		return true
	}
	return !v.patient && pod.DeletionTimestamp != nil && pod.Status.Phase != corev1.PodSucceeded
}

// counts reports whether the end of pod means anything: in an indexed job,
// whether its index is one of the job's.
func (v *view) counts(pod *corev1.Pod) bool {
	i := indexOf(pod)
	return !v.indexed || i != noIndex && i < v.completions
}

// lookAtIndexes finds the indexes that are done or failed for good; none is
// both. succeeded are the pods that the status does not know yet.
func (v *view) lookAtIndexes(succeeded []*corev1.Pod) {
	s := &v.job.Status
	v.before = parseIndexes(s.CompletedIndexes, v.completions)
	if v.perIndex && s.FailedIndexes != nil {
		v.bad = parseIndexes(*s.FailedIndexes, v.completions)
	}
	var done, bad []int
	for _, pod := range succeeded {
		if i := indexOf(pod); !v.bad.has(i) {
			done = append(done, i)
		}
	}
	v.done = v.before.union(indexesOf(done...))
	v.succeeded = v.done.count()
	if !v.perIndex {
		return
	}
	for _, pod := range v.pods {
		if v.hasFailed(pod) && v.counts(pod) && !v.done.has(indexOf(pod)) && v.endsIndex(pod) {
			bad = append(bad, indexOf(pod))
		}
	}
	v.bad = v.bad.union(indexesOf(bad...))
	running := indexesOfPods(v.active)
	v.held = map[int]*corev1.Pod{}
	for _, pod := range v.pods {
		i := indexOf(pod)
		if !tracked(pod) || !v.counts(pod) || !v.hasFailed(pod) || v.done.has(i) || v.bad.has(i) || running.has(i) {
			continue
		}
		if last := v.held[i]; last == nil || cmp.Or(cmp.Compare(failuresOf(last).total(), failuresOf(pod).total()), finishedAt(last).Compare(finishedAt(pod))) <= 0 {
			v.held[i] = pod
		}
	}
}

func indexesOfPods(pods []*corev1.Pod) indexes {
	var numbers []int
	for _, pod := range pods {
		if i := indexOf(pod); i != noIndex {
			numbers = append(numbers, i)
		}
	}
	return indexesOf(numbers...)
}

// endsIndex reports whether the failed pod is the last that its index gets.
func (v *view) endsIndex(pod *corev1.Pod) bool {
	switch w := judge(v.job.Spec.PodFailurePolicy, pod); {
	case w.action == batchv1.PodFailurePolicyActionFailIndex:
		return true
	default:
		return w.counts() && failuresOf(pod).counted >= int(*v.job.Spec.BackoffLimitPerIndex)
	}
}

// compute decides what is to be done for a job that is not finished.
func compute(o observed, now time.Time) plan {
	if o.job.Status.UncountedTerminatedPods == nil {
		o.job = o.job.DeepCopy()
		o.job.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	v := look(o, now)
	p := plan{status: *o.job.Status.DeepCopy(), failures: v.failures}
	if p.status.StartTime == nil && !v.suspended {
		p.status.StartTime = seconds(now)
	}
	if o.job.DeletionTimestamp == nil {
		v.decide(&p)
	}
	var ready int32
	for _, pod := range v.active {
		if podset.Ready(pod) && !slices.Contains(p.remove, pod) {
			ready++
		}
	}
	p.status.Active = int32(v.left(p))
	p.status.Ready = &ready
	p.status.Terminating = new(int32(v.terminating + len(p.remove)))
	v.count(&p)
	return p
}

// left is how many pods are active when the plan has been carried out.
func (v *view) left(p plan) int { return len(v.active) - len(p.remove) + len(p.create) }

// decide says whether the job ends and otherwise which pods come and go.
func (v *view) decide(p *plan) {
	if p.verdict = v.ending(p); p.verdict != nil {
		p.remove = v.active[:min(len(v.active), batchLimit)]
		return
	}
	v.manage(p)
	if v.reached(v.left(*p)) {
		p.verdict = v.newCondition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods")
		return
	}
	v.suspend(p)
}

// reached reports whether the pods have done what the job is for.
func (v *view) reached(active int) bool {
	if v.completions < 0 {
		return v.succeeded > 0 && active == 0
	}
	return v.succeeded >= v.completions && active == 0
}

// suspend keeps the job's condition Suspended. The time of a job that stops
// starts anew when it goes on.
func (v *view) suspend(p *plan) {
	is := condition(&p.status, batchv1.JobSuspended) != nil
	switch {
	case v.suspended && !is:
		set(&p.status, *v.newCondition(batchv1.JobSuspended, "JobSuspended", "Job suspended"))
		p.status.StartTime = nil
		p.notices = append(p.notices, notice{corev1.EventTypeNormal, "Suspended", "Job suspended"})
	case !v.suspended && is:
		c := *v.newCondition(batchv1.JobSuspended, "JobResumed", "Job resumed")
		c.Status = corev1.ConditionFalse
		set(&p.status, c)
		p.status.StartTime = seconds(v.now)
		p.notices = append(p.notices, notice{corev1.EventTypeNormal, "Resumed", "Job resumed"})
	}
}

// seconds is t as the API stores it.
func seconds(t time.Time) *metav1.Time { return &metav1.Time{Time: t.Truncate(time.Second)} }

func (v *view) newCondition(t batchv1.JobConditionType, reason, message string) *batchv1.JobCondition {
	return newCondition(t, reason, message, v.now)
}

func newCondition(t batchv1.JobConditionType, reason, message string, now time.Time) *batchv1.JobCondition {
	return &batchv1.JobCondition{
		Type: t, Status: corev1.ConditionTrue, Reason: reason, Message: message,
		LastProbeTime: *seconds(now), LastTransitionTime: *seconds(now),
	}
}

// set puts c in the place of the condition of its type.
func set(s *batchv1.JobStatus, c batchv1.JobCondition) {
	for i := range s.Conditions {
		if s.Conditions[i].Type == c.Type {
			s.Conditions[i] = c
			return
		}
	}
	s.Conditions = append(s.Conditions, c)
}
