package openapi

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/resource"
)

// section is a set of routes that OpenAPI v3 has one document for.
type section struct {
	// name is the document's: "api/v1", "apis/apps/v1", "apis".
	name   string
	routes []route
	// kinds are the definitions of the kinds that the section serves.
	kinds []string
}

// sectionNames lists the documents in the order of their names.
func sectionNames(table *resource.Table) []string {
	names := []string{"api", "apis", "version"}
	for _, g := range table.Groups() {
		if g.Group != "" {
			names = append(names, "apis/"+g.Group)
		}
		for _, v := range g.Versions {
			names = append(names, strings.TrimPrefix(prefixOf(schema.GroupVersion{Group: g.Group, Version: v}), "/"))
		}
	}
	slices.Sort(names)
	return names
}

func prefixOf(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "/api/" + gv.Version
	}
	return "/apis/" + gv.Group + "/" + gv.Version
}

// section makes the routes of one document. An unknown name has none.
func (c *catalog) section(table *resource.Table, name string) (section, error) {
	s := section{name: name}
	parts := strings.Split(name, "/")
	switch {
	case name == "version":
		s.routes = []route{newRoute("/version/", info("getCodeVersion", "version", "get the version of the server", versionName))}
	case name == "api":
		s.routes = []route{newRoute("/api/", info("getCoreAPIVersions", "core", "get available API versions", versionsName))}
	case name == "apis":
		s.routes = []route{newRoute("/apis/", info("getAPIVersions", "apis", "get available API versions", groupsName))}
	case parts[0] == "apis" && len(parts) == 2:
		id := groupID(parts[1])
		s.routes = []route{newRoute("/"+name+"/", info("get"+id+"APIGroup", lowerFirst(id), "get information of a group", groupName))}
	case parts[0] == "api" && len(parts) == 2:
		return c.groupVersion(table, name, schema.GroupVersion{Version: parts[1]})
	case parts[0] == "apis" && len(parts) == 3:
		return c.groupVersion(table, name, schema.GroupVersion{Group: parts[1], Version: parts[2]})
	}
	return s, nil
}

// info is a GET of something that is no object.
func info(id, tag, description, result string) operation {
	return operation{
		method: "get", id: id, tag: tag, description: description, result: result,
		produces: objectTypes(), codes: []string{"200"},
	}
}

// builder makes the routes of one group version.
type builder struct {
	catalog *catalog
	queries queries
	gv      schema.GroupVersion
	prefix  string
	id, tag string // "AppsV1", "apps_v1"
	section section
}

func (c *catalog) groupVersion(table *resource.Table, name string, gv schema.GroupVersion) (section, error) {
	q, err := c.queries()
	if err != nil {
		return section{}, err
	}
	group := groupID(gv.Group)
	b := &builder{
		catalog: c, queries: q, gv: gv, prefix: prefixOf(gv),
		id: group + upperFirst(gv.Version), tag: lowerFirst(group) + "_" + gv.Version,
		section: section{name: name},
	}
	b.add(newRoute(b.prefix+"/", info("get"+b.id+"APIResources", b.tag, "get available resources", listName)))
	for _, res := range table.All() {
		if res.Group == gv.Group && res.Version == gv.Version {
			err = b.resource(res, res.Kind)
		}
		for _, v := range res.Views {
			if v.Group == gv.Group && v.Version == gv.Version {
				err = b.resource(res, v.Kind)
			}
		}
		if err != nil {
			return section{}, err
		}
	}
	slices.SortFunc(b.section.routes, func(x, y route) int { return strings.Compare(x.path, y.path) })
	slices.Sort(b.section.kinds)
	b.section.kinds = slices.Compact(b.section.kinds)
	return b.section, nil
}

func (b *builder) add(r route) { b.section.routes = append(b.section.routes, r) }

// define returns the definition of a kind and keeps it in the document even if
// no operation refers to it.
func (b *builder) define(gvk schema.GroupVersionKind) (string, error) {
	name, ok := b.catalog.byKind[gvk]
	if !ok {
		return "", missing(gvk.String())
	}
	b.section.kinds = append(b.section.kinds, name)
	return name, nil
}

// groupID is a group as it stands in operation ids: rbac.authorization.k8s.io
// is RbacAuthorization.
func groupID(group string) string {
	if group == "" {
		return "Core"
	}
	var id strings.Builder
	for part := range strings.SplitSeq(strings.TrimSuffix(group, ".k8s.io"), ".") {
		id.WriteString(upperFirst(part))
	}
	return id.String()
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// served is a resource under the names of one group version.
type served struct {
	*resource.Resource
	gvk            schema.GroupVersionKind
	one, many      string // definitions; many is "" for what cannot be listed
	collection     string // path
	item           string // path
	scope          string // "Namespaced" or "", within operation ids
	params, within []parameter
}

func (b *builder) resource(res *resource.Resource, kind string) error {
	s := served{Resource: res, gvk: b.gv.WithKind(kind), collection: b.prefix + "/" + res.Plural}
	var err error
	if s.one, err = b.define(s.gvk); err != nil {
		return err
	}
	if res.HasVerb("list") {
		list := kind + "List"
		if res.Custom != nil {
			list = res.Custom.ListKind
		}
		if s.many, err = b.define(b.gv.WithKind(list)); err != nil {
			return err
		}
	}
	if res.Namespaced {
		s.collection = b.prefix + "/namespaces/{namespace}/" + res.Plural
		s.scope = "Namespaced"
		s.within = []parameter{namespaceParam}
	}
	s.item = s.collection + "/{name}"
	s.params = append([]parameter{nameParam(kind)}, s.within...)
	b.collection(&s)
	b.object(&s)
	b.watches(&s)
	subs := res.Subresources
	if status, ok := res.Subresource("status"); ok && res.HasStatus {
		subs = append(slices.Clone(subs), status)
	}
	for _, sub := range subs {
		if err := b.subresource(&s, sub); err != nil {
			return fmt.Errorf("%s/%s: %w", res.Plural, sub.Name, err)
		}
	}
	return nil
}

// op fills in what all operations on objects have.
func (b *builder) op(method, action string, s *served, id string, params ...[]parameter) operation {
	o := operation{
		method: method, action: action, id: id, tag: b.tag, kind: s.gvk,
		consumes: []string{anyType}, produces: objectTypes(), codes: []string{"200"},
	}
	if s.Custom != nil {
		o.consumes, o.produces = untyped(), untyped()
	}
	if action != "connect" {
		o.params = append(o.params, pretty)
	}
	for _, p := range params {
		o.params = append(o.params, p...)
	}
	return o
}
