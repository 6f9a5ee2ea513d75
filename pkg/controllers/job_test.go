package controllers_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// newJob is a job whose pods have the image "task" and end as the simulator is
// told.
func newJob(change ...func(*batchv1.JobSpec)) *batchv1.Job {
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "work"},
		Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "main", Image: "task"}},
		}}},
	}
	for _, c := range change {
		c(&job.Spec)
	}
	return job
}

func jobOf(parallelism, completions int32) func(*batchv1.JobSpec) {
	return func(s *batchv1.JobSpec) { s.Parallelism, s.Completions = &parallelism, &completions }
}

func inIndexes(s *batchv1.JobSpec) { s.CompletionMode = new(batchv1.IndexedCompletion) }

func (c *cluster) makeJob(job *batchv1.Job) *batchv1.Job {
	c.t.Helper()
	got, err := c.Client.BatchV1().Jobs("default").Create(c.t.Context(), job, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return got
}

func (c *cluster) patchJob(patch string) {
	c.t.Helper()
	if _, err := c.Client.BatchV1().Jobs("default").Patch(c.t.Context(), "work", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// tasks says how the pods of jobs end.
func (c *cluster) tasks(ends func(*corev1.Pod) int32) {
	c.node.change(func(s *simulator) { s.ends["task"] = ends })
}

func always(code int32) func(*corev1.Pod) int32 { return func(*corev1.Pod) int32 { return code } }

// wantJob waits until check is nil for the job, and returns it.
func (c *cluster) wantJob(what string, check func(*batchv1.Job) error) *batchv1.Job {
	c.t.Helper()
	var job *batchv1.Job
	c.eventually("the job "+what, func() (err error) {
		if job, err = c.Client.BatchV1().Jobs("default").Get(c.t.Context(), "work", metav1.GetOptions{}); err != nil {
			return err
		}
		if err = check(job); err != nil {
			return fmt.Errorf("%w: %+v", err, job.Status)
		}
		return nil
	})
	return job
}

// wantEnd waits until the job has the condition and returns it.
func (c *cluster) wantEnd(t batchv1.JobConditionType, reason string) *batchv1.Job {
	c.t.Helper()
	return c.wantJob("is "+string(t), func(job *batchv1.Job) error {
		for _, cond := range job.Status.Conditions {
			if cond.Type == t && cond.Status == corev1.ConditionTrue {
				if cond.Reason != reason {
					return errors.New("the reason is " + cond.Reason)
				}
				return nil
			}
		}
		return errors.New("it is not")
	})
}

// wantActive waits until the job has so many pods, as it says and as there are.
func (c *cluster) wantActive(n int) {
	c.t.Helper()
	c.wantJob(fmt.Sprintf("has %d active pods", n), func(job *batchv1.Job) error {
		living := 0
		for _, pod := range c.jobPods() {
			if pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodRunning {
				living++
			}
		}
		if int(job.Status.Active) != n || living != n || *job.Status.Ready != int32(n) {
			return fmt.Errorf("%d run", living)
		}
		return nil
	})
}

func (c *cluster) jobPods() []corev1.Pod {
	c.t.Helper()
	list, err := c.Client.CoreV1().Pods("default").List(c.t.Context(), metav1.ListOptions{LabelSelector: "job-name=work"})
	if err != nil {
		c.t.Fatal(err)
	}
	return list.Items
}

// wantNoFinalizers checks that nothing holds the pods of jobs any more.
func (c *cluster) wantNoFinalizers() {
	c.t.Helper()
	c.eventually("no pod has a finalizer", func() error {
		for _, pod := range c.jobPods() {
			if len(pod.Finalizers) > 0 {
				return fmt.Errorf("%s has %v", pod.Name, pod.Finalizers)
			}
		}
		return nil
	})
}

// wantEvents waits until there are Events with these reasons about an object.
func (c *cluster) wantEvents(name string, reasons ...string) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("events about %s", name), func() error {
		list, err := c.Client.CoreV1().Events("default").List(c.t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
		if err != nil {
			return err
		}
		var got []string
		for _, e := range list.Items {
			got = append(got, e.Reason)
		}
		for _, reason := range reasons {
			if !slices.Contains(got, reason) {
				return fmt.Errorf("%v lacks %s", got, reason)
			}
		}
		return nil
	})
}

func TestJobCompletes(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		made := c.countPods()
		c.tasks(always(0))
		c.makeJob(newJob(jobOf(2, 5)))
		job := c.wantEnd(batchv1.JobComplete, batchv1.JobReasonCompletionsReached)
		if s := job.Status; s.Succeeded != 5 || s.Failed != 0 || s.Active != 0 || s.CompletionTime == nil || s.StartTime == nil || s.CompletedIndexes != "" {
			t.Errorf("status %+v", s)
		}
		if n := made(); n != 5 {
			t.Errorf("%d pods were made for 5 completions", n)
		}
		c.wantNoFinalizers()
		c.wantEvents("work", "SuccessfulCreate", "Completed")
	})
}

func TestIndexedJobCompletes(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.tasks(always(0))
		c.makeJob(newJob(jobOf(3, 4), inIndexes))
		if s := c.wantEnd(batchv1.JobComplete, batchv1.JobReasonCompletionsReached).Status; s.CompletedIndexes != "0-3" || s.Succeeded != 4 {
			t.Errorf("status %+v", s)
		}
		var hosts []string
		for _, pod := range c.jobPods() {
			hosts = append(hosts, pod.Spec.Hostname)
			index := pod.Annotations[batchv1.JobCompletionIndexAnnotation]
			if pod.Spec.Hostname != "work-"+index || pod.Labels[batchv1.JobCompletionIndexAnnotation] != index || pod.Spec.Containers[0].Env[0].Name != "JOB_COMPLETION_INDEX" {
				t.Errorf("pod %+v", pod)
			}
		}
		if slices.Sort(hosts); !slices.Equal(hosts, []string{"work-0", "work-1", "work-2", "work-3"}) {
			t.Errorf("hosts %v", hosts)
		}
	})
}

func TestJobGivesUp(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		made := c.countPods()
		c.tasks(always(1))
		start := time.Now()
		c.makeJob(newJob(func(s *batchv1.JobSpec) { s.BackoffLimit = new(int32(2)) }))
		s := c.wantEnd(batchv1.JobFailed, batchv1.JobReasonBackoffLimitExceeded).Status
		if n := made(); s.Failed != 3 || n != 3 {
			t.Errorf("%d pods were made, status %+v", n, s)
		}
		if took := time.Since(start); took < 30*time.Second { // 10 s and 20 s
			t.Errorf("it took only %v", took)
		}
		c.wantNoFinalizers()
		c.wantEvents("work", "BackoffLimitExceeded")
	})
}

func TestJobPastItsDeadline(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeJob(newJob(jobOf(2, 2), func(s *batchv1.JobSpec) { s.ActiveDeadlineSeconds = new(int64(20)) }))
		c.wantActive(2)
		if s := c.wantEnd(batchv1.JobFailed, batchv1.JobReasonDeadlineExceeded).Status; s.Failed != 2 || *s.Terminating != 0 {
			t.Errorf("status %+v", s)
		}
		c.wantNoFinalizers()
		c.settle()
		if n := len(c.jobPods()); n != 0 {
			t.Errorf("%d pods are left", n)
		}
	})
}

func TestJobIsSuspendedResumedAndResized(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeJob(newJob(jobOf(2, 3), func(s *batchv1.JobSpec) { s.Suspend = new(true) }))
		c.wantEvents("work", "Suspended")
		c.settle()
		if n := len(c.jobPods()); n != 0 {
			t.Errorf("%d pods of a suspended job", n)
		}
		c.patchJob(`{"spec":{"suspend":false}}`)
		c.wantActive(2)
		c.patchJob(`{"spec":{"suspend":true}}`)
		c.wantJob("is suspended", func(job *batchv1.Job) error {
			if s := job.Status; s.Active != 0 || *s.Terminating != 0 || s.StartTime != nil || s.Failed != 0 {
				return errors.New("not yet")
			}
			return nil
		})
		c.patchJob(`{"spec":{"suspend":false,"parallelism":3}}`)
		c.wantActive(3)
		c.patchJob(`{"spec":{"parallelism":1}}`)
		c.wantActive(1)
		c.tasks(always(0))
		if s := c.wantEnd(batchv1.JobComplete, batchv1.JobReasonCompletionsReached).Status; s.Succeeded != 3 || s.Failed != 0 {
			t.Errorf("status %+v", s)
		}
		c.wantEvents("work", "Resumed", "SuccessfulDelete")
	})
}

func TestElasticIndexedJob(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.tasks(func(pod *corev1.Pod) int32 {
			if i := pod.Annotations[batchv1.JobCompletionIndexAnnotation]; i == "0" || i == "3" {
				return 0
			}
			return -1
		})
		c.makeJob(newJob(jobOf(4, 4), inIndexes))
		c.wantJob("has done two", func(job *batchv1.Job) error {
			if job.Status.CompletedIndexes != "0,3" {
				return errors.New("not yet")
			}
			return nil
		})
		c.wantActive(2)
		c.patchJob(`{"spec":{"parallelism":2,"completions":2}}`)
		c.wantActive(1)
		c.patchJob(`{"spec":{"parallelism":3,"completions":3}}`)
		c.wantActive(2)
		c.tasks(always(0))
		if s := c.wantEnd(batchv1.JobComplete, batchv1.JobReasonCompletionsReached).Status; s.CompletedIndexes != "0-2" || s.Failed != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestJobAdoptsAndReleases(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeJob(newJob(jobOf(2, 2)))
		c.wantActive(2)
		pods, client := c.jobPods(), c.Client.CoreV1().Pods("default")
		patch := func(pod, data string) {
			t.Helper()
			if _, err := client.Patch(t.Context(), pod, types.MergePatchType, []byte(data), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		controlled := func(name string, want bool) {
			t.Helper()
			c.eventually(fmt.Sprintf("%s is controlled: %v", name, want), func() error {
				pod, err := client.Get(t.Context(), name, metav1.GetOptions{})
				if err != nil {
					return err
				}
				if is := metav1.GetControllerOf(pod) != nil; is != want || (len(pod.Finalizers) > 0) != want {
					return fmt.Errorf("%+v", pod.ObjectMeta)
				}
				return nil
			})
		}
		patch(pods[0].Name, `{"metadata":{"ownerReferences":null}}`)
		controlled(pods[0].Name, true)
		patch(pods[1].Name, `{"metadata":{"labels":{"job-name":"other","batch.kubernetes.io/job-name":"other","controller-uid":"x","batch.kubernetes.io/controller-uid":"x"}}}`)
		controlled(pods[1].Name, false)
		c.wantActive(2)
	})
}

func TestDeletedJobTakesItsPods(t *testing.T) {
	for _, how := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan} {
		t.Run(string(how), func(t *testing.T) {
			scenario(t, func(t *testing.T, c *cluster) {
				c.makeJob(newJob(jobOf(3, 3)))
				c.wantActive(3)
				if err := c.Client.BatchV1().Jobs("default").Delete(t.Context(), "work", metav1.DeleteOptions{PropagationPolicy: &how}); err != nil {
					t.Fatal(err)
				}
				c.eventually("the job is gone", func() error {
					if _, err := c.Client.BatchV1().Jobs("default").Get(t.Context(), "work", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
						return fmt.Errorf("it is there: %v", err)
					}
					return nil
				})
				c.wantNoFinalizers()
				c.settle()
				want := 0
				if how == metav1.DeletePropagationOrphan {
					want = 3
				}
				if n := len(c.jobPods()); n != want {
					t.Errorf("%d pods are left, want %d", n, want)
				}
			})
		})
	}
}

func TestJobFailsEarlyByPolicy(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.tasks(func(pod *corev1.Pod) int32 {
			if pod.Annotations[batchv1.JobCompletionIndexAnnotation] == "1" {
				return 42
			}
			return -1
		})
		c.makeJob(newJob(jobOf(2, 2), inIndexes, func(s *batchv1.JobSpec) {
			s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
				Action:      batchv1.PodFailurePolicyActionFailJob,
				OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{42}},
			}}}
		}))
		if s := c.wantEnd(batchv1.JobFailed, batchv1.JobReasonPodFailurePolicy).Status; s.Failed != 2 {
			t.Errorf("status %+v", s)
		}
	})
}

// TestEvictionsAreIgnored evicts the pod of each index: that is no failure.
func TestEvictionsAreIgnored(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeJob(newJob(jobOf(2, 2), inIndexes, func(s *batchv1.JobSpec) {
			s.BackoffLimit = new(int32(0))
			s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
				Action:          batchv1.PodFailurePolicyActionIgnore,
				OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}},
			}}}
		}))
		c.wantActive(2)
		for _, pod := range c.jobPods() {
			if err := c.Client.CoreV1().Pods("default").EvictV1(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod.Name}}); err != nil {
				t.Fatal(err)
			}
		}
		c.eventually("both are replaced", func() error {
			fresh := 0
			for _, pod := range c.jobPods() {
				if pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodRunning {
					fresh++
				}
			}
			if fresh != 2 {
				return fmt.Errorf("%d run", fresh)
			}
			return nil
		})
		c.tasks(always(0))
		if s := c.wantEnd(batchv1.JobComplete, batchv1.JobReasonCompletionsReached).Status; s.Failed != 0 || s.Succeeded != 2 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestIndexesHaveTheirOwnLimits(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.tasks(func(pod *corev1.Pod) int32 {
			i, err := strconv.Atoi(pod.Annotations[batchv1.JobCompletionIndexAnnotation])
			if err != nil {
				return -1
			}
			return int32(i % 2)
		})
		c.makeJob(newJob(jobOf(2, 4), inIndexes, func(s *batchv1.JobSpec) { s.BackoffLimitPerIndex = new(int32(1)) }))
		if s := c.wantEnd(batchv1.JobFailed, batchv1.JobReasonFailedIndexes).Status; s.Failed != 4 || s.CompletedIndexes != "0,2" || *s.FailedIndexes != "1,3" {
			t.Errorf("status %+v", s)
		}
		c.wantNoFinalizers()
	})
}

func TestForeignJobIsLeftAlone(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeJob(newJob(func(s *batchv1.JobSpec) { s.ManagedBy = new("example.com/other") }))
		c.settle()
		job := c.wantJob("is there", func(*batchv1.Job) error { return nil })
		if n := len(c.jobPods()); n != 0 || job.Status.StartTime != nil {
			t.Errorf("%d pods, status %+v", n, job.Status)
		}
	})
}

// failOnce fails the first pod that it is asked about, and no other.
func failOnce() func(*corev1.Pod) int32 {
	var first types.UID
	return func(pod *corev1.Pod) int32 {
		if first == "" {
			first = pod.UID
		}
		if pod.UID == first {
			return 1
		}
		return 0
	}
}

// TestJobLateEcho lets the controllers see every change seconds late: no pod is
// made twice, and each is counted once.
func TestJobLateEcho(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		t.Cleanup(c.startControllers(transports{read: lateWatches(lateEcho)}))
		made := c.countPods()
		c.tasks(failOnce())
		c.makeJob(newJob(jobOf(2, 4)))
		if s := c.wantEnd(batchv1.JobComplete, batchv1.JobReasonCompletionsReached).Status; s.Succeeded != 4 || s.Failed != 1 {
			t.Errorf("status %+v", s)
		}
		if n := made(); n != 5 {
			t.Errorf("%d pods were made, want 5", n)
		}
		c.wantNoFinalizers()
	})
}
