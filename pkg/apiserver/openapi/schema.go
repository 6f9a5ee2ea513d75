package openapi

import (
	"encoding/json"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// Schema returns the schema of a kind, with what it refers to put in the place
// of the references. Where a type contains itself, it is an object of which
// nothing is said. The result is the caller's. It is nil for a kind that is
// not described.
func (h *Handler) Schema(gvk schema.GroupVersionKind) (*spec.Schema, error) {
	h.mu.Lock()
	h.follow()
	c, err := h.load()
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	name, ok := c.byKind[gvk]
	if !ok {
		return nil, nil
	}
	r := resolver{catalog: c, parsed: map[string]*spec.Schema{}, within: map[string]bool{}}
	return r.named(name)
}

// resolver puts definitions in the place of references.
type resolver struct {
	catalog *catalog
	parsed  map[string]*spec.Schema
	within  map[string]bool // definitions that are being put in place
}

func (r *resolver) named(name string) (*spec.Schema, error) {
	if r.within[name] {
		return &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}, nil
	}
	s, err := r.parse(name)
	if err != nil {
		return nil, err
	}
	r.within[name] = true
	defer delete(r.within, name)
	return r.resolve(s)
}

func (r *resolver) parse(name string) (*spec.Schema, error) {
	if s := r.parsed[name]; s != nil {
		return s, nil
	}
	text, err := r.catalog.text(name, true)
	if err != nil {
		return nil, err
	}
	s := &spec.Schema{}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("read the description of %s: %w", name, err)
	}
	r.parsed[name] = s
	return s, nil
}

// resolve returns s without references. It does not change s.
func (r *resolver) resolve(s *spec.Schema) (*spec.Schema, error) {
	if name, ok := referred(s); ok {
		return r.named(name)
	}
	out := *s
	var err error
	if len(s.Properties) > 0 {
		out.Properties = make(map[string]spec.Schema, len(s.Properties))
		for name, p := range s.Properties {
			resolved, err := r.resolve(&p)
			if err != nil {
				return nil, err
			}
			out.Properties[name] = *resolved
		}
	}
	if a := s.AdditionalProperties; a != nil && a.Schema != nil {
		more := *a
		if more.Schema, err = r.resolve(a.Schema); err != nil {
			return nil, err
		}
		out.AdditionalProperties = &more
	}
	if i := s.Items; i != nil && i.Schema != nil {
		items := *i
		if items.Schema, err = r.resolve(i.Schema); err != nil {
			return nil, err
		}
		out.Items = &items
	}
	return &out, nil
}

// referred is the definition that a schema stands for, be it within an allOf
// that leaves room for a description.
func referred(s *spec.Schema) (name string, ok bool) {
	if s.Ref.GetURL() != nil {
		return strings.CutPrefix(s.Ref.String(), v3Refs)
	}
	for i := range s.AllOf {
		if name, ok := referred(&s.AllOf[i]); ok {
			return name, true
		}
	}
	return "", false
}
