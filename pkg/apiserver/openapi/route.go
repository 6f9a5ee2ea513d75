package openapi

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// route is a path with its operations.
type route struct {
	path string
	// params are those that all operations have.
	params []parameter
	ops    []operation
}

// operation is a method of a path.
type operation struct {
	method, id, tag, description string
	// action is what kubectl reads: list, post, get, put, ...; "" for paths
	// that serve no objects.
	action             string
	kind               schema.GroupVersionKind
	consumes, produces []string
	// body names the definition of the request body, "" means none.
	body         string
	bodyOptional bool
	// result names the definition of the response body, "" means text.
	result string
	codes  []string
	params []parameter
}

// parameter is a path or query parameter. It is comparable.
type parameter struct {
	name, in, typ, description string
}

func (p parameter) required() bool { return p.in == "path" }

func compareParams(a, b parameter) int {
	if c := strings.Compare(a.name, b.name); c != 0 {
		return c
	}
	return strings.Compare(a.in, b.in)
}

// newRoute makes a route of operations that each list all their parameters.
func newRoute(path string, ops ...operation) route {
	r := route{path: path, ops: ops}
	for _, p := range ops[0].params {
		if !slices.ContainsFunc(ops, func(o operation) bool { return !slices.Contains(o.params, p) }) {
			r.params = append(r.params, p)
		}
	}
	for i := range r.ops {
		own := slices.DeleteFunc(slices.Clone(ops[i].params), func(p parameter) bool { return slices.Contains(r.params, p) })
		slices.SortFunc(own, compareParams)
		r.ops[i].params = own
	}
	slices.SortFunc(r.params, compareParams)
	return r
}

// definitions are the names of all schemas that the route's operations use.
func (r *route) definitions() []string {
	var out []string
	for _, o := range r.ops {
		for _, name := range []string{o.body, o.result} {
			if name != "" {
				out = append(out, name)
			}
		}
	}
	return out
}

const (
	typeJSON     = "application/json"
	typeYAML     = "application/yaml"
	typeProtobuf = "application/vnd.kubernetes.protobuf"
	anyType      = "*/*"
)

func objectTypes() []string { return []string{typeJSON, typeYAML, typeProtobuf} }

// untyped are the types of custom resources, which have no protobuf.
func untyped() []string { return []string{typeJSON, typeYAML} }

// watchTypes are objectTypes and the streams of a watch.
func (s *served) watchTypes() []string {
	if s.Custom != nil {
		return append(untyped(), typeJSON+";stream=watch")
	}
	return append(objectTypes(), typeJSON+";stream=watch", typeProtobuf+";stream=watch")
}

func (s *served) patchTypes() []string {
	if s.Custom != nil {
		return []string{"application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"}
	}
	return []string{
		"application/json-patch+json", "application/merge-patch+json",
		"application/strategic-merge-patch+json", "application/apply-patch+yaml",
	}
}
