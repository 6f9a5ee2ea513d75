package kubelet

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestPodWithDevicesDoesNotRunWithoutThem: no container is started, and the
// Event says which driver is missing.
func TestPodWithDevicesDoesNotRunWithoutThem(t *testing.T) {
	for _, tt := range []struct {
		name     string
		reserved bool
		want     string
	}{
		{"reserved", true, "FailedPrepareDynamicResources Failed to prepare dynamic resources: DRA driver gpu.example.com is not registered"},
		{"somebody else's", false, "the pod is not allowed to use ResourceClaim gpu: it is not reserved for it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onNode(t, func(t *testing.T, n *simNode) {
				claim := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "gpu"}}
				claim.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{
					Results: []resourcev1.DeviceRequestAllocationResult{{Request: "gpu", Driver: "gpu.example.com", Pool: "p", Device: "d"}}}}
				pod := simplePod("p")
				if tt.reserved {
					claim.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: "p", UID: pod.UID}}
				}
				if _, err := n.client.ResourceV1().ResourceClaims("ns").Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
				name := "gpu"
				pod.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: &name}}
				n.create(pod)
				n.after(time.Minute)
				if s := n.get("p").Status; s.Phase != corev1.PodPending || s.ContainerStatuses[0].State.Waiting == nil {
					t.Errorf("status %+v", s)
				}
				if !n.sawEvent(tt.want) {
					t.Errorf("no Event says %q", tt.want)
				}
			})
		})
	}
}
