package openapi

import (
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Definitions that operations refer to, beside those of the table's kinds.
const (
	metaPrefix   = "io.k8s.apimachinery.pkg.apis.meta.v1."
	patchName    = metaPrefix + "Patch"
	statusName   = metaPrefix + "Status"
	deleteName   = metaPrefix + "DeleteOptions"
	watchName    = metaPrefix + "WatchEvent"
	versionsName = metaPrefix + "APIVersions"
	groupsName   = metaPrefix + "APIGroupList"
	groupName    = metaPrefix + "APIGroup"
	listName     = metaPrefix + "APIResourceList"
	versionName  = "io.k8s.apimachinery.pkg.version.Info"
)

var (
	pretty = parameter{"pretty", "query", "string",
		"Indent the answer for a human reader: 'true' or 'false'. Without it, browsers and the usual command line clients get indented answers."}
	namespaceParam = parameter{"namespace", "path", "string", "The namespace of the object: its name within it is unique."}
)

func nameParam(kind string) parameter {
	return parameter{"name", "path", "string", "The name of the " + kind + "."}
}

func pathParam(kind string) parameter {
	return parameter{"path", "path", "string", "The path to request from the " + kind + ", which may contain slashes."}
}

// queries are the query parameters of each kind of operation: the fields of
// the options type that the server reads them into.
type queries struct {
	list, create, update, patch, remove, removeMany []parameter
}

func (c *catalog) queries() (q queries, err error) {
	for _, x := range []struct {
		name string
		into *[]parameter
	}{
		{metaPrefix + "ListOptions", &q.list}, {metaPrefix + "CreateOptions", &q.create}, {metaPrefix + "UpdateOptions", &q.update},
		{metaPrefix + "PatchOptions", &q.patch}, {deleteName, &q.remove},
	} {
		if *x.into, err = c.options(x.name); err != nil {
			return q, err
		}
	}
	// Shards are an alpha feature that this server does not have.
	q.list = without(q.list, "shardSelector")
	// A collection is deleted by selectors; watching it is no delete's matter.
	q.removeMany = append(without(q.list, "watch", "allowWatchBookmarks"), q.remove...)
	return q, nil
}

func without(params []parameter, names ...string) []parameter {
	return slices.DeleteFunc(slices.Clone(params), func(p parameter) bool { return slices.Contains(names, p.name) })
}

// optionsOf are the query parameters that an options kind (PodExecOptions)
// stands for.
func (c *catalog) optionsOf(gvk schema.GroupVersionKind) ([]parameter, error) {
	name, ok := c.byKind[gvk]
	if !ok {
		return nil, missing(gvk.String())
	}
	return c.options(name)
}

// options turns the fields of a definition into query parameters. Fields that
// are objects have no form in a query.
func (c *catalog) options(name string) ([]parameter, error) {
	d, ok := c.byName[name]
	if !ok {
		return nil, missing(name)
	}
	var s struct {
		Properties map[string]struct {
			Type        string `json:"type"`
			Description string `json:"description"`
			Items       struct {
				Type string `json:"type"`
			} `json:"items"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(d.V2, &s); err != nil {
		return nil, fmt.Errorf("read the fields of %s: %w", name, err)
	}
	var out []parameter
	for field, p := range s.Properties {
		typ := p.Type
		if typ == "array" {
			typ = p.Items.Type // given several times
		}
		if typ == "" || typ == "object" || field == "kind" || field == "apiVersion" {
			continue
		}
		out = append(out, parameter{field, "query", typ, p.Description})
	}
	slices.SortFunc(out, compareParams)
	return out, nil
}

func missing(what string) error {
	return fmt.Errorf("the catalog of API types lacks %s: run `go run ./hack/openapi`", what)
}
