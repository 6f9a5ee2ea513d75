package controllers_test

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestStorageInUseStays: a claim that a pod has, a volume that is bound and a
// class that a claim has go when those are gone, and not before.
func TestStorageInUseStays(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		ctx, claims, volumes := t.Context(), c.Client.CoreV1().PersistentVolumeClaims("default"), c.Client.CoreV1().PersistentVolumes()
		classes, pods := c.Client.StorageV1().VolumeAttributesClasses(), c.Client.CoreV1().Pods("default")
		must := func(_ any, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(classes.Create(ctx, &storagev1.VolumeAttributesClass{ObjectMeta: metav1.ObjectMeta{Name: "fast"}, DriverName: "d.example.com",
			Parameters: map[string]string{"iops": "1"}}, metav1.CreateOptions{}))
		size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
		modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
		volume, err := volumes.Create(ctx, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: corev1.PersistentVolumeSpec{
			Capacity: size, AccessModes: modes, StorageClassName: "none", VolumeAttributesClassName: new("fast"),
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "d.example.com", VolumeHandle: "x"}}}}, metav1.CreateOptions{})
		must(volume, err)
		if !slices.Contains(volume.Finalizers, "kubernetes.io/pv-protection") {
			t.Fatalf("the volume's finalizers are %v", volume.Finalizers)
		}
		must(claims.Create(ctx, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: modes, StorageClassName: new("none"), VolumeAttributesClassName: new("fast"),
			Resources: corev1.VolumeResourceRequirements{Requests: size}}}, metav1.CreateOptions{}))
		c.wantBound("data", "v")
		must(pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{NodeName: "node-1",
			Containers: []corev1.Container{{Name: "c", Image: "i"}},
			Volumes: []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}}}, metav1.CreateOptions{}))
		for _, err := range []error{
			claims.Delete(ctx, "data", metav1.DeleteOptions{}), volumes.Delete(ctx, "v", metav1.DeleteOptions{}), classes.Delete(ctx, "fast", metav1.DeleteOptions{}),
		} {
			must(nil, err)
		}
		there := func(err error) error {
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("it is still there (%v)", err)
		}
		c.settle()
		for what, get := range map[string]func() error{
			"claim":  func() error { _, err := claims.Get(ctx, "data", metav1.GetOptions{}); return err },
			"volume": func() error { _, err := volumes.Get(ctx, "v", metav1.GetOptions{}); return err },
			"class":  func() error { _, err := classes.Get(ctx, "fast", metav1.GetOptions{}); return err },
		} {
			if err := get(); err != nil {
				t.Errorf("the %s that is in use: %v", what, err)
			}
		}
		must(nil, pods.Delete(ctx, "p", metav1.DeleteOptions{}))
		c.eventually("the claim goes", func() error { _, err := claims.Get(ctx, "data", metav1.GetOptions{}); return there(err) })
		c.eventually("the volume goes", func() error { _, err := volumes.Get(ctx, "v", metav1.GetOptions{}); return there(err) })
		c.eventually("the class goes", func() error { _, err := classes.Get(ctx, "fast", metav1.GetOptions{}); return there(err) })
	})
}
