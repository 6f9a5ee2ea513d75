package registry

import (
	"reflect"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/registry/plainjson"
)

// decodePlain decodes a JSON body that has nothing special and says that it is
// what is wanted, as nearly all do; it takes less than half of the library's
// time. Nil leaves the body to the library, which also says what is wrong with
// it.
func (d *Decoder) decodePlain(data []byte, want schema.GroupVersionKind) runtime.Object {
	obj, err := d.scheme.New(want)
	if err != nil {
		return nil
	}
	plan := d.planOf(reflect.TypeOf(obj).Elem())
	if plan == nil || plan.Decode(data, obj) != nil || obj.GetObjectKind().GroupVersionKind() != want {
		return nil
	}
	return obj
}

// planOf returns the plan of a type, made when it is first asked for; nil when
// the type has none.
func (d *Decoder) planOf(t reflect.Type) *plainjson.Plan {
	if p, ok := d.plans.Load(t); ok {
		return p.(*plainjson.Plan)
	}
	var plan *plainjson.Plan
	if t.Kind() == reflect.Struct {
		if p, err := plainjson.Compile(t); err == nil {
			plan = p
		}
	}
	d.plans.Store(t, plan)
	return plan
}
