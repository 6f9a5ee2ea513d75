package admission

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestHardenedContainers: every list of containers is filled in, and nothing
// that a pod says itself is changed.
func TestHardenedContainers(t *testing.T) {
	confined := &corev1.SecurityContext{AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"NET_RAW"}}}
	caps := func(add, drop corev1.Capability) *corev1.Capabilities {
		c := &corev1.Capabilities{}
		if add != "" {
			c.Add = []corev1.Capability{add}
		}
		if drop != "" {
			c.Drop = []corev1.Capability{drop}
		}
		return c
	}
	for _, c := range []struct {
		name     string
		in, want *corev1.SecurityContext
	}{
		{"says nothing", nil, confined},
		{"privileged", &corev1.SecurityContext{Privileged: new(true)}, &corev1.SecurityContext{Privileged: new(true)}},
		{"gains rights", &corev1.SecurityContext{AllowPrivilegeEscalation: new(true)},
			&corev1.SecurityContext{AllowPrivilegeEscalation: new(true), Capabilities: caps("", "NET_RAW")}},
		{"administrates", &corev1.SecurityContext{Capabilities: caps("CAP_SYS_ADMIN", "")}, &corev1.SecurityContext{Capabilities: caps("CAP_SYS_ADMIN", "NET_RAW")}},
		{"raw packets", &corev1.SecurityContext{Capabilities: caps("NET_RAW", "")},
			&corev1.SecurityContext{AllowPrivilegeEscalation: new(false), Capabilities: caps("NET_RAW", "")}},
		{"drops all", &corev1.SecurityContext{Capabilities: caps("", "ALL")}, &corev1.SecurityContext{AllowPrivilegeEscalation: new(false), Capabilities: caps("", "ALL")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: corev1.PodSpec{
				InitContainers: []corev1.Container{{Name: "i", SecurityContext: c.in.DeepCopy()}}, Containers: []corev1.Container{{Name: "c", SecurityContext: c.in.DeepCopy()}},
			}}
			plugin := HardenedContainers{Exempt: []string{"kube-system"}}
			if err := plugin.Admit(t.Context(), request(t, Create, podGVR, "", pod, nil)); err != nil {
				t.Fatal(err)
			}
			for _, got := range []*corev1.SecurityContext{pod.Spec.InitContainers[0].SecurityContext, pod.Spec.Containers[0].SecurityContext} {
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Error(diff)
				}
			}
			if p := pod.Spec.SecurityContext.SeccompProfile; p == nil || p.Type != corev1.SeccompProfileTypeRuntimeDefault {
				t.Errorf("seccomp profile %+v", p)
			}
			before := pod.DeepCopy()
			pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e", SecurityContext: c.in.DeepCopy()}}}
			if err := plugin.Admit(t.Context(), request(t, Update, podGVR, "ephemeralcontainers", pod, before)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, pod.Spec.EphemeralContainers[0].SecurityContext); diff != "" {
				t.Error(diff)
			}
		})
	}
	own := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	if err := (HardenedContainers{Exempt: []string{"kube-system"}}).Admit(t.Context(), request(t, Create, podGVR, "", own, nil)); err != nil || own.Spec.SecurityContext != nil {
		t.Errorf("a pod of the cluster's own: %v %+v", err, own.Spec)
	}
}
