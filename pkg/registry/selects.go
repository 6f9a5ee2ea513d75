package registry

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"coracle/pkg/resource"
	"coracle/pkg/storage/cache"
)

// Selects compiles the selectors of opts; nil selects everything.
// A field that the resource does not offer is a BadRequest.
func Selects(res *resource.Resource, opts ListOptions) (cache.Predicate, error) {
	byLabel := opts.Labels != nil && !opts.Labels.Empty()
	byField := opts.Fields != nil && !opts.Fields.Empty()
	if byField {
		for _, req := range opts.Fields.Requirements() {
			if req.Field != "metadata.name" && (req.Field != "metadata.namespace" || !res.Namespaced) && !slices.Contains(res.FieldNames, req.Field) {
				return nil, apierrors.NewBadRequest(fmt.Sprintf("field label not supported: %s", req.Field))
			}
		}
	}
	if !byLabel && !byField {
		return nil, nil
	}
	selects := func(o *cache.Object, l, f map[string]string) bool {
		return (!byLabel || opts.Labels.Matches(labels.Set(l))) && (!byField || opts.Fields.Matches(objectFields{o, f}))
	}
	if !convertsToSelect(res) {
		return func(o *cache.Object) bool { return selects(o, o.Labels, o.Fields) }, nil
	}
	return func(o *cache.Object) bool {
		if storedAs(res, o.Value) {
			return selects(o, o.Labels, o.Fields)
		}
		obj, err := Shared(res, o)
		if err != nil {
			return true // whoever encodes it learns of the error
		}
		return selects(o, obj.(*unstructured.Unstructured).GetLabels(), res.Fields(obj))
	}, nil
}

// convertsToSelect says that objects which are stored in another version of res
// have to be converted before a selector can look at them: a webhook may move
// fields and change labels.
func convertsToSelect(res *resource.Resource) bool {
	return res.Custom != nil && (res.Custom.For != nil || res.Custom.Expect != nil)
}

// page is Cache.List, but that objects which are converted to be selected are
// converted many at a time.
func (r *Registry) page(ctx context.Context, res *resource.Resource, prefix string, q cache.ListOptions) (*cache.List, error) {
	if q.Match == nil || !convertsToSelect(res) {
		return r.cfg.Cache.List(ctx, prefix, q)
	}
	match, limit := q.Match, q.Limit
	q.Match, q.Limit = nil, 0
	page, err := r.cfg.Cache.List(ctx, prefix, q)
	if err != nil {
		return nil, err
	}
	Expect(res, page.Items)
	var selected []*cache.Object
	for _, o := range page.Items {
		if !match(o) {
			continue
		}
		if limit > 0 && len(selected) == limit {
			page.Next = selected[limit-1].Key
			break
		}
		selected = append(selected, o)
	}
	page.Items, page.Remaining = selected, -1
	return page, nil
}

// objectFields shows an object's selectable fields to a selector.
type objectFields struct {
	o      *cache.Object
	fields map[string]string // beside metadata's
}

func (f objectFields) Has(name string) bool {
	if name == "metadata.name" || name == "metadata.namespace" {
		return true
	}
	_, ok := f.fields[name]
	return ok
}

func (f objectFields) Get(name string) string {
	switch name {
	case "metadata.name":
		return f.o.Name
	case "metadata.namespace":
		return f.o.Namespace
	}
	return f.fields[name]
}

// hint finds a field that every selected object has at one value, so that the
// cache need not wake the watch for others.
func hint(res *resource.Resource, sel fields.Selector) (field, value string) {
	if sel == nil {
		return "", ""
	}
	for _, name := range res.FieldNames {
		if value, ok := sel.RequiresExactMatch(name); ok && value != "" {
			return name, value
		}
	}
	return "", ""
}
