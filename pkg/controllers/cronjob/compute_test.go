package cronjob

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// noon is the time that computations take place, a bit after the hour.
var noon = time.Date(2030, 6, 1, 12, 0, 20, 0, time.UTC)

func newCron(schedule string, change ...func(*batchv1.CronJob)) *batchv1.CronJob {
	c := &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "tick", UID: "cron", CreationTimestamp: metav1.NewTime(noon.Add(-90 * time.Second))},
		Spec: batchv1.CronJobSpec{
			Schedule: schedule, ConcurrencyPolicy: batchv1.AllowConcurrent,
			SuccessfulJobsHistoryLimit: new(int32(3)), FailedJobsHistoryLimit: new(int32(1)),
		},
	}
	for _, f := range change {
		f(c)
	}
	return c
}

// made is a job for a time; end is its last condition, or "".
func made(c *batchv1.CronJob, at time.Time, end batchv1.JobConditionType) *batchv1.Job {
	job := newJob(c, at)
	job.UID = types.UID(job.Name)
	job.Status.StartTime = &metav1.Time{Time: at}
	if end != "" {
		job.Status.Conditions = []batchv1.JobCondition{{Type: end, Status: corev1.ConditionTrue}}
		if end == batchv1.JobComplete {
			job.Status.CompletionTime = &metav1.Time{Time: at.Add(time.Second)}
		}
	}
	return job
}

func noted(jobs ...*batchv1.Job) func(*batchv1.CronJob) {
	return func(c *batchv1.CronJob) {
		for _, job := range jobs {
			c.Status.Active = append(c.Status.Active, reference(job))
		}
	}
}

func lastAt(ago time.Duration) func(*batchv1.CronJob) {
	return func(c *batchv1.CronJob) { c.Status.LastScheduleTime = &metav1.Time{Time: noon.Add(-ago)} }
}

func policy(p batchv1.ConcurrencyPolicy) func(*batchv1.CronJob) {
	return func(c *batchv1.CronJob) { c.Spec.ConcurrencyPolicy = p }
}

func deadline(seconds int64) func(*batchv1.CronJob) {
	return func(c *batchv1.CronJob) { c.Spec.StartingDeadlineSeconds = &seconds }
}

func said(p plan) []string {
	var out []string
	for _, n := range p.notices {
		out = append(out, n.reason)
	}
	for _, job := range p.remove {
		out = append(out, "remove "+job.Name)
	}
	if p.start != nil {
		out = append(out, "start for "+p.at.UTC().Format("15:04:05"))
	}
	for _, ref := range p.status.Active {
		out = append(out, "active "+ref.Name)
	}
	if p.wake > 0 {
		out = append(out, "wake in "+p.wake.String())
	}
	return out
}

func TestCompute(t *testing.T) {
	const minute = "wake in 40.1s"
	hour := noon.Truncate(time.Hour)
	one := made(newCron(""), hour.Add(-time.Minute), "")
	manual := made(newCron(""), hour, "")
	manual.Name, manual.Annotations = "manual", map[string]string{"cronjob.kubernetes.io/instantiate": "manual"}
	history := func() (jobs []*batchv1.Job) {
		for i := range 6 {
			jobs = append(jobs, made(newCron(""), hour.Add(-time.Duration(i+1)*time.Minute), []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed}[i%2]))
		}
		return jobs
	}()
	for _, tc := range []struct {
		name string
		cron *batchv1.CronJob
		jobs []*batchv1.Job
		want []string
	}{
		{"not yet", newCron("30 * * * *"), nil, []string{"wake in 29m40.1s"}},
		{"now", newCron("* * * * *"), nil, []string{"start for 12:00:00", minute}},
		{"only the last that was missed", newCron("* * * * *", lastAt(10*time.Minute)), nil, []string{"start for 12:00:00", minute}},
		{"very many missed", newCron("* * * * *", lastAt(101*time.Minute)), nil, []string{"TooManyMissedTimes", "start for 12:00:00", minute}},
		{"many, but not lately", newCron("* * * * *", lastAt(101*time.Minute), deadline(600)), nil, []string{"start for 12:00:00", minute}},
		{"this one was started", newCron("* * * * *", lastAt(20*time.Second)), nil, []string{minute}},
		{"too late for it", newCron("0 * * * *", deadline(10)), nil, []string{"wake in 59m40.1s"}},
		{"just in time", newCron("0 * * * *", deadline(20)), nil, []string{"start for 12:00:00", "wake in 59m40.1s"}},
		{"suspended", newCron("* * * * *", func(c *batchv1.CronJob) { c.Spec.Suspend = new(true) }), nil, nil},
		{"being deleted", newCron("* * * * *", func(c *batchv1.CronJob) { c.DeletionTimestamp = &metav1.Time{Time: noon} }), nil, nil},
		{"no schedule", newCron("x"), nil, []string{"UnparseableSchedule"}},
		{"a zone in the schedule", newCron("TZ=Nowhere"), nil, []string{"UnparseableSchedule"}},
		{"never", newCron("0 0 31 2 *"), nil, []string{"InvalidSchedule"}},
		{"no such zone", newCron("* * * * *", func(c *batchv1.CronJob) { c.Spec.TimeZone = new("No/Where") }), nil, []string{"UnknownTimeZone"}},
		{"a zone", newCron("0 14 * * *", lastAt(48*time.Hour), func(c *batchv1.CronJob) { c.Spec.TimeZone = new("Europe/Berlin") }), nil,
			[]string{"start for 12:00:00", "wake in 23h59m40.1s"}},
		{"every so often", newCron("@every 25s", lastAt(60*time.Second)), nil, []string{"start for 12:00:10", "wake in 15.1s"}},

		{"Allow", newCron("* * * * *", noted(one)), []*batchv1.Job{one}, []string{"start for 12:00:00", "active " + one.Name, minute}},
		{"Forbid", newCron("* * * * *", noted(one), policy(batchv1.ForbidConcurrent)), []*batchv1.Job{one}, []string{"JobAlreadyActive", "active " + one.Name, minute}},
		{"Forbid goes by jobs that the status lacks", newCron("* * * * *", policy(batchv1.ForbidConcurrent)), []*batchv1.Job{one},
			[]string{"JobAlreadyActive", "active " + one.Name, minute}},
		{"Replace", newCron("* * * * *", noted(one), policy(batchv1.ReplaceConcurrent)), []*batchv1.Job{one},
			[]string{"remove " + one.Name, "start for 12:00:00", "active " + one.Name, minute}},
		{"one that ended is not active", newCron("* * * * *", noted(one), policy(batchv1.ForbidConcurrent)), []*batchv1.Job{made(newCron(""), hour.Add(-time.Minute), batchv1.JobFailed)},
			[]string{"SawCompletedJob", "start for 12:00:00", minute}},
		{"a job of this time, which the status lacks", newCron("* * * * *"), []*batchv1.Job{made(newCron(""), hour, "")},
			[]string{"active tick-" + fmt.Sprint(hour.Unix()/60), minute}},
		{"the same, ended", newCron("* * * * *"), []*batchv1.Job{made(newCron(""), hour, batchv1.JobComplete)}, []string{minute}},
		{"a job made by hand", newCron("30 * * * *", policy(batchv1.ForbidConcurrent)), []*batchv1.Job{manual}, []string{"UnexpectedJob", "wake in 29m40.1s"}},
		{"history", newCron("30 * * * *"), history, []string{"remove " + history[5].Name, "remove " + history[3].Name, "wake in 29m40.1s"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, said(compute(observed{cron: tc.cron, jobs: tc.jobs}, noon))); diff != "" {
				t.Errorf("the plan is (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStatusFollowsJobs(t *testing.T) {
	hour := noon.Truncate(time.Hour)
	good, bad := made(newCron(""), hour.Add(-2*time.Minute), batchv1.JobComplete), made(newCron(""), hour.Add(-time.Minute), batchv1.JobFailed)
	lost := made(newCron(""), hour.Add(-3*time.Minute), "")
	c := newCron("30 * * * *", noted(good, bad, lost))
	p := compute(observed{cron: c, jobs: []*batchv1.Job{good, bad}, gone: map[types.UID]bool{lost.UID: true}}, noon)
	want := batchv1.CronJobStatus{LastScheduleTime: &metav1.Time{Time: hour.Add(-time.Minute)}, LastSuccessfulTime: good.Status.CompletionTime}
	if diff := cmp.Diff(want, p.status); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if !slices.ContainsFunc(p.notices, func(n notice) bool { return n.reason == "MissingJob" }) {
		t.Errorf("notices %v", p.notices)
	}
}

func TestNewJob(t *testing.T) {
	c := newCron("0 14 * * *", func(c *batchv1.CronJob) {
		c.Spec.TimeZone = new("Europe/Berlin")
		c.Spec.JobTemplate.Labels, c.Spec.JobTemplate.Annotations = map[string]string{"a": "b"}, map[string]string{"c": "d"}
	})
	job := newJob(c, noon.Truncate(time.Hour))
	if job.Name != "tick-31775760" || job.Labels["a"] != "b" || job.Annotations["c"] != "d" ||
		job.Annotations[batchv1.CronJobScheduledTimestampAnnotation] != "2030-06-01T14:00:00+02:00" || !metav1.IsControlledBy(job, c) {
		t.Errorf("job %+v", job.ObjectMeta)
	}
	if _, there := c.Spec.JobTemplate.Annotations[batchv1.CronJobScheduledTimestampAnnotation]; there {
		t.Error("the template was changed")
	}
}

// TestRecent compares the last and next times with those found step by step,
// over changes of daylight saving time and leap days.
func TestRecent(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	field := func(lo, hi int) string {
		a := lo + rnd.IntN(hi-lo+1)
		switch rnd.IntN(4) {
		case 0:
			return fmt.Sprint(a)
		case 1:
			return fmt.Sprintf("%d-%d", a, a+rnd.IntN(hi-a+1))
		case 2:
			return fmt.Sprintf("*/%d", 1+rnd.IntN(hi))
		}
		return "*"
	}
	found := 0
	for range 300 {
		c := newCron(strings.Join([]string{field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6)}, " "))
		if rnd.IntN(2) == 0 {
			c.Spec.TimeZone = new([]string{"America/New_York", "Europe/Berlin", "Asia/Kathmandu"}[rnd.IntN(3)])
		}
		schedule, err := parse(c)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Unix(1_900_000_000+rnd.Int64N(200_000_000), rnd.Int64N(1e9)).UTC()
		since := now.Add(-time.Duration(rnd.Int64N(int64(100 * time.Hour))))
		var last, next time.Time
		for next = schedule.Next(since); !next.IsZero() && !next.After(now); next = schedule.Next(next) {
			last = next
			found++
		}
		gotLast, gotNext, err := recent(schedule, since, now)
		if next.IsZero() != (err != nil) || err == nil && (!gotLast.Equal(last) || !gotNext.Equal(next)) {
			t.Errorf("%s in %v from %v to %v: %v and %v, %v, want %v and %v", c.Spec.Schedule, c.Spec.TimeZone, since, now, gotLast, gotNext, err, last, next)
		}
	}
	if found < 100 {
		t.Errorf("only %d times were compared", found)
	}
}
