package registry

import (
	"reflect"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/registry/wirejson"
	"coracle/pkg/resource"
)

// plans are how stored objects become JSON, each made when a kind is first
// asked for. The zero value is ready.
type plans struct {
	kinds   sync.Map // *resource.Resource to *wirejson.Plan, nil where there is none
	partial sync.Once
	meta    *wirejson.Plan
}

// Plan is how stored objects of a resource become JSON; nil when the library
// has to do it, and for what is stored as JSON.
func (r *Registry) Plan(res *resource.Resource) *wirejson.Plan {
	if res.StoredJSON {
		return nil
	}
	p := &r.plans
	if known, ok := p.kinds.Load(res); ok {
		return known.(*wirejson.Plan)
	}
	plan := compiled(res.New())
	p.kinds.Store(res, plan)
	return plan
}

// MetadataPlan is how the metadata of stored objects becomes JSON, as a
// PartialObjectMetadata.
func (r *Registry) MetadataPlan() *wirejson.Plan {
	p := &r.plans
	p.partial.Do(func() { p.meta = compiled(&metav1.PartialObjectMetadata{}) })
	return p.meta
}

// compiled makes the plan of an object's type. A type that has none is encoded
// by the library, which takes longer and gives the same.
func compiled(obj any) *wirejson.Plan {
	t := reflect.TypeOf(obj)
	if t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct {
		return nil
	}
	plan, err := wirejson.Compile(t.Elem())
	if err != nil {
		return nil
	}
	return plan
}
