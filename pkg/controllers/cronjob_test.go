package controllers_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// makeCron creates a cron job that starts newJob's pods every minute.
func (c *cluster) makeCron(change ...func(*batchv1.CronJobSpec)) *batchv1.CronJob {
	c.t.Helper()
	cron := &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Name: "tick"},
		Spec:       batchv1.CronJobSpec{Schedule: "* * * * *", JobTemplate: batchv1.JobTemplateSpec{Spec: newJob().Spec}},
	}
	for _, f := range change {
		f(&cron.Spec)
	}
	got, err := c.Client.BatchV1().CronJobs("default").Create(c.t.Context(), cron, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return got
}

func concurrency(p batchv1.ConcurrencyPolicy) func(*batchv1.CronJobSpec) {
	return func(s *batchv1.CronJobSpec) { s.ConcurrencyPolicy = p }
}

// jobs returns the names of the jobs that are there, in order, and how many of
// them have not ended.
func (c *cluster) jobs() (names []string, active int) {
	c.t.Helper()
	list, err := c.Client.BatchV1().Jobs("default").List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, job := range list.Items {
		names = append(names, job.Name)
		if job.Status.CompletionTime == nil && job.DeletionTimestamp == nil {
			active++
		}
	}
	slices.Sort(names)
	return names, active
}

func (c *cluster) wantCron(what string, check func(*batchv1.CronJob) error) {
	c.t.Helper()
	c.eventually("the cron job "+what, func() error {
		cron, err := c.Client.BatchV1().CronJobs("default").Get(c.t.Context(), "tick", metav1.GetOptions{})
		if err == nil {
			err = check(cron)
		}
		if err != nil {
			return fmt.Errorf("%w: %+v", err, cron.Status)
		}
		return nil
	})
}

// wantActiveJobs waits until the status has n active jobs and so many there
// are.
func (c *cluster) wantActiveJobs(n int) {
	c.t.Helper()
	c.wantCron(fmt.Sprintf("has %d active", n), func(cron *batchv1.CronJob) error {
		if names, active := c.jobs(); active != n || len(cron.Status.Active) != n {
			return fmt.Errorf("%d of %v", active, names)
		}
		return nil
	})
}

func TestCronJobStartsAndKeepsHistory(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.tasks(always(0))
		begin := time.Now()
		c.makeCron()
		time.Sleep(10*time.Minute + 10*time.Second)
		names, active := c.jobs()
		var want []string
		for i := 8; i <= 10; i++ { // the last three
			want = append(want, fmt.Sprintf("tick-%d", begin.Unix()/60+int64(i)))
		}
		if !slices.Equal(names, want) || active != 0 {
			t.Errorf("the jobs are %v, want %v", names, want)
		}
		c.wantCron("knows", func(cron *batchv1.CronJob) error {
			if s := cron.Status; len(s.Active) != 0 || s.LastScheduleTime.Unix()/60 != begin.Unix()/60+10 || s.LastSuccessfulTime == nil {
				return fmt.Errorf("it does not")
			}
			return nil
		})
		c.wantEvents("tick", "SuccessfulCreate", "SawCompletedJob", "SuccessfulDelete")
	})
}

func TestCronJobConcurrency(t *testing.T) {
	for _, tc := range []struct {
		policy        batchv1.ConcurrencyPolicy
		active, steps int // after 3 minutes; how many starts there were
	}{
		{batchv1.AllowConcurrent, 3, 3}, {batchv1.ForbidConcurrent, 1, 1}, {batchv1.ReplaceConcurrent, 1, 3},
	} {
		t.Run(string(tc.policy), func(t *testing.T) {
			scenario(t, func(t *testing.T, c *cluster) {
				made := c.countPods()
				c.makeCron(concurrency(tc.policy))
				time.Sleep(3*time.Minute + 5*time.Second)
				c.wantActiveJobs(tc.active)
				if n := made(); n != tc.steps {
					t.Errorf("%d pods were made, want %d", n, tc.steps)
				}
				c.wantNoLeftovers()
			})
		})
	}
}

// wantNoLeftovers waits until each pod belongs to a job that is there.
func (c *cluster) wantNoLeftovers() {
	c.t.Helper()
	c.eventually("replaced jobs' pods are gone", func() error {
		names, _ := c.jobs()
		list, err := c.Client.CoreV1().Pods("default").List(c.t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, pod := range list.Items {
			if !slices.Contains(names, pod.Labels[batchv1.JobNameLabel]) {
				return fmt.Errorf("pod %s is there, the jobs are %v", pod.Name, names)
			}
		}
		return nil
	})
}

func TestCronJobSuspendedAndByHand(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		cron := c.makeCron(func(s *batchv1.CronJobSpec) { s.Suspend = new(true) })
		time.Sleep(5 * time.Minute)
		if names, _ := c.jobs(); len(names) != 0 {
			t.Errorf("a suspended one made %v", names)
		}
		// As kubectl create job --from does it.
		byHand := newJob()
		byHand.Spec = cron.Spec.JobTemplate.Spec
		byHand.Annotations = map[string]string{"cronjob.kubernetes.io/instantiate": "manual"}
		byHand.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(cron, batchv1.SchemeGroupVersion.WithKind("CronJob"))}
		c.makeJob(byHand)
		c.tasks(always(0))
		c.wantEnd(batchv1.JobComplete, batchv1.JobReasonCompletionsReached)
		if _, err := c.Client.BatchV1().CronJobs("default").Patch(t.Context(), "tick", types.MergePatchType, []byte(`{"spec":{"suspend":false}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if names, _ := c.jobs(); len(names) != 2 {
			t.Errorf("one of the missed times is made up for: %v", names)
		}
		if err := c.Client.BatchV1().CronJobs("default").Delete(t.Context(), "tick", metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationBackground)}); err != nil {
			t.Fatal(err)
		}
		c.eventually("all is gone", func() error {
			names, _ := c.jobs()
			pods, err := c.Client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
			if err == nil && len(names)+len(pods.Items) > 0 {
				err = fmt.Errorf("jobs %v and %d pods", names, len(pods.Items))
			}
			return err
		})
	})
}

func TestCronJobLateEcho(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		t.Cleanup(c.startControllers(transports{read: lateWatches(lateEcho)}))
		made := c.countPods()
		c.makeCron(concurrency(batchv1.ReplaceConcurrent))
		time.Sleep(3*time.Minute + 20*time.Second)
		c.wantActiveJobs(1)
		if n := made(); n != 3 {
			t.Errorf("%d pods were made in 3 minutes", n)
		}
	})
}

func TestFinishedJobExpires(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.tasks(func(pod *corev1.Pod) int32 { return 0 })
		c.makeJob(newJob(func(s *batchv1.JobSpec) { s.TTLSecondsAfterFinished = new(int32(60)) }))
		c.wantEnd(batchv1.JobComplete, batchv1.JobReasonCompletionsReached)
		time.Sleep(50 * time.Second)
		if names, _ := c.jobs(); len(names) != 1 {
			t.Fatal("it is gone too early")
		}
		c.patchJob(`{"spec":{"ttlSecondsAfterFinished":90}}`)
		time.Sleep(30 * time.Second)
		if names, _ := c.jobs(); len(names) != 1 {
			t.Fatal("it is gone although it got more time")
		}
		time.Sleep(20 * time.Second)
		c.eventually("it is gone with its pods", func() error {
			names, _ := c.jobs()
			if n := len(c.jobPods()); len(names)+n > 0 {
				return fmt.Errorf("jobs %v and %d pods", names, n)
			}
			return nil
		})
	})
}
