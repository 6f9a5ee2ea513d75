package kubelet

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestForceDeletedPodIsEnded(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.create(simplePod("p", "sh", "-c", "trap '' TERM; sleep infinity"))
		n.after(2 * time.Second)
		if err := n.client.CoreV1().Pods("ns").Delete(t.Context(), "p", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		n.after(time.Minute)
		if !n.runtime.Empty() {
			t.Error("its containers still run")
		}
	})
}

func TestGraceIsGiven(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.create(simplePod("p", "sh", "-c", "trap '' TERM; sleep infinity"))
		n.after(2 * time.Second)
		n.remove("p", 20)
		n.after(19 * time.Second)
		if n.runtime.Live("uid-p", "c") != 1 {
			t.Error("killed before its grace was over")
		}
		n.after(3 * time.Second)
		if n.exists("p") {
			t.Error("not killed after its grace")
		}
	})
}

func TestEphemeralContainer(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.create(simplePod("p"))
		n.after(2 * time.Second)
		pod := n.get("p")
		pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "dbg:1"}}}
		if _, err := n.client.CoreV1().Pods("ns").Update(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		n.after(2 * time.Second)
		s := n.get("p").Status
		if len(s.EphemeralContainerStatuses) != 1 || s.EphemeralContainerStatuses[0].State.Running == nil || s.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("status %+v", s)
		}
	})
}
