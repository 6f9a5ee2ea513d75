package openapi

import (
	"encoding/json"
	"fmt"

	"coracle/pkg/resource"
)

const v3Refs = "#/components/schemas/"

type v3Head struct {
	OpenAPI string                    `json:"openapi"`
	Info    infoJSON                  `json:"info"`
	Paths   map[string]map[string]any `json:"paths"` // parameters, and operations by method
}

type v3Operation struct {
	Tags        []string              `json:"tags"`
	Description string                `json:"description"`
	ID          string                `json:"operationId"`
	Parameters  []v3Param             `json:"parameters,omitempty"`
	RequestBody *v3Body               `json:"requestBody,omitempty"`
	Responses   map[string]v3Response `json:"responses"`
	Action      string                `json:"x-kubernetes-action,omitempty"`
	Kind        *gvkJSON              `json:"x-kubernetes-group-version-kind,omitempty"`
}

type v3Param struct {
	Name        string        `json:"name"`
	In          string        `json:"in"`
	Description string        `json:"description,omitempty"`
	Required    bool          `json:"required,omitempty"`
	Schema      v3ParamSchema `json:"schema"`
}

type v3ParamSchema struct {
	Type        string `json:"type"`
	UniqueItems bool   `json:"uniqueItems,omitempty"`
}

type v3Body struct {
	Content  map[string]v3Media `json:"content"`
	Required bool               `json:"required,omitempty"`
}

type v3Response struct {
	Description string             `json:"description"`
	Content     map[string]v3Media `json:"content,omitempty"`
}

type v3Media struct {
	Schema any `json:"schema"`
}

// v3 makes the document of one section.
func (c *catalog) v3(table *resource.Table, version, name string) (*document, error) {
	s, err := c.section(table, name)
	if err != nil {
		return nil, err
	}
	names, err := c.definitions(s)
	if err != nil {
		return nil, err
	}
	head := v3Head{OpenAPI: "3.0.0", Info: infoJSON{"Kubernetes", version}, Paths: map[string]map[string]any{}}
	for _, r := range s.routes {
		head.add(r)
	}
	text, err := json.Marshal(head)
	if err != nil {
		return nil, fmt.Errorf("encode the paths of %s: %w", name, err)
	}
	return &document{head: text, names: names}, nil
}

func (h *v3Head) add(r route) {
	item := map[string]any{}
	if len(r.params) > 0 {
		item["parameters"] = v3Params(r.params)
	}
	for _, o := range r.ops {
		op := v3Operation{
			Tags: []string{o.tag}, Description: o.description, ID: o.id, Parameters: v3Params(o.params),
			Action: o.action, Kind: kindJSON(o.kind),
			Responses: map[string]v3Response{"401": {Description: "Unauthorized"}},
		}
		if o.body != "" {
			op.RequestBody = &v3Body{Content: v3Content(o.consumes, o.body), Required: !o.bodyOptional}
		}
		for _, code := range o.codes {
			op.Responses[code] = v3Response{Description: codeText(code), Content: v3Content(o.produces, o.result)}
		}
		item[o.method] = op
	}
	h.Paths[r.path] = item
}

func v3Content(types []string, definition string) map[string]v3Media {
	media := v3Media{Schema: textSchema{"string"}}
	if definition != "" {
		media.Schema = ref{v3Refs + definition}
	}
	out := make(map[string]v3Media, len(types))
	for _, t := range types {
		out[t] = media
	}
	return out
}

func v3Params(params []parameter) []v3Param {
	out := make([]v3Param, len(params))
	for i, p := range params {
		out[i] = v3Param{
			Name: p.name, In: p.in, Description: p.description, Required: p.required(),
			Schema: v3ParamSchema{Type: p.typ, UniqueItems: true},
		}
	}
	return out
}
