package admission

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestMountableSecrets: pods of an account that limits them refer to no other
// secret, in no kind of container or volume (CVE-2023-2728, CVE-2024-3177).
func TestMountableSecrets(t *testing.T) {
	account := func(name string, annotations map[string]string) *corev1.ServiceAccount {
		return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Annotations: annotations},
			Secrets: []corev1.ObjectReference{{Name: "own"}}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}}}
	}
	objects := stored{accountGVR: {account("limited", map[string]string{mountableAnnotation: "true"}), account("free", nil)}}
	plugin := ServiceAccount{Objects: objects}
	ref := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	env := func(name string) []corev1.EnvVar {
		return []corev1.EnvVar{{Name: "E", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref(name)}}}}
	}
	from := func(name string) []corev1.EnvFromSource {
		return []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref(name)}}}
	}
	volume := func(s corev1.VolumeSource) []corev1.Volume { return []corev1.Volume{{Name: "v", VolumeSource: s}} }
	for _, c := range []struct {
		name string
		set  func(p *corev1.Pod, secret string)
	}{
		{"env", func(p *corev1.Pod, s string) { p.Spec.Containers = []corev1.Container{{Env: env(s)}} }},
		{"envFrom", func(p *corev1.Pod, s string) { p.Spec.Containers = []corev1.Container{{EnvFrom: from(s)}} }},
		{"init env", func(p *corev1.Pod, s string) { p.Spec.InitContainers = []corev1.Container{{Env: env(s)}} }},
		{"init envFrom", func(p *corev1.Pod, s string) { p.Spec.InitContainers = []corev1.Container{{EnvFrom: from(s)}} }},
		{"ephemeral env", func(p *corev1.Pod, s string) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Env: env(s)}}}
		}},
		{"ephemeral envFrom", func(p *corev1.Pod, s string) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{EnvFrom: from(s)}}}
		}},
		{"volume", func(p *corev1.Pod, s string) {
			p.Spec.Volumes = volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: s}})
		}},
		{"projected volume", func(p *corev1.Pod, s string) {
			p.Spec.Volumes = volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{LocalObjectReference: ref(s)}}}}})
		}},
		{"driver", func(p *corev1.Pod, s string) {
			p.Spec.Volumes = volume(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{NodePublishSecretRef: new(ref(s))}})
		}},
		{"pull", func(p *corev1.Pod, s string) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{ref(s)} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := func(account, secret string) *corev1.Pod {
				p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: corev1.PodSpec{ServiceAccountName: account}}
				c.set(p, secret)
				return p
			}
			own := "own"
			if c.name == "pull" {
				own = "pull"
			}
			subresource, op := "", Create
			if len(pod("free", "x").Spec.EphemeralContainers) > 0 {
				subresource, op = "ephemeralcontainers", Update
			}
			refused(t, plugin.Validate(t.Context(), request(t, op, podGVR, subresource, pod("limited", own), nil)), "")
			refused(t, plugin.Validate(t.Context(), request(t, op, podGVR, subresource, pod("free", "another"), nil)), "")
			refused(t, plugin.Validate(t.Context(), request(t, op, podGVR, subresource, pod("limited", "another"), nil)),
				"is not allowed because service account limited does not reference that")
			mirror := pod("", "another")
			mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
			refused(t, plugin.Validate(t.Context(), request(t, Create, podGVR, "", mirror, nil)), "a mirror pod may not reference secrets")
		})
	}
	mirror := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "x"}}}
	refused(t, plugin.Validate(t.Context(), request(t, Create, podGVR, "", mirror, nil)), "")
	mirror.Spec.Volumes = volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}}}}})
	refused(t, plugin.Validate(t.Context(), request(t, Create, podGVR, "", mirror, nil)), "a mirror pod may not use ServiceAccountToken volume projections")
	mirror.Spec.ServiceAccountName = "free"
	refused(t, plugin.Validate(t.Context(), request(t, Create, podGVR, "", mirror, nil)), "a mirror pod may not reference service accounts")
}
