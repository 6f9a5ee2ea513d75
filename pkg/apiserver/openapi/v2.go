package openapi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"coracle/pkg/resource"
)

const v2Refs = "#/definitions/"

type v2Head struct {
	Swagger    string                    `json:"swagger"`
	Info       infoJSON                  `json:"info"`
	Paths      map[string]map[string]any `json:"paths"` // parameters, and operations by method
	Parameters map[string]v2Param        `json:"parameters"`
	Security   []map[string][]string     `json:"security"`
	Schemes    map[string]any            `json:"securityDefinitions"`
}

type v2Operation struct {
	Description string                `json:"description"`
	Consumes    []string              `json:"consumes,omitempty"`
	Produces    []string              `json:"produces,omitempty"`
	Schemes     []string              `json:"schemes"`
	Tags        []string              `json:"tags"`
	ID          string                `json:"operationId"`
	Parameters  []any                 `json:"parameters,omitempty"`
	Responses   map[string]v2Response `json:"responses"`
	Action      string                `json:"x-kubernetes-action,omitempty"`
	Kind        *gvkJSON              `json:"x-kubernetes-group-version-kind,omitempty"`
}

type v2Param struct {
	Name        string `json:"name"`
	In          string `json:"in"`
	Description string `json:"description,omitempty"`
	Required    bool   `json:"required,omitempty"`
	Type        string `json:"type,omitempty"`
	UniqueItems bool   `json:"uniqueItems,omitempty"`
	Schema      *ref   `json:"schema,omitempty"`
}

type v2Response struct {
	Description string `json:"description"`
	Schema      any    `json:"schema,omitempty"`
}

type ref struct {
	Ref string `json:"$ref"`
}

type textSchema struct {
	Type string `json:"type"`
}

// v2 makes the document of all sections.
func (c *catalog) v2(table *resource.Table, version string) (*document, error) {
	head := v2Head{
		Swagger: "2.0", Info: infoJSON{"Kubernetes", version}, Paths: map[string]map[string]any{}, Parameters: map[string]v2Param{},
		Security: []map[string][]string{{"BearerToken": {}}}, Schemes: security(),
	}
	var sections []section
	for _, name := range sectionNames(table) {
		s, err := c.section(table, name)
		if err != nil {
			return nil, err
		}
		sections = append(sections, s)
		for _, r := range s.routes {
			head.add(r)
		}
	}
	names, err := c.definitions(sections...)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(head)
	if err != nil {
		return nil, fmt.Errorf("encode the paths: %w", err)
	}
	return &document{head: text, names: names}, nil
}

func (h *v2Head) add(r route) {
	item := map[string]any{}
	if len(r.params) > 0 {
		item["parameters"] = h.shared(nil, r.params)
	}
	for _, o := range r.ops {
		op := v2Operation{
			Description: o.description, Consumes: o.consumes, Produces: o.produces, Schemes: []string{"https"},
			Tags: []string{o.tag}, ID: o.id, Action: o.action, Kind: kindJSON(o.kind),
			Responses: map[string]v2Response{"401": {Description: "Unauthorized"}},
		}
		if o.body != "" {
			op.Parameters = append(op.Parameters, v2Param{
				Name: "body", In: "body", Required: !o.bodyOptional, Schema: &ref{v2Refs + o.body},
			})
		}
		op.Parameters = h.shared(op.Parameters, o.params)
		for _, code := range o.codes {
			resp := v2Response{Description: codeText(code), Schema: textSchema{"string"}}
			if o.result != "" {
				resp.Schema = ref{v2Refs + o.result}
			}
			op.Responses[code] = resp
		}
		item[o.method] = op
	}
	h.Paths[r.path] = item
}

// shared refers to parameters, which the document holds once each: without
// this their descriptions would make up most of it.
func (h *v2Head) shared(list []any, params []parameter) []any {
	for _, p := range params {
		sum := sha256.Sum256([]byte(p.in + "\x00" + p.typ + "\x00" + p.description))
		key := p.name + "-" + hex.EncodeToString(sum[:4])
		h.Parameters[key] = v2Param{
			Name: p.name, In: p.in, Description: p.description, Required: p.required(), Type: p.typ, UniqueItems: true,
		}
		list = append(list, ref{"#/parameters/" + key})
	}
	return list
}
