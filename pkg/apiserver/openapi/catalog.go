package openapi

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// catalog.gob.gz holds the definitions of every served API type. It is made
// by `go run ./hack/openapi`.
//
//go:embed catalog.gob.gz
var embedded []byte

// Definition describes one API type in each form that documents are made of.
// Its bytes are copied into documents as they are: serving them needs neither
// a JSON nor a protobuf tree.
type Definition struct {
	// Name is the OpenAPI model name: io.k8s.api.core.v1.Pod.
	Name string
	// Refs are the names of the definitions that this one refers to.
	Refs []string
	// Kinds are the kinds that the type is registered under; empty for parts of
	// other types.
	Kinds []schema.GroupVersionKind
	// V2 and V3 are JSON objects, whose references begin with #/definitions/
	// and #/components/schemas/.
	V2, V3 json.RawMessage
	// V2Proto and V3Proto are the same as gnostic's Schema messages.
	V2Proto, V3Proto []byte
}

// maxCatalog bounds the decompressed catalog.
const maxCatalog = 64 << 20

// WriteCatalog encodes definitions for embedding. The same definitions give
// the same bytes.
func WriteCatalog(w io.Writer, defs []Definition) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return fmt.Errorf("compress the catalog: %w", err)
	}
	if err := gob.NewEncoder(z).Encode(defs); err != nil {
		return fmt.Errorf("encode the catalog: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("compress the catalog: %w", err)
	}
	return nil
}

// catalog is the decoded catalog for as long as documents are made of it.
type catalog struct {
	byName map[string]*Definition
	byKind map[schema.GroupVersionKind]string
	// custom are the definitions of custom resources, see with.
	custom map[string]customType
}

// loadCatalog decodes what WriteCatalog wrote.
func loadCatalog(data []byte) (*catalog, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("decompress the catalog of API types: %w", err)
	}
	var defs []Definition
	if err := gob.NewDecoder(io.LimitReader(z, maxCatalog)).Decode(&defs); err != nil {
		return nil, fmt.Errorf("decode the catalog of API types: %w", err)
	}
	c := &catalog{byName: make(map[string]*Definition, len(defs)), byKind: map[schema.GroupVersionKind]string{}}
	for i := range defs {
		c.byName[defs[i].Name] = &defs[i]
		for _, gvk := range defs[i].Kinds {
			c.byKind[gvk] = defs[i].Name
		}
	}
	return c, nil
}
