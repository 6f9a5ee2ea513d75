package admission

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestPriorityIsKept: an update that leaves out what the server filled in when
// the pod was created, as the file that it was created from does, is no change.
func TestPriorityIsKept(t *testing.T) {
	old := &corev1.Pod{Spec: corev1.PodSpec{Priority: new(int32(7)), PreemptionPolicy: new(corev1.PreemptNever)}}
	bare, other := &corev1.Pod{}, old.DeepCopy()
	other.Spec.Priority, other.Spec.PreemptionPolicy = new(int32(8)), new(corev1.PreemptLowerPriority)
	for _, c := range []struct {
		name   string
		pod    *corev1.Pod
		value  int32
		policy corev1.PreemptionPolicy
	}{
		{"left out", bare, 7, corev1.PreemptNever},
		{"changed", other, 8, corev1.PreemptLowerPriority}, // validation refuses it
	} {
		a := request(t, Update, corev1.SchemeGroupVersion.WithResource("pods"), "", c.pod, old)
		if err := (Priority{}).Admit(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		if v := c.pod.Spec.Priority; v == nil || *v != c.value {
			t.Errorf("%s: priority is %v, want %d", c.name, v, c.value)
		}
		if v := c.pod.Spec.PreemptionPolicy; v == nil || *v != c.policy {
			t.Errorf("%s: preemption policy is %v, want %s", c.name, v, c.policy)
		}
	}
}
