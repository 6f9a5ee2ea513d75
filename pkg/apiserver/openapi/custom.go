package openapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/resource"
)

const (
	objectMetaName = metaPrefix + "ObjectMeta"
	listMetaName   = metaPrefix + "ListMeta"
)

// customType is the definition of a custom resource or of its list. Its schema
// is made when a document needs it and not kept.
type customType struct {
	res *resource.Resource
	// item is the name of the type that a list is of, "" for the type itself.
	item string
}

// with returns the catalog with the custom resources of a table.
func (c *catalog) with(table *resource.Table) *catalog {
	next := &catalog{byName: c.byName, byKind: c.byKind, custom: map[string]customType{}}
	for _, res := range table.All() {
		if res.Custom == nil {
			continue
		}
		if len(next.custom) == 0 {
			next.byKind = maps.Clone(c.byKind)
		}
		item, list := modelName(res, res.Kind), modelName(res, res.Custom.ListKind)
		next.custom[item] = customType{res: res}
		next.custom[list] = customType{res: res, item: item}
		next.byKind[res.GVK()] = item
		next.byKind[res.GVK().GroupVersion().WithKind(res.Custom.ListKind)] = list
	}
	return next
}

// modelName is the model name of a custom kind: com.example.v1.Thing.
func modelName(res *resource.Resource, kind string) string {
	parts := strings.Split(res.Group, ".")
	slices.Reverse(parts)
	return strings.Join(append(parts, res.Version, kind), ".")
}

// refs are the names that a definition refers to.
func (c *catalog) refs(name string) ([]string, error) {
	if d, ok := c.byName[name]; ok {
		return d.Refs, nil
	}
	t, ok := c.custom[name]
	switch {
	case !ok:
		return nil, missing(name)
	case t.item != "":
		return []string{t.item, listMetaName}, nil
	}
	return []string{objectMetaName}, nil
}

// text is the schema of a definition as JSON.
func (c *catalog) text(name string, v3 bool) (json.RawMessage, error) {
	if d, ok := c.byName[name]; ok {
		if v3 {
			return d.V3, nil
		}
		return d.V2, nil
	}
	return c.custom[name].text(v3)
}

func (t customType) text(v3 bool) (json.RawMessage, error) {
	refs := v2Refs
	if v3 {
		refs = v3Refs
	}
	if t.item == "" {
		return t.res.Custom.OpenAPI(v3, func(definition string) string { return refs + definition })
	}
	property := func(about string, more map[string]any) map[string]any {
		more["description"] = about
		return more
	}
	return json.Marshal(map[string]any{
		"type": "object", "required": []string{"items"}, "description": t.res.Custom.ListKind + " is a list of " + t.res.Kind,
		"properties": map[string]any{
			"apiVersion": property("The version of the schema that the list is in.", map[string]any{"type": "string"}),
			"kind":       property("The kind of the list.", map[string]any{"type": "string"}),
			"metadata":   property("The metadata of the list.", reference(refs+listMetaName, v3)),
			"items": property("The "+t.res.Plural+" of the list.", map[string]any{
				"type": "array", "items": map[string]any{"$ref": refs + t.item},
			}),
		},
	})
}

// reference refers to a definition in a place that says something else, too,
// which version 3 does not allow beside $ref.
func reference(to string, v3 bool) map[string]any {
	if v3 {
		return map[string]any{"allOf": []any{map[string]string{"$ref": to}}}
	}
	return map[string]any{"$ref": to}
}

// protoText is the schema of a definition as gnostic's message.
func (c *catalog) protoText(name string, v3 bool) ([]byte, error) {
	if d, ok := c.byName[name]; ok {
		if v3 {
			return d.V3Proto, nil
		}
		return d.V2Proto, nil
	}
	text, err := c.text(name, v3)
	if err != nil {
		return nil, err
	}
	// gnostic only reads whole documents.
	info := infoJSON{"Kubernetes", "v0"}
	if v3 {
		return protoV3(map[string]any{"openapi": "3.0.0", "info": info, "paths": struct{}{},
			"components": map[string]any{"schemas": map[string]any{name: text}}})
	}
	return protoV2(map[string]any{"swagger": "2.0", "info": info, "paths": struct{}{}, "definitions": map[string]any{name: text}})
}

func protoV3(doc map[string]any) ([]byte, error) {
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode a schema: %w", err)
	}
	parsed, err := openapi_v3.ParseDocument(text)
	if err != nil {
		return nil, fmt.Errorf("turn a schema into protobuf: %w", err)
	}
	for _, d := range parsed.GetComponents().GetSchemas().GetAdditionalProperties() {
		return proto.MarshalOptions{Deterministic: true}.Marshal(d.GetValue().GetSchema())
	}
	return nil, nil
}

func protoV2(doc map[string]any) ([]byte, error) {
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode a schema: %w", err)
	}
	parsed, err := openapi_v2.ParseDocument(text)
	if err != nil {
		return nil, fmt.Errorf("turn a schema into protobuf: %w", err)
	}
	for _, d := range parsed.GetDefinitions().GetAdditionalProperties() {
		return proto.MarshalOptions{Deterministic: true}.Marshal(d.GetValue())
	}
	return nil, nil
}

// customsOf are the custom resources that a document describes: "" is that of
// everything.
func customsOf(table *resource.Table, section string) []*resource.Resource {
	var out []*resource.Resource
	for _, res := range table.All()[len(table.Base().All()):] {
		prefix := strings.TrimPrefix(prefixOf(schema.GroupVersion{Group: res.Group, Version: res.Version}), "/")
		if section == "" || section == prefix {
			out = append(out, res)
		}
	}
	return out
}
