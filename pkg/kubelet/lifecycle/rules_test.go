package lifecycle

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestContainerRestartRules(t *testing.T) {
	p := pod(never, "a")
	np := corev1.ContainerRestartPolicyNever
	p.Spec.Containers[0].RestartPolicy = &np
	p.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{
		Action:    corev1.ContainerRestartRuleActionRestart,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}},
	}}
	s := newSim(t, p)
	s.exits = func(_ string, attempt int32) (time.Duration, int32) {
		if attempt == 0 {
			return time.Second, 42
		}
		return time.Second, 1
	}
	s.run(10 * time.Second)
	if s.attempts("a") != 2 || s.last.Status.Phase != corev1.PodFailed {
		t.Errorf("%d attempts, phase %s", s.attempts("a"), s.last.Status.Phase)
	}
}

func TestImageChangeRestarts(t *testing.T) {
	s := newSim(t, pod(never, "a"))
	s.run(time.Second)
	p := s.in.Pod.DeepCopy()
	p.Spec.Containers[0].Image = "other"
	s.in.Pod = p
	s.run(time.Second)
	if cs := s.last.Status.ContainerStatuses[0]; cs.RestartCount != 1 || cs.State.Running == nil {
		t.Errorf("status %+v", cs)
	}
}

func TestMessageOutlivesItsFile(t *testing.T) {
	s := newSim(t, pod(never, "a"))
	s.exits = exitsWith(map[string]int32{"a": 1})
	s.run(500 * time.Millisecond)
	s.run(time.Second)
	for i := range s.in.Containers {
		s.in.Containers[i].Message = "why"
	}
	s.run(time.Second)
	restarted := newSim(t, s.in.Pod.DeepCopy())
	restarted.in.Pod.Status = s.last.Status
	restarted.in.Containers, restarted.in.Sandboxes = s.in.Containers, s.in.Sandboxes
	restarted.in.Containers[0].Message = ""
	restarted.run(time.Second)
	if end := restarted.last.Status.ContainerStatuses[0].State.Terminated; end == nil || end.Message != "why" {
		t.Errorf("state %+v", end)
	}
}

func TestQOS(t *testing.T) {
	one := resource.MustParse("1")
	both := corev1.ResourceList{corev1.ResourceCPU: one, corev1.ResourceMemory: one}
	for _, tc := range []struct {
		r    corev1.ResourceRequirements
		want corev1.PodQOSClass
	}{
		{corev1.ResourceRequirements{}, corev1.PodQOSBestEffort},
		{corev1.ResourceRequirements{Limits: both, Requests: both}, corev1.PodQOSGuaranteed},
		{corev1.ResourceRequirements{Requests: both}, corev1.PodQOSBurstable},
	} {
		p := pod(always, "a")
		p.Spec.Containers[0].Resources = tc.r
		if got := QOS(p); got != tc.want {
			t.Errorf("%+v is %s, want %s", tc.r, got, tc.want)
		}
	}
}
