package kubelet

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"coracle/pkg/kubelet/volume"
)

// shownCPU notes the cpu limit of the pod that volumes were last made to show.
type shownCPU struct {
	noVolumes
	limit *atomic.Pointer[resource.Quantity]
}

func (s shownCPU) Refresh(_ context.Context, pod *corev1.Pod, _ volume.PodFacts) error {
	s.limit.Store(pod.Spec.Containers[0].Resources.Limits.Cpu())
	return nil
}

// TestResizeIsShownByVolumes: the downward API tells what is allocated, at once.
func TestResizeIsShownByVolumes(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.stop()
		var limit atomic.Pointer[resource.Quantity]
		n.volumes = shownCPU{limit: &limit}
		n.start()
		n.create(sizedPod("p", "1 1 64Mi 64Mi"))
		n.create(sizedPod("other", "2 - 64Mi -"))
		n.after(time.Second)
		n.resize("p", "3 3 64Mi 64Mi")
		n.after(time.Second)
		if q := limit.Load(); q != nil && q.Value() != 1 {
			t.Errorf("while there is no room: %v", q)
		}
		n.remove("other", 0)
		n.after(time.Second)
		if q := limit.Load(); q == nil || q.Value() != 3 {
			t.Errorf("when there is: %v", q)
		}
	})
}
