package controllers_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestEphemeralVolumeHasAClaimOfItsPod: it comes and goes with the pod, and a
// stranger's claim of that name is left alone.
func TestEphemeralVolumeHasAClaimOfItsPod(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		class := "none"
		pod := func(name string) *corev1.Pod {
			p, err := c.Client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
				SchedulerName: "nobody", Containers: []corev1.Container{{Name: "c", Image: "i"}},
				Volumes: []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
					VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{
						ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"kind": "scratch"}},
						Spec: corev1.PersistentVolumeClaimSpec{AccessModes: once, StorageClassName: &class,
							Resources: corev1.VolumeResourceRequirements{Requests: storage("1Gi")}}}}}}},
			}}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		owner := pod("a")
		claims := c.Client.CoreV1().PersistentVolumeClaims("default")
		c.eventually("the claim is there", func() error {
			p, err := claims.Get(t.Context(), "a-scratch", metav1.GetOptions{})
			if err == nil && (!metav1.IsControlledBy(p, owner) || p.Labels["kind"] != "scratch") {
				err = fmt.Errorf("it has owners %v and labels %v", p.OwnerReferences, p.Labels)
			}
			return err
		})
		c.makeClaim("b-scratch", "1Gi", class)
		pod("b")
		c.wantEvent("default", "b", "FailedBinding", "PVC default/b-scratch was not created for pod default/b (pod is not owner)")
		for _, name := range []string{"a", "b"} {
			if err := c.Client.CoreV1().Pods("default").Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
				t.Fatal(err)
			}
		}
		c.eventually("the claim goes with its pod", func() error {
			_, err := claims.Get(t.Context(), "a-scratch", metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("it is still there (%v)", err)
		})
		c.claim("b-scratch")
	})
}
