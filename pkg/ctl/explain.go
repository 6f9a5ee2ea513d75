package ctl

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// fieldSchema is the part of an OpenAPI schema that explain shows.
type fieldSchema struct {
	Description string                  `json:"description"`
	Type        string                  `json:"type"`
	Format      string                  `json:"format"`
	Ref         string                  `json:"$ref"`
	AllOf       []*fieldSchema          `json:"allOf"`
	Items       *fieldSchema            `json:"items"`
	Values      additional              `json:"additionalProperties"`
	Properties  map[string]*fieldSchema `json:"properties"`
	Required    []string                `json:"required"`
	Enum        []any                   `json:"enum"`
	IntOrString bool                    `json:"x-kubernetes-int-or-string"`
	Kinds       []schemaKind            `json:"x-kubernetes-group-version-kind"`
}

// schemaKind is a kind as schemas name it.
type schemaKind struct {
	Group   string `json:"group"`
	Version string `json:"version"`
	Kind    string `json:"kind"`
}

// additional is the schema of a map's values, nil where it is true or false.
type additional struct{ schema *fieldSchema }

// UnmarshalJSON accepts a schema or a boolean.
func (a *additional) UnmarshalJSON(data []byte) error {
	if len(data) == 0 || data[0] != '{' {
		return nil
	}
	a.schema = &fieldSchema{}
	return json.Unmarshal(data, a.schema)
}

// explainer writes about one group version's schemas.
type explainer struct {
	tool    *tool
	schemas map[string]*fieldSchema
}

func (t *tool) explainVerb() *cobra.Command {
	var recursive bool
	var version string
	cmd := &cobra.Command{
		Use:               "explain TYPE[.FIELD...]",
		Short:             "Explain the fields of a type",
		Example:           "  ctl explain pod\n  ctl explain deployment.spec.strategy\n  ctl explain pod.spec --recursive",
		Args:              between(1, 1, "one type, possibly with fields: pod.spec.containers"),
		ValidArgsFunction: t.completeObjects,
		RunE: func(_ *cobra.Command, args []string) error {
			return t.explainType(args[0], version, recursive)
		},
	}
	cmd.Flags().BoolVar(&recursive, "recursive", false, "show the names of all fields below")
	cmd.Flags().StringVar(&version, "api-version", "", "of this group and version, for example apps/v1")
	return cmd
}

// splitType separates the type, which may have a group, from the fields.
func splitType(arg string, mapper meta.RESTMapper, version string) (schema.GroupVersionKind, []string, error) {
	parts := strings.Split(arg, ".")
	var none schema.GroupVersionKind
	// deployments.apps.spec: the group takes as many parts as name a type.
	for n := len(parts); n > 0; n-- {
		gr := schema.ParseGroupResource(strings.Join(parts[:n], "."))
		gvk, err := mapper.KindFor(gr.WithVersion(""))
		if err != nil {
			continue
		}
		if version != "" {
			gv, err := schema.ParseGroupVersion(version)
			if err != nil {
				return none, nil, usagef("--api-version=%s is not of the form GROUP/VERSION", version)
			}
			gvk = gv.WithKind(gvk.Kind)
		}
		return gvk, parts[n:], nil
	}
	return none, nil, fmt.Errorf("the server doesn't have a resource type %q", parts[0])
}

func (t *tool) explainType(arg, version string, recursive bool) error {
	mapper, err := t.flags.ToRESTMapper()
	if err != nil {
		return err
	}
	gvk, fields, err := splitType(arg, mapper, version)
	if err != nil {
		return err
	}
	e := &explainer{tool: t}
	if err := e.load(gvk.GroupVersion()); err != nil {
		return err
	}
	s := e.find(gvk)
	if s == nil {
		return fmt.Errorf("the server does not describe the kind %s of %s", gvk.Kind, gvk.GroupVersion())
	}
	field, parent := s, s
	for _, name := range fields {
		parent = e.element(field)
		field = parent.Properties[name]
		if field == nil {
			return fmt.Errorf("field %q does not exist in %s", name, strings.TrimSuffix(arg, "."+name))
		}
	}
	e.print(gvk, fields, field, parent, recursive)
	return nil
}

// load fetches the schemas of a group version.
func (e *explainer) load(gv schema.GroupVersion) error {
	d, err := e.tool.flags.ToDiscoveryClient()
	if err != nil {
		return err
	}
	paths, err := d.OpenAPIV3().Paths()
	if err != nil {
		return fmt.Errorf("the server describes no types (OpenAPI v3): %w", err)
	}
	path := "apis/" + gv.String()
	if gv.Group == "" {
		path = "api/" + gv.Version
	}
	doc, ok := paths[path]
	if !ok {
		return fmt.Errorf("the server does not describe %s", gv)
	}
	data, err := doc.Schema(runtime.ContentTypeJSON)
	if err != nil {
		return fmt.Errorf("fetch the description of %s: %w", gv, err)
	}
	var parsed struct {
		Components struct {
			Schemas map[string]*fieldSchema `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(data, &parsed); err != nil {
		return fmt.Errorf("read the description of %s: %w", gv, err)
	}
	e.schemas = parsed.Components.Schemas
	return nil
}

func (e *explainer) find(gvk schema.GroupVersionKind) *fieldSchema {
	for _, name := range sortedKeys(e.schemas) {
		s := e.schemas[name]
		if slices.Contains(s.Kinds, schemaKind{gvk.Group, gvk.Version, gvk.Kind}) {
			return s
		}
	}
	return nil
}

// maxRefs bounds how far references are followed.
const maxRefs = 16

// resolve follows references. The description nearest to the field counts.
func (e *explainer) resolve(s *fieldSchema) (resolved *fieldSchema, name string) {
	resolved = s
	for range maxRefs {
		ref := resolved.Ref
		if ref == "" && len(resolved.AllOf) == 1 {
			ref = resolved.AllOf[0].Ref
		}
		next, ok := e.schemas[strings.TrimPrefix(ref, "#/components/schemas/")]
		if ref == "" || !ok {
			break
		}
		name = ref[strings.LastIndexAny(ref, "./")+1:]
		resolved = next
	}
	return resolved, name
}

// element is the schema whose properties are the fields below s: that of a
// list's items or a map's values.
func (e *explainer) element(s *fieldSchema) *fieldSchema {
	for range maxRefs {
		s, _ = e.resolve(s)
		switch {
		case s.Items != nil:
			s = s.Items
		case s.Values.schema != nil:
			s = s.Values.schema
		default:
			return s
		}
	}
	return s
}

// typeOf names the type of a field.
func (e *explainer) typeOf(s *fieldSchema) string {
	r, name := e.resolve(s)
	switch {
	case r.Items != nil:
		return "[]" + e.typeOf(r.Items)
	case r.Values.schema != nil:
		return "map[string]" + e.typeOf(r.Values.schema)
	case name != "":
		return name
	case r.IntOrString:
		return "IntOrString"
	case r.Type != "":
		return r.Type
	}
	return "Object"
}

// description is the field's own, or that of its type.
func (e *explainer) description(s *fieldSchema) string {
	if s.Description != "" {
		return s.Description
	}
	if r, _ := e.resolve(s); r.Description != "" {
		return r.Description
	}
	return "<empty>"
}

func (e *explainer) print(gvk schema.GroupVersionKind, fields []string, s, parent *fieldSchema, recursive bool) {
	out := escaper{e.tool.Out}
	if gvk.Group != "" {
		fmt.Fprintf(out, "GROUP:      %s\n", gvk.Group)
	}
	fmt.Fprintf(out, "KIND:       %s\nVERSION:    %s\n\n", gvk.Kind, gvk.Version)
	if n := len(fields); n > 0 {
		fmt.Fprintf(out, "FIELD: %s <%s>%s\n", fields[n-1], e.typeOf(s), required(parent, fields[n-1]))
		for _, v := range enum(s) {
			fmt.Fprintln(out, v)
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "DESCRIPTION:\n%s\n", wrap(e.description(s), "    "))
	below := e.element(s)
	if r, _ := e.resolve(s); r != below && below.Description != "" && below.Description != e.description(s) {
		fmt.Fprintf(out, "%s\n", wrap(below.Description, "    "))
	}
	if len(below.Properties) == 0 {
		fmt.Fprintln(out)
		return
	}
	fmt.Fprintln(out, "\nFIELDS:")
	e.fields(out, below, "  ", recursive, nil)
}

// fields writes the fields of a schema. seen holds the types above, since some
// contain themselves.
func (e *explainer) fields(out escaper, s *fieldSchema, indent string, recursive bool, seen []*fieldSchema) {
	for _, name := range sortedKeys(s.Properties) {
		f := s.Properties[name]
		fmt.Fprintf(out, "%s%s\t<%s>%s\n", indent, name, e.typeOf(f), required(s, name))
		if !recursive {
			for _, v := range enum(f) {
				fmt.Fprintln(out, indent+v)
			}
			fmt.Fprintf(out, "%s\n\n", wrap(e.description(f), indent+"  "))
			continue
		}
		if below := e.element(f); !slices.Contains(seen, below) {
			e.fields(out, below, indent+"  ", true, append(slices.Clone(seen), below))
		}
	}
}

func required(s *fieldSchema, field string) string {
	if slices.Contains(s.Required, field) {
		return " -required-"
	}
	return ""
}

// enum lists the values that a field may have.
func enum(s *fieldSchema) []string {
	if len(s.Enum) == 0 {
		return nil
	}
	values := make([]string, len(s.Enum))
	for i, v := range s.Enum {
		values[i] = fmt.Sprint(v)
	}
	return []string{"  enum: " + strings.Join(values, ", ")}
}

// textWidth is where descriptions are wrapped.
const textWidth = 80

// wrap breaks text into lines, each behind the indent. Line ends in the text
// stay.
func wrap(text, indent string) string {
	var b strings.Builder
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n") {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(indent)
		width := len(indent)
		for j, word := range strings.Fields(paragraph) {
			switch {
			case j == 0:
			case width+1+len(word) > textWidth:
				b.WriteString("\n" + indent)
				width = len(indent)
			default:
				b.WriteByte(' ')
				width++
			}
			b.WriteString(word)
			width += len(word)
		}
	}
	return b.String()
}
