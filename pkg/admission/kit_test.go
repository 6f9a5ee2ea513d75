package admission

import (
	"context"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/auth"
	"coracle/pkg/resource"
)

// stored is Objects over a fixed set, by resource.
type stored map[schema.GroupVersionResource][]runtime.Object

func (s stored) Get(_ context.Context, gvr schema.GroupVersionResource, namespace, name string) (runtime.Object, error) {
	for _, obj := range s[gvr] {
		if acc, err := meta.Accessor(obj); err == nil && acc.GetNamespace() == namespace && acc.GetName() == name {
			return obj, nil
		}
	}
	return nil, apierrors.NewNotFound(gvr.GroupResource(), name)
}

func (s stored) List(_ context.Context, gvr schema.GroupVersionResource, namespace string) ([]runtime.Object, error) {
	var out []runtime.Object
	for _, obj := range s[gvr] {
		if acc, err := meta.Accessor(obj); err == nil && (namespace == "" || acc.GetNamespace() == namespace) {
			out = append(out, obj)
		}
	}
	return out, nil
}

var table = resource.Builtin()

// request is what user "user" does to an object of the table.
func request(t *testing.T, op Operation, gvr schema.GroupVersionResource, subresource string, obj, old runtime.Object) *Attributes {
	t.Helper()
	res, ok := table.ByGVR(gvr)
	if !ok {
		t.Fatalf("the table lacks %s", gvr)
	}
	a := &Attributes{
		Operation: op, Resource: res, Subresource: subresource, Object: obj, Stored: Known(old),
		User: &auth.User{Name: "user"}, Warn: func(string) {},
	}
	for _, o := range []runtime.Object{old, obj} {
		if o == nil {
			continue
		}
		if acc, err := meta.Accessor(o); err == nil {
			a.Namespace, a.Name = acc.GetNamespace(), acc.GetName()
		}
	}
	return a
}

// pass runs p's part in both phases.
func pass(t *testing.T, p Plugin, a *Attributes) error {
	t.Helper()
	chain, err := NewChain(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := chain.Admit(t.Context(), a); err != nil {
		return err
	}
	return chain.Validate(t.Context(), a)
}

// refused checks that err is a 403 that says part, or nil when part is empty.
func refused(t *testing.T, err error, part string) {
	t.Helper()
	switch {
	case part == "" && err != nil:
		t.Errorf("refused: %v", err)
	case part != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), part)):
		t.Errorf("got %v, want Forbidden with %q", err, part)
	}
}

// allowing authorizes the listed "verb resource/subresource name" only.
func allowing(rules ...string) auth.Authorizer {
	return auth.AuthorizerFunc(func(_ context.Context, a auth.Attributes) (auth.Decision, string, error) {
		asked := a.Verb + " " + a.Resource
		if a.Subresource != "" {
			asked += "/" + a.Subresource
		}
		for _, r := range rules {
			if r == asked+" "+a.Name {
				return auth.Allow, "", nil
			}
		}
		return auth.NoOpinion, "", nil
	})
}
