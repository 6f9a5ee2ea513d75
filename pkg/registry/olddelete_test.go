package registry_test

import (
	"context"
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/admission"
	"coracle/pkg/registry"
)

// oldSpy looks at the old objects of deletes, in both phases.
type oldSpy struct{ seen []*corev1.Pod }

func (*oldSpy) Name() string { return "spy" }

func (s *oldSpy) look(a *admission.Attributes) error {
	if a.Operation == admission.Delete {
		pod, _ := a.Old().(*corev1.Pod)
		s.seen = append(s.seen, pod)
	}
	return nil
}

func (s *oldSpy) Admit(_ context.Context, a *admission.Attributes) error    { return s.look(a) }
func (s *oldSpy) Validate(_ context.Context, a *admission.Attributes) error { return s.look(a) }

// TestDeleteShowsTheOldObject: admission sees what is deleted, and a pod that is on
// a node or has a finalizer stays, marked, whoever has looked.
func TestDeleteShowsTheOldObject(t *testing.T) {
	for name, c := range map[string]struct {
		patch string
		gone  bool
	}{
		"waiting":      {`{"metadata":{"labels":{"a":"b"}}}`, true},
		"held":         {`{"metadata":{"finalizers":["example.com/a"]}}`, false},
		"bound":        {`{"spec":{"nodeName":"n"}}`, false},
		"finished":     {`{"spec":{"nodeName":"n"},"status":{"phase":"Succeeded"}}`, true},
		"at no notice": {`{"spec":{"nodeName":"n","terminationGracePeriodSeconds":0}}`, true},
	} {
		for _, plugins := range [][]admission.Plugin{nil, {&oldSpy{}}} {
			t.Run(name, func(t *testing.T) {
				k := newPodKit(t, plugins...)
				k.create(t, "a")
				req := registry.Request{Resource: k.res, Namespace: "default", Name: "a"}
				change := registry.UpdateOptions{Verbatim: true, WriteOptions: registry.WriteOptions{Manager: "m", Internal: true}}
				if _, _, err := k.Update(t.Context(), req, k.merged(c.patch), change); err != nil {
					t.Fatal(err)
				}
				o, gone, err := k.Delete(t.Context(), req, registry.DeleteOptions{})
				if err != nil || gone != c.gone || gone == o.Deleting {
					t.Fatalf("gone is %v, marked is %v, %v", gone, o.Deleting, err)
				}
				if len(plugins) == 0 {
					return
				}
				seen := plugins[0].(*oldSpy).seen
				if len(seen) < 2 || seen[0] == nil || seen[0] != seen[1] || seen[0].Name != "a" || seen[0].DeletionTimestamp != nil {
					t.Errorf("admission saw %v", seen)
				}
			})
		}
	}
}

// merged is a change that merges a patch.
func (k *kit) merged(patch string) registry.Change {
	return func(current runtime.Object) (runtime.Object, error) {
		return current, json.Unmarshal([]byte(patch), current)
	}
}
