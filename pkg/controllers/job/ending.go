package job

import (
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/controllers/podset"
)

// ending returns the interim condition of a job that ends, or nil. What was
// decided once stays. p learns when the job's time is over.
func (v *view) ending(p *plan) *batchv1.JobCondition {
	s, spec := &v.job.Status, &v.job.Spec
	if c := condition(s, batchv1.JobSuccessCriteriaMet); c != nil {
		return c
	}
	if c := condition(s, batchv1.JobFailureTarget); c != nil {
		return c
	}
	fail := func(reason, message string) *batchv1.JobCondition {
		return v.newCondition(batchv1.JobFailureTarget, reason, message)
	}
	for _, pod := range v.pods {
		if w := judge(spec.PodFailurePolicy, pod); w.action == batchv1.PodFailurePolicyActionFailJob && v.hasFailed(pod) {
			return fail(batchv1.JobReasonPodFailurePolicy, w.message)
		}
	}
	if v.failed > int(*spec.BackoffLimit) || v.restartedTooOften() {
		return fail(batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
	}
	if limit := spec.ActiveDeadlineSeconds; limit != nil && !v.suspended && s.StartTime != nil {
		left := s.StartTime.Add(time.Duration(*limit) * time.Second).Sub(v.now)
		if left <= 0 {
			return fail(batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
		}
		p.wakeIn(left)
	}
	switch bad := v.bad.count(); {
	case spec.MaxFailedIndexes != nil && bad > int(*spec.MaxFailedIndexes):
		return fail(batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes")
	case bad > 0 && bad+v.done.count() >= v.completions:
		return fail(batchv1.JobReasonFailedIndexes, "Job has failed indexes")
	}
	if rule, ok := succeeds(spec.SuccessPolicy, v.completions, v.done); ok && v.indexed {
		return v.newCondition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonSuccessPolicy, fmt.Sprintf("Matched rules at index %d", rule))
	}
	return nil
}

// wakeIn makes p wake after d, if not sooner.
func (p *plan) wakeIn(d time.Duration) {
	if p.wake == 0 || d < p.wake {
		p.wake = d
	}
}

// restartedTooOften counts restarts of containers where pods do not fail but
// restart them.
func (v *view) restartedTooOften() bool {
	if v.job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	var restarts int32
	for _, pod := range v.pods {
		if pod.Status.Phase != corev1.PodRunning && pod.Status.Phase != corev1.PodPending {
			continue
		}
		for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
			for i := range list {
				restarts += list[i].RestartCount
			}
		}
	}
	return restarts > 0 && restarts >= *v.job.Spec.BackoffLimit
}

// count enters the pods that have ended into the plan's status, as uncounted
// as long as they have their finalizer, and says which lose it.
func (v *view) count(p *plan) {
	held := map[types.UID]bool{}
	for _, pod := range v.pods {
		held[pod.UID] = tracked(pod)
	}
	settle(&p.status, held)
	if p.verdict != nil && condition(&p.status, p.verdict.Type) == nil {
		set(&p.status, *p.verdict)
	}
	u := p.status.UncountedTerminatedPods
	inU := map[types.UID]bool{}
	for _, uid := range slices.Concat(u.Succeeded, u.Failed) {
		inU[uid] = true
	}
	var done []int
	for _, pod := range v.pods {
		if !tracked(pod) || !v.mayGo(p, pod) {
			continue
		}
		if len(p.release) == batchLimit {
			p.more = true
			break
		}
		p.release = append(p.release, pod)
		lost := p.verdict != nil && p.verdict.Type == batchv1.JobFailureTarget // with the job
		switch {
		case inU[pod.UID] || !v.counts(pod):
		case pod.Status.Phase == corev1.PodSucceeded && v.indexed:
			if i := indexOf(pod); v.done.has(i) {
				done = append(done, i)
			}
		case pod.Status.Phase == corev1.PodSucceeded:
			u.Succeeded = append(u.Succeeded, pod.UID)
		case (v.hasFailed(pod) || lost) && judge(v.job.Spec.PodFailurePolicy, pod).counts():
			u.Failed = append(u.Failed, pod.UID)
		}
	}
	if !v.indexed {
		return
	}
	all := v.before.union(indexesOf(done...))
	p.status.Succeeded, p.status.CompletedIndexes = int32(all.count()), all.String()
	if v.perIndex {
		p.status.FailedIndexes = new(v.bad.String())
	} else {
		p.status.FailedIndexes = nil
	}
}

// mayGo reports whether the pod has told the job all it can.
func (v *view) mayGo(p *plan, pod *corev1.Pod) bool {
	switch {
	case v.job.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded:
		return true
	case p.verdict != nil:
		return !podset.Active(pod) || !p.forget && slices.Contains(p.remove, pod)
	case !v.hasFailed(pod):
		return false
	}
	last := v.held[indexOf(pod)]
	return last == nil || last.UID != pod.UID
}

// settle adds the uncounted pods that hold their finalizer no longer to the
// counters.
func settle(s *batchv1.JobStatus, held map[types.UID]bool) {
	move := func(uids []types.UID, counter *int32) []types.UID {
		kept := slices.DeleteFunc(slices.Clone(uids), func(uid types.UID) bool { return !held[uid] })
		*counter += int32(len(uids) - len(kept))
		if len(kept) == 0 {
			return nil
		}
		return kept
	}
	u := s.UncountedTerminatedPods
	u.Succeeded = move(u.Succeeded, &s.Succeeded)
	u.Failed = move(u.Failed, &s.Failed)
}

// finish gives the job its last condition when all of its pods are counted and
// none is ending any more, and returns the Events that tell. Otherwise it does
// nothing.
func finish(job *batchv1.Job, s *batchv1.JobStatus, verdict *batchv1.JobCondition, now time.Time) []notice {
	u := s.UncountedTerminatedPods
	if verdict == nil || len(u.Succeeded)+len(u.Failed) > 0 || *s.Terminating > 0 || s.Active > 0 {
		return nil
	}
	if verdict.Type == batchv1.JobFailureTarget {
		set(s, *newCondition(batchv1.JobFailed, verdict.Reason, verdict.Message, now))
		return []notice{{corev1.EventTypeWarning, verdict.Reason, verdict.Message}}
	}
	set(s, *newCondition(batchv1.JobComplete, verdict.Reason, verdict.Message, now))
	s.CompletionTime = seconds(now)
	notices := []notice{{corev1.EventTypeNormal, "Completed", "Job completed"}}
	if job.Spec.Completions != nil && s.Succeeded > *job.Spec.Completions {
		notices = slices.Insert(notices, 0, notice{corev1.EventTypeWarning, "TooManySucceededPods",
			"Too many succeeded pods running after completion count reached"})
	}
	return notices
}
