package registry_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/admission"
	"coracle/pkg/registry"
)

// labeller puts a label on every object, as a webhook might.
type labeller struct{ spoil bool }

func (labeller) Name() string { return "labeller" }

func (l labeller) Admit(_ context.Context, a *admission.Attributes) error {
	acc, err := meta.Accessor(a.Object)
	if err != nil {
		return err
	}
	acc.SetLabels(map[string]string{"admitted": string(a.Operation)})
	if l.spoil {
		acc.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "m", Operation: "Nothing", APIVersion: "v1", FieldsType: "FieldsV1"}})
	}
	return nil
}

// TestAdmittedFields: who writes owns what the write says, not what admission
// makes of it; and admission cannot leave a record that nobody can read.
func TestAdmittedFields(t *testing.T) {
	for name, start := range map[string]func(testing.TB, ...admission.Plugin) *kit{"typed": newPodKit, "custom": newCustomKit} {
		for _, spoil := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				k := start(t, labeller{spoil})
				k.create(t, "a")
				var warned []string
				req := registry.Request{Resource: k.res, Namespace: "default", Name: "a"}
				o, _, err := k.Patch(t.Context(), k.decoder, req, []byte(`{"metadata":{"annotations":{"by":"patch"}}}`), registry.PatchOptions{
					Type: types.MergePatchType, WriteOptions: registry.WriteOptions{Manager: "other", Warn: func(text string) { warned = append(warned, text) }},
				})
				if err != nil {
					t.Fatal(err)
				}
				obj, err := registry.Decode(k.res, o.Value)
				if err != nil {
					t.Fatal(err)
				}
				acc, err := meta.Accessor(obj)
				if err != nil {
					t.Fatal(err)
				}
				if acc.GetLabels()["admitted"] != "UPDATE" {
					t.Errorf("the labels are %v", acc.GetLabels())
				}
				var who []string
				for _, e := range acc.GetManagedFields() {
					who = append(who, e.Manager)
					if strings.Contains(string(e.FieldsV1.GetRawBytes()), "f:admitted") || !json.Valid(e.FieldsV1.GetRawBytes()) {
						t.Errorf("%s owns %s", e.Manager, e.FieldsV1.GetRawBytes())
					}
				}
				if slices.Sort(who); !slices.Equal(who, []string{"bench", "other"}) {
					t.Errorf("the managers are %v", who)
				}
				if (len(warned) > 0) != spoil {
					t.Errorf("warned of %v", warned)
				}
			})
		}
	}
}

// accounts has the one service account that there is.
type accounts struct{}

func (accounts) Get(context.Context, schema.GroupVersionResource, string, string) (runtime.Object, error) {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "default"},
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "registry"}}}, nil
}

func (accounts) List(context.Context, schema.GroupVersionResource, string) ([]runtime.Object, error) {
	return nil, nil
}

// policy puts a label on objects that have none of that name.
type policy struct{}

func (policy) Name() string { return "policy" }

func (policy) Admit(_ context.Context, a *admission.Attributes) error {
	acc, err := meta.Accessor(a.Object)
	if err != nil {
		return err
	}
	labels := map[string]string{"team": "none"}
	for name, value := range acc.GetLabels() {
		labels[name] = value
	}
	acc.SetLabels(labels)
	return nil
}

// owners returns who owns a path, written as its steps in managedFields.
func owners(t *testing.T, acc metav1.Object, steps ...string) (found []string) {
	t.Helper()
	for _, e := range acc.GetManagedFields() {
		var set map[string]any
		if err := json.Unmarshal(e.FieldsV1.GetRawBytes(), &set); err != nil {
			t.Fatal(err)
		}
		ok := true
		for _, s := range steps {
			var next map[string]any
			if next, ok = set[s].(map[string]any); !ok {
				break
			}
			set = next
		}
		if ok {
			found = append(found, e.Manager)
		}
	}
	return found
}

// TestOwnersOfAdmittedPod: the token's volume, the pull secret and a policy's label
// belong to nobody, until somebody writes them.
func TestOwnersOfAdmittedPod(t *testing.T) {
	k := newPodKit(t, admission.ServiceAccount{Objects: accounts{}, Suffix: func() (string, error) { return "x7k2p", nil }}, policy{})
	k.create(t, "a")
	req := registry.Request{Resource: k.res, Namespace: "default", Name: "a"}
	patch := func(manager, body string, as types.PatchType, force bool) (*corev1.Pod, error) {
		o, _, err := k.Patch(t.Context(), k.decoder, req, []byte(body), registry.PatchOptions{
			Type: as, Force: force, WriteOptions: registry.WriteOptions{Manager: manager}})
		if err != nil {
			return nil, err
		}
		obj, err := registry.Decode(k.res, o.Value)
		return obj.(*corev1.Pod), err
	}
	check := func(pod *corev1.Pod, err error, team ...string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if n := len(pod.Spec.Volumes); n != 3 || pod.Spec.Volumes[n-1].Name != "kube-api-access-x7k2p" || pod.Spec.ServiceAccountName != "default" {
			t.Fatalf("the pod was not given its account: %v", pod.Spec.Volumes)
		}
		for _, steps := range [][]string{
			{"f:spec", "f:volumes", `k:{"name":"kube-api-access-x7k2p"}`}, {"f:spec", "f:imagePullSecrets"},
			{"f:spec", "f:containers", `k:{"name":"server"}`, "f:volumeMounts", `k:{"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}`},
			{"f:spec", "f:tolerations", "k:{}"},
		} {
			if got := owners(t, pod, steps...); got != nil {
				t.Errorf("%v own %v", got, steps)
			}
		}
		if got := owners(t, pod, "f:spec", "f:volumes", `k:{"name":"scratch"}`); !slices.Equal(got, []string{"bench"}) {
			t.Errorf("%v own what the client sent", got)
		}
		if got := owners(t, pod, "f:metadata", "f:labels", "f:team"); !slices.Equal(got, team) {
			t.Errorf("%v own the label, want %v", got, team)
		}
	}
	pod, err := patch("second", `{"metadata":{"annotations":{"by":"second"}}}`, types.MergePatchType, false)
	check(pod, err)
	const applied = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"team":"blue"}}}`
	pod, err = patch("applier", applied, types.ApplyPatchType, false) // nobody to be in conflict with
	check(pod, err, "applier")
	pod, err = patch("other", `{"metadata":{"labels":{"team":"red"}}}`, types.MergePatchType, false)
	check(pod, err, "other")
	if _, err := patch("applier", applied, types.ApplyPatchType, false); !apierrors.IsConflict(err) {
		t.Errorf("applied over another's label: %v", err)
	}
	pod, err = patch("applier", applied, types.ApplyPatchType, true)
	check(pod, err, "applier")
}
