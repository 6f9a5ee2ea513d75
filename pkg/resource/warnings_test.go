package resource

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestWarnings(t *testing.T) {
	r := deployments()
	d := example(t, r).(*appsv1.Deployment)
	create(r, d)
	if got := r.Warnings(d, nil); len(got) > 0 {
		t.Errorf("a good deployment: %v", got)
	}
	spec := &d.Spec.Template.Spec
	spec.NodeSelector = map[string]string{"beta.kubernetes.io/os": "linux"}
	spec.ImagePullSecrets = []corev1.LocalObjectReference{{}}
	c := &spec.Containers[0]
	c.Env = []corev1.EnvVar{{Name: "A"}, {Name: "A"}}
	c.Ports = append(c.Ports, c.Ports[0])
	c.Resources.Requests = corev1.ResourceList{"memory": resource.MustParse("100m")}
	want := []string{
		`spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead`,
		`spec.template.spec.imagePullSecrets[0].name: invalid empty name ""`,
		`spec.template.spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply`,
		`spec.template.spec.containers[0].resources.requests[memory]: fractional byte value "100m" is invalid, must be an integer`,
		`spec.template.spec.containers[0].ports[1]: duplicate port definition with spec.template.spec.containers[0].ports[0]`,
	}
	if diff := cmp.Diff(want, r.Warnings(d, nil)); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if got := r.Warnings(d, d.DeepCopy()); len(got) > 0 {
		t.Errorf("an update of the status alone: %v", got)
	}
	svc := example(t, services()).(*corev1.Service)
	svc.Spec.ClusterIP = corev1.ClusterIPNone
	if diff := cmp.Diff([]string{"spec.SessionAffinity is ignored for headless services"}, serviceWarnings(svc, nil)); diff != "" {
		t.Errorf("headless service (-want +got):\n%s", diff)
	}
}
