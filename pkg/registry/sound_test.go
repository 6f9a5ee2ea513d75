package registry_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/registry"
)

// TestSoundPods: a pod's spec is not validated again while it stays, but no
// other way to write one hides what is wrong with it.
func TestSoundPods(t *testing.T) {
	k := newPodKit(t)
	req := registry.Request{Resource: k.res, Namespace: "default", Name: "a"}
	n := 0
	patch := func(subresource, body string) error {
		n++
		one := req
		one.Subresource = subresource
		_, _, err := k.Patch(t.Context(), k.decoder, one, []byte(body), registry.PatchOptions{
			Type: types.MergePatchType, WriteOptions: registry.WriteOptions{Manager: "m"}})
		return err
	}
	label := func() error { return patch("", fmt.Sprintf(`{"metadata":{"labels":{"n":"%d"}}}`, n)) }
	refused := func(what string, err error, field string) {
		t.Helper()
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", what, err)
		}
	}
	k.create(t, "a")
	for range 2 {
		if err := label(); err != nil {
			t.Fatal(err)
		}
		refused("a bad annotation", patch("", `{"metadata":{"annotations":{"controller.kubernetes.io/pod-deletion-cost":"x"}}}`), "pod-deletion-cost")
		refused("a bad label", patch("", `{"metadata":{"labels":{"a b":"c"}}}`), "metadata.labels")
		refused("a bad spec", patch("", `{"spec":{"activeDeadlineSeconds":-1}}`), "spec.activeDeadlineSeconds")
		if err := patch("status", fmt.Sprintf(`{"status":{"message":"%d"}}`, n)); err != nil {
			t.Fatal(err)
		}
	}
	spoil := func(obj runtime.Object) (runtime.Object, error) {
		obj.(*corev1.Pod).Spec.RestartPolicy = "Sometimes"
		return obj, nil
	}
	if _, _, err := k.Update(t.Context(), req, spoil, registry.UpdateOptions{Verbatim: true}); err != nil {
		t.Fatal(err)
	}
	refused("a spec that the server itself spoilt", label(), "spec.restartPolicy")
	if err := patch("status", `{"status":{"message":"spoilt"}}`); err != nil {
		t.Fatal(err)
	}
	refused("the same after a write of the status", label(), "spec.restartPolicy")
}
