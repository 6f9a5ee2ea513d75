package cronjob

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var (
	kind    = batchv1.SchemeGroupVersion.WithKind("CronJob")
	jobKind = batchv1.SchemeGroupVersion.WithKind("Job")
)

// observed is what one reconcile of a cron job sees.
type observed struct {
	cron *batchv1.CronJob
	jobs []*batchv1.Job // its own
	// gone are the active jobs of the status that the server says are not there.
	gone map[types.UID]bool
}

// notice is an Event about the cron job.
type notice struct{ eventType, reason, message string }

// plan is what one reconcile of a cron job does, in the order of the fields.
type plan struct {
	notices []notice
	remove  []*batchv1.Job // replaced, or more than the history keeps
	start   *batchv1.Job   // nil for none
	// status is written last; when the start succeeded, with started.
	status batchv1.CronJobStatus
	at     time.Time // for which start is
	// wake is when the schedule comes again, 0 for never.
	wake time.Duration
}

func (p *plan) warn(reason, format string, args ...any) {
	p.notices = append(p.notices, notice{corev1.EventTypeWarning, reason, fmt.Sprintf(format, args...)})
}

func (p *plan) tell(reason, format string, args ...any) {
	p.notices = append(p.notices, notice{corev1.EventTypeNormal, reason, fmt.Sprintf(format, args...)})
}

// wakeDelay keeps a reconcile from coming a moment before its time.
const wakeDelay = 100 * time.Millisecond

// ended returns the condition that ended job, or "".
func ended(job *batchv1.Job) batchv1.JobConditionType {
	for _, c := range job.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.Type
		}
	}
	return ""
}

// compute decides what is to be done.
func compute(o observed, now time.Time) plan {
	c := o.cron
	p := plan{status: *c.Status.DeepCopy()}
	jobs := slices.Clone(o.jobs)
	slices.SortFunc(jobs, func(a, b *batchv1.Job) int { return cmp.Compare(a.Name, b.Name) })
	p.followJobs(c, jobs, now)
	p.forgetMissing(o)
	if c.DeletionTimestamp != nil {
		return p
	}
	p.prune(jobs, batchv1.JobComplete, c.Spec.SuccessfulJobsHistoryLimit)
	p.prune(jobs, batchv1.JobFailed, c.Spec.FailedJobsHistoryLimit)
	if c.Spec.TimeZone != nil {
		if _, err := time.LoadLocation(*c.Spec.TimeZone); err != nil {
			p.warn("UnknownTimeZone", "invalid timeZone: %q: %s", *c.Spec.TimeZone, err)
			return p
		}
	}
	if c.Spec.Suspend == nil || !*c.Spec.Suspend {
		p.schedule(c, jobs, now)
	}
	return p
}

// followJobs brings the status up to date with what jobs say. A job that was
// made for a time of the schedule is active even if the status could not be
// written after its creation.
func (p *plan) followJobs(c *batchv1.CronJob, jobs []*batchv1.Job, now time.Time) {
	s := &p.status
	for _, job := range jobs {
		end := ended(job)
		at, scheduled := scheduledAt(c, job)
		if scheduled && !at.After(now) && (s.LastScheduleTime == nil || at.After(s.LastScheduleTime.Time)) {
			s.LastScheduleTime = &metav1.Time{Time: at}
		}
		switch active := p.isActive(job.UID); {
		case active && end != "":
			p.drop(job.UID)
			p.tell("SawCompletedJob", "Saw completed job: %s, condition: %v", job.Name, end)
		case !active && end == "" && job.DeletionTimestamp == nil && scheduled:
			s.Active = append(s.Active, reference(job))
		case !active && end == "" && job.DeletionTimestamp == nil:
			p.warn("UnexpectedJob", "Saw a job that the controller did not create or forgot: %s", job.Name)
		}
		if t := job.Status.CompletionTime; end == batchv1.JobComplete && t != nil &&
			(s.LastSuccessfulTime == nil || t.After(s.LastSuccessfulTime.Time)) {
			s.LastSuccessfulTime = t
		}
	}
}

// forgetMissing drops the active jobs that are not there any more.
func (p *plan) forgetMissing(o observed) {
	for _, ref := range o.cron.Status.Active {
		if o.gone[ref.UID] {
			p.drop(ref.UID)
			p.tell("MissingJob", "Active job went missing: %v", ref.Name)
		}
	}
}

func (p *plan) isActive(uid types.UID) bool {
	return slices.ContainsFunc(p.status.Active, func(r corev1.ObjectReference) bool { return r.UID == uid })
}

func (p *plan) drop(uid types.UID) {
	p.status.Active = slices.DeleteFunc(p.status.Active, func(r corev1.ObjectReference) bool { return r.UID == uid })
	if len(p.status.Active) == 0 {
		p.status.Active = nil
	}
}

func reference(job *batchv1.Job) corev1.ObjectReference {
	return corev1.ObjectReference{
		APIVersion: jobKind.GroupVersion().String(), Kind: jobKind.Kind,
		Namespace: job.Namespace, Name: job.Name, UID: job.UID, ResourceVersion: job.ResourceVersion,
	}
}

// prune removes the oldest jobs that ended so, but for limit of them.
func (p *plan) prune(jobs []*batchv1.Job, end batchv1.JobConditionType, limit *int32) {
	if limit == nil {
		return
	}
	var old []*batchv1.Job
	for _, job := range jobs {
		if ended(job) == end && job.DeletionTimestamp == nil {
			old = append(old, job)
		}
	}
	slices.SortStableFunc(old, func(a, b *batchv1.Job) int {
		switch x, y := a.Status.StartTime, b.Status.StartTime; {
		case x == nil && y == nil:
			return 0
		case x == nil:
			return 1
		case y == nil:
			return -1
		default:
			return x.Compare(y.Time)
		}
	})
	p.remove = append(p.remove, old[:max(len(old)-int(*limit), 0)]...)
}

// schedule starts a job if its time has come.
func (p *plan) schedule(c *batchv1.CronJob, jobs []*batchv1.Job, now time.Time) {
	schedule, err := parse(c)
	if err != nil {
		p.warn("UnparseableSchedule", "unparseable schedule: %q : %s", c.Spec.Schedule, err)
		return
	}
	since := c.CreationTimestamp.Time
	if last := p.status.LastScheduleTime; last != nil {
		since = last.Time
	}
	at, next, err := recent(schedule, since, now)
	if err != nil {
		p.warn("InvalidSchedule", "invalid schedule: %s : %s", c.Spec.Schedule, err)
		return
	}
	p.wake = next.Sub(now) + wakeDelay
	if at.IsZero() {
		return
	}
	if limit := c.Spec.StartingDeadlineSeconds; limit != nil {
		earliest := now.Add(-time.Duration(*limit) * time.Second)
		if at.Before(earliest) {
			return // it is too late for this one
		}
		if earliest.After(since) {
			since = earliest
		}
	}
	if missesMany(schedule, since, now) {
		p.warn("TooManyMissedTimes", "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew")
	}
	if len(p.status.Active) > 0 {
		switch c.Spec.ConcurrencyPolicy {
		case batchv1.ForbidConcurrent:
			p.tell("JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid")
			return
		case batchv1.ReplaceConcurrent:
			for _, job := range jobs {
				if p.isActive(job.UID) {
					p.remove = append(p.remove, job)
				}
			}
		}
	}
	p.start, p.at = newJob(c, at), at
}

// started enters the new job into the status.
func (p *plan) started(job *batchv1.Job) {
	if !p.isActive(job.UID) && ended(job) == "" {
		p.status.Active = append(p.status.Active, reference(job))
	}
	p.status.LastScheduleTime = &metav1.Time{Time: p.at}
}

// jobName is the name of the job for a time: there is one for each.
func jobName(c *batchv1.CronJob, at time.Time) string {
	return c.Name + "-" + strconv.FormatInt(at.Unix()/60, 10)
}

// newJob makes the job for a time of the schedule.
func newJob(c *batchv1.CronJob, at time.Time) *batchv1.Job {
	t := c.Spec.JobTemplate.DeepCopy()
	annotations := maps.Clone(t.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	zone := time.UTC
	if c.Spec.TimeZone != nil {
		if z, err := time.LoadLocation(*c.Spec.TimeZone); err == nil { // compute has looked
			zone = z
		}
	}
	annotations[batchv1.CronJobScheduledTimestampAnnotation] = at.In(zone).Format(time.RFC3339)
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: c.Namespace, Name: jobName(c, at), Labels: t.Labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(c, kind)},
		},
		Spec: t.Spec,
	}
}

// scheduledAt returns the time of the schedule that job was made for. Jobs that
// others made have none.
func scheduledAt(c *batchv1.CronJob, job *batchv1.Job) (time.Time, bool) {
	at, err := time.Parse(time.RFC3339, job.Annotations[batchv1.CronJobScheduledTimestampAnnotation])
	return at, err == nil && job.Name == jobName(c, at)
}
