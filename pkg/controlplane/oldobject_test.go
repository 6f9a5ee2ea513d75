package controlplane

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"coracle/pkg/admission"
	"coracle/pkg/auth"
	"coracle/pkg/resource"
	"coracle/pkg/storage/memory"
)

// TestOldObjectIsKept: no plugin changes the object that is stored, which the
// next one and the watch cache see as well (CVE-2021-25735).
func TestOldObjectIsKept(t *testing.T) {
	backend := memory.New(memory.Config{})
	defer func() {
		if err := backend.Close(); err != nil {
			t.Error(err)
		}
	}()
	cp, err := New(Config{Backend: backend, SoleWriter: true, Hardened: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- cp.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	if err := cp.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	plugins, err := cp.plugins()
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	for _, res := range cp.registry.Table().All() {
		if !res.Stored() {
			continue
		}
		subresources := []string{"", "status"}
		for _, s := range res.Subresources {
			subresources = append(subresources, s.Name)
		}
		example := exampleOf(t, res)
		for _, p := range plugins {
			for _, sub := range subresources {
				for _, op := range []admission.Operation{admission.Update, admission.Delete} {
					calls += tryPlugin(t, ctx, p.Plugin, example, res, sub, op)
				}
			}
		}
	}
	if calls < 1000 {
		t.Errorf("only %d calls of plugins", calls)
	}
}

// tryPlugin shows a plugin a request on an example of a kind, and wants that
// the old object is the same afterwards, whatever the plugin says.
func tryPlugin(t *testing.T, ctx context.Context, p admission.Plugin, example runtime.Object, res *resource.Resource, sub string, op admission.Operation) (calls int) {
	t.Helper()
	old := example.DeepCopyObject()
	acc, err := meta.Accessor(old)
	if err != nil {
		t.Fatal(err)
	}
	a := &admission.Attributes{Operation: op, Resource: res, Subresource: sub, Namespace: acc.GetNamespace(), Name: acc.GetName(), Stored: admission.Known(old),
		User: &auth.User{Name: "user", Groups: []string{auth.GroupMasters}}, Warn: func(string) {}, Annotate: func(string, string) {}, Options: &metav1.UpdateOptions{}}
	if op == admission.Update {
		a.Object = example.DeepCopyObject()
		if acc, err = meta.Accessor(a.Object); err != nil {
			t.Fatal(err)
		}
		acc.SetLabels(map[string]string{"changed": "yes"})
	} else {
		a.Options = &metav1.DeleteOptions{}
	}
	before := text(t, old)
	// What a plugin thinks of the request is not asked here.
	if m, ok := p.(admission.Mutator); ok {
		_ = m.Admit(ctx, a)
		calls++
	}
	if v, ok := p.(admission.Validator); ok {
		_ = v.Validate(ctx, a)
		calls++
	}
	if text(t, old) != before {
		t.Errorf("%s changed the old object of a %s of %s/%s", p.Name(), op, res.GroupResource(), sub)
	}
	return calls
}

func text(t *testing.T, obj runtime.Object) string {
	t.Helper()
	data, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// exampleOf is the table's own example of a kind.
func exampleOf(t *testing.T, res *resource.Resource) runtime.Object {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "resource", "testdata", "kinds", res.GroupResource().String()+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	obj := res.New()
	if err := yaml.Unmarshal(data, obj); err != nil {
		t.Fatal(err)
	}
	return obj
}
