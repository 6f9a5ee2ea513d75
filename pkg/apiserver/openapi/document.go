package openapi

import (
	"bufio"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/resource"
)

// document is one description before its definitions are spliced in.
type document struct {
	// head is a JSON object of everything but the definitions.
	head []byte
	// names are those of its definitions, sorted.
	names []string
}

// gvkJSON is x-kubernetes-group-version-kind.
type gvkJSON struct {
	Group   string `json:"group"`
	Kind    string `json:"kind"`
	Version string `json:"version"`
}

const (
	gvkExtension    = "x-kubernetes-group-version-kind"
	actionExtension = "x-kubernetes-action"
)

// security is how requests are authenticated, in the form that v2 and v3 have
// in common.
func security() map[string]any {
	return map[string]any{"BearerToken": map[string]string{
		"type": "apiKey", "in": "header", "name": "authorization", "description": "Bearer Token authentication",
	}}
}

type infoJSON struct {
	Title   string `json:"title"`
	Version string `json:"version"`
}

// closure returns names and all that they refer to, sorted.
func (c *catalog) closure(names []string) ([]string, error) {
	seen := map[string]bool{}
	for todo := slices.Clone(names); len(todo) > 0; {
		name := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[name] {
			continue
		}
		refs, err := c.refs(name)
		if err != nil {
			return nil, err
		}
		seen[name] = true
		todo = append(todo, refs...)
	}
	out := make([]string, 0, len(seen))
	for name := range seen {
		out = append(out, name)
	}
	slices.Sort(out)
	return out, nil
}

// definitions are the names of all schemas of sections.
func (c *catalog) definitions(sections ...section) ([]string, error) {
	var names []string
	for _, s := range sections {
		names = append(names, s.kinds...)
		for i := range s.routes {
			names = append(names, s.routes[i].definitions()...)
		}
	}
	return c.closure(names)
}

// kindsOf are the kinds of a definition. Those that every group version has
// are named under each literal one that is served.
func (c *catalog) kindsOf(name string, table *resource.Table) []gvkJSON {
	var out []gvkJSON
	if t, ok := c.custom[name]; ok {
		kind := t.res.Kind
		if t.item != "" {
			kind = t.res.Custom.ListKind
		}
		return []gvkJSON{{Group: t.res.Group, Version: t.res.Version, Kind: kind}}
	}
	switch name {
	case deleteName, watchName:
		kind := strings.TrimPrefix(name, metaPrefix)
		for _, g := range table.Base().Groups() {
			for _, v := range g.Versions {
				out = append(out, gvkJSON{Group: g.Group, Version: v, Kind: kind})
			}
		}
	default:
		for _, k := range c.byName[name].Kinds {
			out = append(out, gvkJSON{Group: k.Group, Version: k.Version, Kind: k.Kind})
		}
	}
	return out
}

// writeJSON appends the definitions as a JSON object.
func (c *catalog) writeJSON(buf *bufio.Writer, table *resource.Table, names []string, v3 bool) error {
	for i, name := range names {
		between := ","
		if i == 0 {
			between = "{"
		}
		fmt.Fprintf(buf, "%s%q:", between, name)
		text, err := c.text(name, v3)
		if err != nil {
			return err
		}
		kinds := c.kindsOf(name, table)
		if len(kinds) == 0 {
			if _, err := buf.Write(text); err != nil {
				return err
			}
			continue
		}
		ext, err := json.Marshal(kinds)
		if err != nil {
			return fmt.Errorf("encode the kinds of %s: %w", name, err)
		}
		// Types with kinds have fields before.
		if _, err := fmt.Fprintf(buf, "%s,%q:%s}", text[:len(text)-1], gvkExtension, ext); err != nil {
			return err
		}
	}
	_, err := buf.WriteString("}")
	return err
}

// Field numbers of gnostic's messages.
const (
	v2DocumentDefinitions = 9
	v3DocumentComponents  = 5
	v3ComponentsSchemas   = 1
	namedName, namedValue = 1, 2 // NamedAny, NamedSchema, NamedSchemaOrReference
	anyYAML               = 2
	v2SchemaExtension     = 31
	v3SchemaExtension     = 36
	v3OrReferenceSchema   = 1
	mapEntries            = 1 // Definitions, SchemasOrReferences
)

// proto returns the definitions as a fragment of gnostic's Document message:
// to append it to an encoded document is to merge the two.
func (c *catalog) proto(table *resource.Table, names []string, v3 bool) ([]byte, error) {
	var all, one []byte
	for _, name := range names {
		text, err := c.protoText(name, v3)
		if err != nil {
			return nil, err
		}
		kinds := c.kindsOf(name, table)
		one = one[:0]
		if v3 {
			one = append(append(one, text...), kindsProto(kinds, v3SchemaExtension)...)
			one = message(nil, v3OrReferenceSchema, one)
		} else {
			one = append(append(one, text...), kindsProto(kinds, v2SchemaExtension)...)
		}
		entry := message(message(nil, namedName, []byte(name)), namedValue, one)
		all = message(all, mapEntries, entry)
	}
	if v3 {
		return message(nil, v3DocumentComponents, message(nil, v3ComponentsSchemas, all)), nil
	}
	return message(nil, v2DocumentDefinitions, all), nil
}

// message appends a length-delimited field.
func message(b []byte, field protowire.Number, content []byte) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendBytes(b, content)
}

// kindsProto is x-kubernetes-group-version-kind as an extension of a Schema.
func kindsProto(kinds []gvkJSON, field protowire.Number) []byte {
	if len(kinds) == 0 {
		return nil
	}
	var yaml strings.Builder
	for _, k := range kinds {
		group := k.Group
		if group == "" {
			group = `""`
		}
		fmt.Fprintf(&yaml, "- group: %s\n  kind: %s\n  version: %s\n", group, k.Kind, k.Version)
	}
	value := message(nil, anyYAML, []byte(yaml.String()))
	return message(nil, field, message(message(nil, namedName, []byte(gvkExtension)), namedValue, value))
}

func kindJSON(gvk schema.GroupVersionKind) *gvkJSON {
	if gvk.Kind == "" {
		return nil
	}
	return &gvkJSON{Group: gvk.Group, Kind: gvk.Kind, Version: gvk.Version}
}

// codeText describes the status code of a successful answer.
func codeText(code string) string {
	switch code {
	case "201":
		return "Created"
	case "202":
		return "Accepted"
	default:
		return "OK"
	}
}
