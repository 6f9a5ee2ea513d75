package resource

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// change is a mutation of a kind's example with the errors that it must give,
// as "Reason field.path", sorted. None means that it is allowed.
type change[T runtime.Object] struct {
	name string
	make func(obj T)
	want []string
}

func errorTexts(errs field.ErrorList) []string {
	var out []string
	for _, e := range errs {
		out = append(out, strings.TrimPrefix(string(e.Type), "FieldValue")+" "+e.Field)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// testCreate applies each change to a fresh example before Default and
// Prepare, and compares what Validate and ValidateCreate say.
func testCreate[T runtime.Object](t *testing.T, r *Resource, changes []change[T]) {
	for _, c := range changes {
		t.Run("create "+c.name, func(t *testing.T) {
			obj := example(t, r)
			c.make(obj.(T))
			create(r, obj)
			var errs field.ErrorList
			for _, check := range []func(runtime.Object) field.ErrorList{r.Validate, r.ValidateCreate} {
				if check != nil {
					errs = append(errs, check(obj)...)
				}
			}
			if diff := cmp.Diff(c.want, errorTexts(errs)); diff != "" {
				t.Errorf("errors (-want +got):\n%s\n%v", diff, errs)
			}
		})
	}
}

// testUpdate applies each change to a stored example (made by setup, which may
// be nil) and compares what Prepare, Validate and ValidateUpdate leave of it.
func testUpdate[T runtime.Object](t *testing.T, r *Resource, setup func(obj T), changes []change[T]) {
	for _, c := range changes {
		t.Run("update "+c.name, func(t *testing.T) {
			old := example(t, r)
			if setup != nil {
				setup(old.(T))
			}
			create(r, old)
			obj := old.DeepCopyObject()
			c.make(obj.(T))
			if r.Default != nil {
				r.Default(obj)
			}
			if r.Prepare != nil {
				r.Prepare(obj, old)
			}
			var errs field.ErrorList
			if r.Validate != nil {
				errs = r.Validate(obj)
			}
			if r.ValidateUpdate != nil {
				errs = append(errs, r.ValidateUpdate(obj, old)...)
			}
			if diff := cmp.Diff(c.want, errorTexts(errs)); diff != "" {
				t.Errorf("errors (-want +got):\n%s\n%v", diff, errs)
			}
		})
	}
}

// testStatus is testUpdate for /status.
func testStatus[T runtime.Object](t *testing.T, r *Resource, setup func(obj T), changes []change[T]) {
	for _, c := range changes {
		t.Run("status "+c.name, func(t *testing.T) {
			old := example(t, r)
			create(r, old)
			if setup != nil {
				setup(old.(T))
			}
			obj := old.DeepCopyObject()
			c.make(obj.(T))
			if r.Default != nil {
				r.Default(obj)
			}
			if r.PrepareStatus != nil {
				r.PrepareStatus(obj, old)
			}
			if diff := cmp.Diff(c.want, errorTexts(r.ValidateStatus(obj, old))); diff != "" {
				t.Errorf("errors (-want +got):\n%s\n%v", diff, r.ValidateStatus(obj, old))
			}
		})
	}
}

// errs is a list of expected errors.
func errs(want ...string) []string {
	slices.Sort(want)
	return want
}
