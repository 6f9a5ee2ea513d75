package openapi

import (
	"bytes"
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
		d, ok := c.byName[name]
		if !ok {
			return nil, missing(name)
		}
		seen[name] = true
		todo = append(todo, d.Refs...)
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
// are named under each that is served.
func (c *catalog) kindsOf(d *Definition, table *resource.Table) []gvkJSON {
	var out []gvkJSON
	switch d.Name {
	case deleteName, watchName:
		kind := strings.TrimPrefix(d.Name, metaPrefix)
		for _, g := range table.Groups() {
			for _, v := range g.Versions {
				out = append(out, gvkJSON{Group: g.Group, Version: v, Kind: kind})
			}
		}
	default:
		for _, k := range d.Kinds {
			out = append(out, gvkJSON{Group: k.Group, Version: k.Version, Kind: k.Kind})
		}
	}
	return out
}

// writeJSON appends the definitions as a JSON object.
func (c *catalog) writeJSON(buf *bytes.Buffer, table *resource.Table, names []string, v3 bool) error {
	buf.WriteByte('{')
	for i, name := range names {
		if i > 0 {
			buf.WriteByte(',')
		}
		d := c.byName[name]
		text := d.V2
		if v3 {
			text = d.V3
		}
		fmt.Fprintf(buf, "%q:", name)
		kinds := c.kindsOf(d, table)
		if len(kinds) == 0 {
			buf.Write(text)
			continue
		}
		ext, err := json.Marshal(kinds)
		if err != nil {
			return fmt.Errorf("encode the kinds of %s: %w", name, err)
		}
		buf.Write(text[:len(text)-1]) // types with kinds have fields before
		fmt.Fprintf(buf, ",%q:%s}", gvkExtension, ext)
	}
	buf.WriteByte('}')
	return nil
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
func (c *catalog) proto(table *resource.Table, names []string, v3 bool) []byte {
	var all, one []byte
	for _, name := range names {
		d := c.byName[name]
		one = one[:0]
		if v3 {
			one = append(append(one, d.V3Proto...), kindsProto(c.kindsOf(d, table), v3SchemaExtension)...)
			one = message(nil, v3OrReferenceSchema, one)
		} else {
			one = append(append(one, d.V2Proto...), kindsProto(c.kindsOf(d, table), v2SchemaExtension)...)
		}
		entry := message(message(nil, namedName, []byte(name)), namedValue, one)
		all = message(all, mapEntries, entry)
	}
	if v3 {
		return message(nil, v3DocumentComponents, message(nil, v3ComponentsSchemas, all))
	}
	return message(nil, v2DocumentDefinitions, all)
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
