package apiserver_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/testcluster"
)

// TestStrategicPatchOfNumberKeys replaces an entry of a list that is keyed by
// a number, as kubectl apply does when a port changes.
func TestStrategicPatchOfNumberKeys(t *testing.T) {
	c := testcluster.Start(t).Client
	_, err := c.CoreV1().Services("default").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "a", Port: 80}, {Name: "b", Port: 90}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	patch := []byte(`{"spec":{"ports":[{"$patch":"delete","port":80},{"name":"c","port":81}]}}`)
	svc, err := c.CoreV1().Services("default").Patch(t.Context(), "web", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ports := map[int32]bool{}
	for _, p := range svc.Spec.Ports {
		ports[p.Port] = true
	}
	if len(ports) != 2 || ports[80] || !ports[81] || !ports[90] {
		t.Errorf("ports %v, want 81 and 90", ports)
	}
}
