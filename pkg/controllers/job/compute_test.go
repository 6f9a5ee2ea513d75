package job

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var noon = time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC)

func newJob(change ...func(*batchv1.Job)) *batchv1.Job {
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "work", UID: "job"},
		Spec: batchv1.JobSpec{
			Parallelism: new(int32(2)), Completions: new(int32(4)), BackoffLimit: new(int32(6)),
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "main", Image: "v1"}},
			}},
		},
		Status: batchv1.JobStatus{StartTime: seconds(noon.Add(-time.Minute))},
	}
	for _, c := range change {
		c(job)
	}
	return job
}

func indexed(job *batchv1.Job) { job.Spec.CompletionMode = new(batchv1.IndexedCompletion) }

func perIndex(limit int32) func(*batchv1.Job) {
	return func(job *batchv1.Job) {
		indexed(job)
		job.Spec.BackoffLimitPerIndex, job.Spec.BackoffLimit = &limit, new(int32(1<<31-1))
	}
}

func sized(parallelism, completions int32) func(*batchv1.Job) {
	return func(job *batchv1.Job) { job.Spec.Parallelism, job.Spec.Completions = &parallelism, &completions }
}

func policy(rules ...batchv1.PodFailurePolicyRule) func(*batchv1.Job) {
	return func(job *batchv1.Job) {
		job.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: rules}
		job.Spec.PodReplacementPolicy = new(batchv1.Failed)
	}
}

func onExit(action batchv1.PodFailurePolicyAction, codes ...int32) batchv1.PodFailurePolicyRule {
	return batchv1.PodFailurePolicyRule{Action: action, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
		Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: codes,
	}}
}

func onDisruption(action batchv1.PodFailurePolicyAction) batchv1.PodFailurePolicyRule {
	return batchv1.PodFailurePolicyRule{Action: action, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{
		{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue},
	}}
}

// newPod is a pod that runs; at is its index, or noIndex.
func newPod(name string, at int, change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, UID: types.UID(name), Finalizers: []string{batchv1.JobTrackingFinalizer},
			Annotations: map[string]string{}, CreationTimestamp: metav1.NewTime(noon.Add(-time.Minute)),
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	if at != noIndex {
		pod.Annotations[batchv1.JobCompletionIndexAnnotation] = strconv.Itoa(at)
	}
	for _, c := range change {
		c(pod)
	}
	return pod
}

func ended(code int32, ago time.Duration) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Status.Phase = corev1.PodSucceeded
		if code != 0 {
			pod.Status.Phase = corev1.PodFailed
		}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.NewTime(noon.Add(-ago))},
		}}}
	}
}

func succeeded(pod *corev1.Pod) { ended(0, time.Hour)(pod) }
func failed(pod *corev1.Pod)    { ended(1, time.Hour)(pod) }
func deleted(pod *corev1.Pod)   { pod.DeletionTimestamp = &metav1.Time{Time: noon.Add(-time.Hour)} }
func untracked(pod *corev1.Pod) { pod.Finalizers = nil }
func disrupted(pod *corev1.Pod) {
	failed(pod)
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}
}

func failedBefore(counted int) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Annotations[batchv1.JobIndexFailureCountAnnotation] = strconv.Itoa(counted) }
}

// said is the plan, as a person would tell it.
func said(p plan) []string {
	var out []string
	if n := len(p.create); n > 0 {
		if p.create[0].Annotations[batchv1.JobCompletionIndexAnnotation] == "" {
			out = append(out, fmt.Sprintf("create %d", n))
		}
		for _, pod := range p.create {
			if i := indexOf(pod); i != noIndex {
				out = append(out, fmt.Sprintf("create index %d after %d", i, failuresOf(pod).counted))
			}
		}
	}
	for _, pod := range p.remove {
		if p.forget {
			out = append(out, "drop "+pod.Name)
		} else {
			out = append(out, "delete "+pod.Name)
		}
	}
	for _, pod := range p.release {
		out = append(out, "release "+pod.Name)
	}
	u := p.status.UncountedTerminatedPods
	if len(u.Succeeded)+len(u.Failed) > 0 {
		out = append(out, fmt.Sprintf("note %v and %v", u.Succeeded, u.Failed))
	}
	if p.verdict != nil {
		out = append(out, fmt.Sprintf("%s: %s", p.verdict.Type, p.verdict.Reason))
	}
	if p.wake > 0 {
		out = append(out, "wake in "+p.wake.String())
	}
	return out
}

func TestCompute(t *testing.T) {
	for _, tc := range []struct {
		name string
		job  *batchv1.Job
		pods []*corev1.Pod
		want []string
	}{
		{"starts", newJob(), nil, []string{"create 2"}},
		{"no more than are wanted", newJob(sized(5, 3)), nil, []string{"create 3"}},
		{"is full", newJob(), []*corev1.Pod{newPod("a", -1), newPod("b", -1)}, nil},
		{"success is noted and replaced", newJob(), []*corev1.Pod{newPod("a", -1, succeeded), newPod("b", -1)},
			[]string{"create 1", "release a", "note [a] and []"}},
		{"the last ones", newJob(sized(2, 2)), []*corev1.Pod{newPod("a", -1, succeeded), newPod("b", -1)},
			[]string{"release a", "note [a] and []"}},
		{"completes", newJob(sized(2, 2)), []*corev1.Pod{newPod("a", -1, succeeded), newPod("b", -1, succeeded)},
			[]string{"release a", "release b", "note [a b] and []", "SuccessCriteriaMet: CompletionsReached"}},
		{"one too many goes when enough succeeded", newJob(sized(2, 1)), []*corev1.Pod{newPod("a", -1, succeeded), newPod("b", -1)},
			[]string{"drop b", "release a", "note [a] and []", "SuccessCriteriaMet: CompletionsReached"}},
		{"a pod without finalizer was counted", newJob(func(j *batchv1.Job) { j.Status.Succeeded = 3 }),
			[]*corev1.Pod{newPod("a", -1, succeeded, untracked)}, []string{"create 1"}},
		{"narrower", newJob(sized(1, 4)), []*corev1.Pod{newPod("a", -1), newPod("b", -1)}, []string{"drop a"}},
		{"suspended", newJob(func(j *batchv1.Job) { j.Spec.Suspend = new(true) }), []*corev1.Pod{newPod("a", -1), newPod("b", -1, succeeded)},
			[]string{"drop a", "release b", "note [b] and []"}},
		{"a failure backs off", newJob(), []*corev1.Pod{newPod("a", -1, ended(1, 4*time.Second)), newPod("b", -1)},
			[]string{"release a", "note [] and [a]", "wake in 6s"}},
		{"the third failure in a row", newJob(), []*corev1.Pod{
			newPod("a", -1, ended(1, time.Minute), untracked), newPod("b", -1, ended(1, 30*time.Second), untracked), newPod("c", -1, ended(1, 3*time.Second)),
		}, []string{"release c", "note [] and [c]", "wake in 37s"}},
		{"a success ends the row", newJob(), []*corev1.Pod{
			newPod("a", -1, ended(1, time.Minute), untracked), newPod("b", -1, ended(0, 30*time.Second), untracked), newPod("c", -1, ended(1, 3*time.Second)),
		}, []string{"release c", "note [] and [c]", "wake in 7s"}},
		{"the limit", newJob(func(j *batchv1.Job) { j.Spec.BackoffLimit, j.Status.Failed = new(int32(1)), 1 }),
			[]*corev1.Pod{newPod("a", -1, failed), newPod("b", -1)},
			[]string{"delete b", "release a", "release b", "note [] and [a b]", "FailureTarget: BackoffLimitExceeded"}},
		{"the limit, by restarts", newJob(func(j *batchv1.Job) {
			j.Spec.BackoffLimit, j.Spec.Template.Spec.RestartPolicy = new(int32(3)), corev1.RestartPolicyOnFailure
		}), []*corev1.Pod{newPod("a", -1, func(p *corev1.Pod) { p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: 3}} })},
			[]string{"delete a", "release a", "note [] and [a]", "FailureTarget: BackoffLimitExceeded"}},
		{"the deadline comes", newJob(func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = new(int64(90)) }),
			[]*corev1.Pod{newPod("a", -1), newPod("b", -1)}, []string{"wake in 30s"}},
		{"the deadline came", newJob(func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = new(int64(60)) }),
			[]*corev1.Pod{newPod("a", -1)}, []string{"delete a", "release a", "note [] and [a]", "FailureTarget: DeadlineExceeded"}},
		{"a deleted pod counts and is replaced", newJob(), []*corev1.Pod{newPod("a", -1, deleted), newPod("b", -1)},
			[]string{"create 1", "release a", "note [] and [a]"}},
		{"a deleted pod that must end first", newJob(func(j *batchv1.Job) { j.Spec.PodReplacementPolicy = new(batchv1.Failed) }),
			[]*corev1.Pod{newPod("a", -1, deleted), newPod("b", -1)}, nil},
		{"no completions asked for", newJob(func(j *batchv1.Job) { j.Spec.Completions = nil }),
			[]*corev1.Pod{newPod("a", -1, succeeded), newPod("b", -1)}, []string{"release a", "note [a] and []"}},
		{"no completions, all ended", newJob(func(j *batchv1.Job) { j.Spec.Completions = nil }),
			[]*corev1.Pod{newPod("a", -1, succeeded), newPod("b", -1, failed)},
			[]string{"release a", "release b", "note [a] and [b]", "SuccessCriteriaMet: CompletionsReached"}},
		{"nothing to do at all", newJob(sized(1, 0)), nil, []string{"SuccessCriteriaMet: CompletionsReached"}},
		{"being deleted", newJob(deletedJob), []*corev1.Pod{newPod("a", -1), newPod("b", -1, failed)},
			[]string{"release a", "release b", "note [] and [b]"}},
		{"what was decided stays", newJob(func(j *batchv1.Job) {
			j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailureTarget, Status: corev1.ConditionTrue, Reason: "Why"}}
		}), []*corev1.Pod{newPod("a", -1, deleted, untracked)}, []string{"FailureTarget: Why"}},

		{"indexes", newJob(indexed, sized(3, 5), func(j *batchv1.Job) { j.Status.CompletedIndexes = "0,2" }), []*corev1.Pod{newPod("a", 1)},
			[]string{"create index 3 after 0", "create index 4 after 0"}},
		{"an index that is there twice", newJob(indexed), []*corev1.Pod{newPod("a", 1), newPod("b", 1)}, []string{"drop a"}},
		{"indexes out of range", newJob(indexed, sized(2, 2)), []*corev1.Pod{newPod("a", 0), newPod("b", 2), newPod("c", -1)},
			[]string{"drop c", "drop b"}},
		{"an index done elsewhere", newJob(indexed, sized(3, 3)), []*corev1.Pod{newPod("a", 0, succeeded), newPod("b", 0), newPod("c", 1)},
			[]string{"drop b", "release a"}},
		{"a terminating index is replaced", newJob(indexed, sized(1, 1)), []*corev1.Pod{newPod("a", 0, deleted)},
			[]string{"create index 0 after 0", "release a", "note [] and [a]"}},
		{"a terminating index that must end", newJob(indexed, sized(1, 1), func(j *batchv1.Job) { j.Spec.PodReplacementPolicy = new(batchv1.Failed) }),
			[]*corev1.Pod{newPod("a", 0, deleted)}, nil},

		{"per index, the failed pod is held", newJob(perIndex(2), sized(2, 2)), []*corev1.Pod{newPod("a", 0, ended(1, 4*time.Second)), newPod("b", 1)},
			[]string{"wake in 6s"}},
		{"per index, the next knows", newJob(perIndex(2), sized(2, 2)), []*corev1.Pod{newPod("a", 0, failed, failedBefore(1)), newPod("b", 1)},
			[]string{"create index 0 after 2"}},
		{"per index, and frees it", newJob(perIndex(2), sized(2, 2)), []*corev1.Pod{newPod("a", 0, failed, failedBefore(1)), newPod("c", 0, failedBefore(2)), newPod("b", 1)},
			[]string{"release a", "note [] and [a]"}},
		{"per index, one waits and the next starts", newJob(perIndex(2), sized(1, 2)), []*corev1.Pod{newPod("a", 0, ended(1, 4*time.Second))},
			[]string{"create index 1 after 0", "wake in 6s"}},
		{"per index, the limit", newJob(perIndex(1), sized(2, 3)), []*corev1.Pod{newPod("a", 0, failed, failedBefore(1)), newPod("b", 1)},
			[]string{"create index 2 after 0", "release a", "note [] and [a]"}},
		{"per index, all over", newJob(perIndex(0), sized(2, 2)), []*corev1.Pod{newPod("a", 0, failed), newPod("b", 1, succeeded)},
			[]string{"release a", "release b", "note [] and [a]", "FailureTarget: FailedIndexes"}},
		{"per index, too many", newJob(perIndex(0), sized(2, 5), func(j *batchv1.Job) { j.Spec.MaxFailedIndexes = new(int32(0)) }),
			[]*corev1.Pod{newPod("a", 0, failed), newPod("b", 1)},
			[]string{"delete b", "release a", "release b", "note [] and [a b]", "FailureTarget: MaxFailedIndexesExceeded"}},

		{"FailJob", newJob(policy(onExit(batchv1.PodFailurePolicyActionFailJob, 42))), []*corev1.Pod{newPod("a", -1, ended(42, time.Hour)), newPod("b", -1)},
			[]string{"delete b", "release a", "release b", "note [] and [a b]", "FailureTarget: PodFailurePolicy"}},
		{"another exit code", newJob(policy(onExit(batchv1.PodFailurePolicyActionFailJob, 42))), []*corev1.Pod{newPod("a", -1, failed), newPod("b", -1)},
			[]string{"create 1", "release a", "note [] and [a]"}},
		{"Ignore", newJob(policy(onDisruption(batchv1.PodFailurePolicyActionIgnore)), func(j *batchv1.Job) { j.Spec.BackoffLimit = new(int32(0)) }),
			[]*corev1.Pod{newPod("a", -1, disrupted), newPod("b", -1)}, []string{"create 1", "release a"}},
		{"Count comes before FailJob", newJob(policy(onExit(batchv1.PodFailurePolicyActionCount, 1), onExit(batchv1.PodFailurePolicyActionFailJob, 1))),
			[]*corev1.Pod{newPod("a", -1, failed), newPod("b", -1)}, []string{"create 1", "release a", "note [] and [a]"}},
		{"FailIndex", newJob(perIndex(5), sized(2, 3), policy(onExit(batchv1.PodFailurePolicyActionFailIndex, 42))),
			[]*corev1.Pod{newPod("a", 0, ended(42, time.Hour)), newPod("b", 1)},
			[]string{"create index 2 after 0", "release a", "note [] and [a]"}},

		{"the leader succeeded", newJob(indexed, sized(3, 3), success(batchv1.SuccessPolicyRule{SucceededIndexes: new("0")})),
			[]*corev1.Pod{newPod("a", 0, succeeded), newPod("b", 1), newPod("c", 2)},
			[]string{"delete b", "delete c", "release a", "release b", "release c", "SuccessCriteriaMet: SuccessPolicy"}},
		{"enough of some succeeded", newJob(indexed, sized(3, 3), success(batchv1.SuccessPolicyRule{SucceededIndexes: new("0-1"), SucceededCount: new(int32(1))})),
			[]*corev1.Pod{newPod("b", 1, succeeded), newPod("c", 2)},
			[]string{"delete c", "release b", "release c", "SuccessCriteriaMet: SuccessPolicy"}},
		{"the wrong one succeeded", newJob(indexed, sized(2, 3), success(batchv1.SuccessPolicyRule{SucceededIndexes: new("0-1"), SucceededCount: new(int32(1))})),
			[]*corev1.Pod{newPod("c", 2, succeeded), newPod("a", 0), newPod("b", 1)}, []string{"release c"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, said(compute(observed{job: tc.job, pods: tc.pods}, noon))); diff != "" {
				t.Errorf("the plan is (-want +got):\n%s", diff)
			}
		})
	}
}

func deletedJob(job *batchv1.Job) { job.DeletionTimestamp = &metav1.Time{Time: noon} }

func success(rules ...batchv1.SuccessPolicyRule) func(*batchv1.Job) {
	return func(job *batchv1.Job) { job.Spec.SuccessPolicy = &batchv1.SuccessPolicy{Rules: rules} }
}

func TestStatus(t *testing.T) {
	now := noon.Add(300 * time.Millisecond)
	job := newJob(perIndex(0), sized(3, 6), func(j *batchv1.Job) {
		j.Status.CompletedIndexes, j.Status.StartTime, j.Status.Failed = "1,2,9", nil, 2
		j.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{Failed: []types.UID{"gone", "e"}}
	})
	ready := func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	p := compute(observed{job: job, pods: []*corev1.Pod{
		newPod("a", 0, ready), newPod("b", 3, succeeded), newPod("c", 4, failed), newPod("d", 5, deleted, untracked), newPod("e", 4, failed),
	}}, now)
	want := batchv1.JobStatus{
		StartTime: seconds(noon), Active: 1, Ready: new(int32(1)), Terminating: new(int32(1)),
		Succeeded: 3, Failed: 3, CompletedIndexes: "1-3", FailedIndexes: new("4,5"),
		UncountedTerminatedPods: &batchv1.UncountedTerminatedPods{Failed: []types.UID{"e", "c"}},
	}
	if diff := cmp.Diff(want, p.status); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestSuspendAndResume(t *testing.T) {
	job := newJob(func(j *batchv1.Job) { j.Spec.Suspend = new(true) })
	p := compute(observed{job: job}, noon)
	if c := condition(&p.status, batchv1.JobSuspended); c == nil || p.status.StartTime != nil || len(p.notices) != 1 {
		t.Fatalf("suspended: %+v, %v", p.status, p.notices)
	}
	job.Status, job.Spec.Suspend = p.status, new(false)
	p = compute(observed{job: job}, noon.Add(time.Hour))
	if condition(&p.status, batchv1.JobSuspended) != nil || !p.status.StartTime.Time.Equal(noon.Add(time.Hour)) || p.notices[0].reason != "Resumed" {
		t.Errorf("resumed: %+v, %v", p.status, p.notices)
	}
	if p.status.Conditions[0].Status != corev1.ConditionFalse || len(p.create) != 2 {
		t.Errorf("resumed: %+v, %d pods to create", p.status.Conditions, len(p.create))
	}
}

func TestNewPodOfIndex(t *testing.T) {
	job := newJob(perIndex(3), func(j *batchv1.Job) {
		j.Name = "a-very-long-name-that-is-as-long-as-the-name-of-a-job-can-be-xx"
		j.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "init", Env: []corev1.EnvVar{{Name: "JOB_COMPLETION_INDEX", Value: "own"}}}}
	})
	pod := look(observed{job: withUncounted(job)}, noon).newPod(12)
	if pod.GenerateName != "a-very-long-name-that-is-as-long-as-the-name-of-a-job--12-" || pod.Spec.Hostname != job.Name+"-12" {
		t.Errorf("name %q, hostname %q", pod.GenerateName, pod.Spec.Hostname)
	}
	if pod.Labels[batchv1.JobCompletionIndexAnnotation] != "12" || indexOf(pod) != 12 || !tracked(pod) || pod.Annotations[batchv1.JobIndexFailureCountAnnotation] != "0" {
		t.Errorf("metadata %+v", pod.ObjectMeta)
	}
	if env := pod.Spec.Containers[0].Env; len(env) != 1 || env[0].ValueFrom.FieldRef.FieldPath != "metadata.labels['batch.kubernetes.io/job-completion-index']" {
		t.Errorf("environment %+v", env)
	}
	if env := pod.Spec.InitContainers[0].Env; len(env) != 1 || env[0].Value != "own" {
		t.Errorf("environment of the init container %+v", env)
	}
	if slices.Contains(job.Spec.Template.Finalizers, batchv1.JobTrackingFinalizer) || len(job.Spec.Template.Spec.Containers[0].Env) > 0 {
		t.Error("the job's template was changed")
	}
}

func withUncounted(job *batchv1.Job) *batchv1.Job {
	if job.Status.UncountedTerminatedPods == nil {
		job.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	return job
}

// TestPodsTooManyDelayNoOthers: one who has just started and finds pods that
// were let go does not take them for failures.
func TestPodsTooManyDelayNoOthers(t *testing.T) {
	justDeleted := func(pod *corev1.Pod) { pod.DeletionTimestamp = &metav1.Time{Time: noon} }
	pods := []*corev1.Pod{newPod("a", noIndex, justDeleted, untracked), newPod("b", noIndex, ended(1, time.Second), justDeleted, untracked)}
	if p := compute(observed{job: newJob(sized(2, 3)), pods: pods}, noon); len(p.create) != 2 || p.wake != 0 {
		t.Errorf("%d pods are made, and it wakes after %v; want 2 at once", len(p.create), p.wake)
	}
}

func TestBackOffGrows(t *testing.T) {
	var got []string
	for n := range 10 {
		got = append(got, failures{count: n, last: noon}.wait(noon).String())
	}
	want := []string{"0s", "10s", "20s", "40s", "1m20s", "2m40s", "5m20s", "10m0s", "10m0s", "10m0s"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("delays (-want +got):\n%s", diff)
	}
	if w := (failures{count: 1, last: noon}).wait(noon.Add(-time.Hour)); w != 10*time.Second {
		t.Errorf("a clock that went back makes it wait %v", w)
	}
}
