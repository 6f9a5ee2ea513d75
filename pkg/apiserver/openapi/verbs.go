package openapi

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/resource"
)

// collection makes the routes of a resource's collections.
func (b *builder) collection(s *served) {
	kind := s.gvk.Kind
	var ops []operation
	if s.HasVerb("list") {
		o := b.op("get", "list", s, "list"+b.id+s.scope+kind, s.within, b.queries.list)
		o.description = "list or watch objects of kind " + kind
		o.result, o.produces = s.many, s.watchTypes()
		ops = append(ops, o)
		if s.Namespaced {
			all := b.op("get", "list", s, "list"+b.id+kind+"ForAllNamespaces", b.queries.list)
			all.description = o.description
			all.result, all.produces = s.many, s.watchTypes()
			b.add(newRoute(b.prefix+"/"+s.Plural, all))
		}
	}
	if s.HasVerb("create") {
		o := b.op("post", "post", s, "create"+b.id+s.scope+kind, s.within, b.queries.create)
		o.description = "create " + article(kind)
		o.body, o.result, o.codes = s.one, s.one, []string{"200", "201", "202"}
		ops = append(ops, o)
	}
	if s.HasVerb("deletecollection") {
		o := b.op("delete", "deletecollection", s, "delete"+b.id+"Collection"+s.scope+kind, s.within, b.queries.removeMany)
		o.description = "delete collection of " + kind
		o.body, o.bodyOptional, o.result = deleteName, true, statusName
		ops = append(ops, o)
	}
	if len(ops) > 0 {
		b.add(newRoute(s.collection, ops...))
	}
}

// object makes the route of a single object.
func (b *builder) object(s *served) {
	kind := s.gvk.Kind
	ops := b.readWrite(s, s.Verbs, s.one, kind, "the specified "+kind)
	if s.HasVerb("delete") {
		o := b.op("delete", "delete", s, "delete"+b.id+s.scope+kind, s.params, b.queries.remove)
		o.description = "delete " + article(kind)
		o.body, o.bodyOptional, o.result, o.codes = deleteName, true, statusName, []string{"200", "202"}
		if s.ReturnDeleted {
			o.result = s.one
		}
		ops = append(ops, o)
	}
	if len(ops) > 0 {
		b.add(newRoute(s.item, ops...))
	}
}

// readWrite makes GET, PUT and PATCH of an object or of a subresource with a
// body of its own. name ends the operation ids.
func (b *builder) readWrite(s *served, verbs []string, body, name, what string) []operation {
	var ops []operation
	for _, verb := range verbs {
		switch verb {
		case "get":
			o := b.op("get", "get", s, "read"+b.id+s.scope+name, s.params)
			o.description, o.result = "read "+what, body
			ops = append(ops, o)
		case "update":
			o := b.op("put", "put", s, "replace"+b.id+s.scope+name, s.params, b.queries.update)
			o.description, o.body, o.result = "replace "+what, body, body
			o.codes = []string{"200", "201"}
			ops = append(ops, o)
		case "patch":
			o := b.op("patch", "patch", s, "patch"+b.id+s.scope+name, s.params, b.queries.patch)
			o.description, o.body, o.result = "partially update "+what, patchName, body
			o.consumes, o.codes = s.patchTypes(), []string{"200", "201"}
			ops = append(ops, o)
		}
	}
	return ops
}

// watches makes the old routes of watches, which take no parameter to be one.
func (b *builder) watches(s *served) {
	if !s.HasVerb("watch") {
		return
	}
	kind := s.gvk.Kind
	watch := func(path, action, id string, params []parameter, use string) {
		o := b.op("get", action, s, "watch"+b.id+id, params, b.queries.list)
		o.description = "watch " + use + " (deprecated: use the 'watch' parameter of a list instead)"
		o.result, o.produces = watchName, s.watchTypes()
		b.add(newRoute(b.prefix+"/watch"+strings.TrimPrefix(path, b.prefix), o))
	}
	if s.Namespaced {
		watch(b.prefix+"/"+s.Plural, "watchlist", kind+"ListForAllNamespaces", nil, "all objects of kind "+kind)
	}
	watch(s.collection, "watchlist", s.scope+kind+"List", s.within, "objects of kind "+kind)
	watch(s.item, "watch", s.scope+kind, s.params, "one object of kind "+kind)
}

// subresource makes the routes of a path below an object.
func (b *builder) subresource(parent *served, sub resource.Subresource) error {
	s, body := *parent, parent.one
	path, name := s.item+"/"+sub.Name, s.gvk.Kind+upperFirst(sub.Name)
	if sub.Kind.Kind != "" {
		s.gvk = sub.Kind
		if strings.HasSuffix(sub.Kind.Kind, "Options") {
			return b.connect(&s, parent.gvk.Kind, sub, path)
		}
		var err error
		if body, err = b.define(sub.Kind); err != nil {
			return err
		}
	}
	if sub.Name == "log" {
		return b.log(&s, path, name)
	}
	ops := b.readWrite(&s, sub.Verbs, body, name, sub.Name+" of the specified "+parent.gvk.Kind)
	for _, verb := range sub.Verbs {
		if verb == "create" {
			o := b.op("post", "post", &s, "create"+b.id+s.scope+name, s.params, b.queries.create)
			o.description = "create " + sub.Name + " of " + article(parent.gvk.Kind)
			o.body, o.result, o.codes = body, body, []string{"200", "201", "202"}
			ops = append(ops, o)
		}
	}
	b.add(newRoute(path, ops...))
	return nil
}

// log is the one subresource that is read as text.
func (b *builder) log(s *served, path, name string) error {
	options, err := b.catalog.optionsOf(schema.GroupVersionKind{Version: "v1", Kind: "PodLogOptions"})
	if err != nil {
		return err
	}
	o := b.op("get", "get", s, "read"+b.id+s.scope+name, s.params, without(options, "pretty"))
	o.description = "read log of the specified " + s.gvk.Kind
	o.produces = append([]string{"text/plain"}, objectTypes()...)
	b.add(newRoute(path, o))
	return nil
}

// connect makes the routes of a stream or a proxy: the kind of the
// subresource holds its query parameters.
func (b *builder) connect(s *served, parent string, sub resource.Subresource, path string) error {
	options, err := b.catalog.optionsOf(sub.Kind)
	if err != nil {
		return err
	}
	route := func(path, suffix string, extra ...parameter) {
		var ops []operation
		for _, verb := range sub.Verbs {
			for _, method := range connectMethods(verb, sub.Name == "proxy") {
				id := "connect" + b.id + upperFirst(method) + s.scope + parent + upperFirst(sub.Name) + suffix
				o := b.op(method, "connect", s, id, s.params, options, extra)
				o.description = "connect " + strings.ToUpper(method) + " requests to " + sub.Name + " of " + parent
				o.produces = []string{anyType}
				ops = append(ops, o)
			}
		}
		b.add(newRoute(path, ops...))
	}
	route(path, "")
	if sub.Name == "proxy" {
		// The rest of the URL is the path; the query parameter of that name
		// belongs to the plain form.
		route(path+"/{path}", "WithPath", pathParam(parent))
	}
	return nil
}

// connectMethods are the methods that a verb allows on a connection.
func connectMethods(verb string, proxy bool) []string {
	switch verb {
	case "get":
		if proxy {
			return []string{"get", "head"}
		}
		return []string{"get"}
	case "create":
		return []string{"post"}
	case "update":
		return []string{"put"}
	default:
		return []string{verb}
	}
}

// article puts "a" or "an" before a kind.
func article(kind string) string {
	if strings.ContainsAny(kind[:1], "AEIOU") {
		return "an " + kind
	}
	return "a " + kind
}
