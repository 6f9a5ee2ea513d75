package openapi

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"weak"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/version"

	"coracle/pkg/resource"
)

// Handler serves /openapi/v2 and /openapi/v3.
type Handler struct {
	table   *resource.Table
	version string
	data    []byte // the compressed catalog
	digest  [sha256.Size]byte
	// sections are the names of the v3 documents.
	sections map[string]bool

	mu      sync.Mutex
	catalog weak.Pointer[catalog] // guarded by mu; kept while the collector lets it
	hashes  map[string]string     // guarded by mu; by section, "" is v2
	bodies  map[bodyKey]*body     // guarded by mu
	index   *body                 // guarded by mu; the list of v3 documents
}

type bodyKey struct {
	section string // "" is v2
	proto   bool
}

// body is a document ready to be sent. It does not change.
type body struct {
	gzipped []byte
	size    int // of the document itself
	hash    string
}

// New makes a handler for the kinds of table. info is what the documents give
// as their version. Nothing is built yet.
func New(table *resource.Table, info version.Info) *Handler {
	h := &Handler{
		table: table, version: info.GitVersion, data: embedded, digest: sha256.Sum256(embedded),
		sections: map[string]bool{}, hashes: map[string]string{}, bodies: map[bodyKey]*body{},
	}
	for _, name := range sectionNames(table) {
		h.sections[name] = true
	}
	return h
}

// load returns the catalog. h.mu is held.
func (h *Handler) load() (*catalog, error) {
	if c := h.catalog.Value(); c != nil {
		return c, nil
	}
	c, err := loadCatalog(h.data)
	if err != nil {
		return nil, err
	}
	h.catalog = weak.Make(c)
	return c, nil
}

// document makes a document without its definitions. h.mu is held.
func (h *Handler) document(c *catalog, section string) (*document, error) {
	var d *document
	var err error
	if section == "" {
		d, err = c.v2(h.table, h.version)
	} else {
		d, err = c.v3(h.table, h.version, section)
	}
	if err != nil {
		return nil, err
	}
	if _, ok := h.hashes[section]; !ok {
		// The catalog and the head decide on all of the document.
		sum := sha256.New()
		sum.Write(h.digest[:])
		sum.Write(d.head)
		h.hashes[section] = hex.EncodeToString(sum.Sum(nil))
	}
	return d, nil
}

// body returns a document that is ready to be sent.
func (h *Handler) body(section string, asProto bool) (*body, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := bodyKey{section, asProto}
	if b, ok := h.bodies[key]; ok {
		return b, nil
	}
	c, err := h.load()
	if err != nil {
		return nil, err
	}
	d, err := h.document(c, section)
	if err != nil {
		return nil, err
	}
	var text []byte
	switch v3 := section != ""; {
	case asProto:
		text, err = d.encodeProto(c, h.table, v3)
	default:
		text, err = d.encodeJSON(c, h.table, v3)
	}
	if err != nil {
		return nil, err
	}
	b, err := pack(text, h.hashes[section])
	if err != nil {
		return nil, err
	}
	h.bodies[key] = b
	return b, nil
}

// list returns the list of v3 documents with their hashes.
func (h *Handler) list() (*body, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.index != nil {
		return h.index, nil
	}
	c, err := h.load()
	if err != nil {
		return nil, err
	}
	type entry struct {
		URL string `json:"serverRelativeURL"`
	}
	paths := map[string]entry{}
	for section := range h.sections {
		if _, ok := h.hashes[section]; !ok {
			if _, err := h.document(c, section); err != nil {
				return nil, err
			}
		}
		paths[section] = entry{hashedURL(section, h.hashes[section])}
	}
	text, err := json.Marshal(map[string]any{"paths": paths})
	if err != nil {
		return nil, fmt.Errorf("encode the list of documents: %w", err)
	}
	sum := sha256.Sum256(text)
	h.index, err = pack(text, hex.EncodeToString(sum[:]))
	return h.index, err
}

func hashedURL(section, hash string) string {
	return "/openapi/v3/" + section + "?hash=" + hash
}

func pack(text []byte, hash string) (*body, error) {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	if _, err := z.Write(text); err != nil {
		return nil, fmt.Errorf("compress a document: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compress a document: %w", err)
	}
	return &body{gzipped: bytes.Clone(buf.Bytes()), size: len(text), hash: hash}, nil
}

func (d *document) encodeJSON(c *catalog, table *resource.Table, v3 bool) ([]byte, error) {
	var buf bytes.Buffer
	buf.Write(d.head[:len(d.head)-1])
	if v3 {
		schemes, err := v3Security()
		if err != nil {
			return nil, err
		}
		buf.Write(schemes)
		buf.WriteString(`,"schemas":`)
	} else {
		buf.WriteString(`,"definitions":`)
	}
	if err := c.writeJSON(&buf, table, d.names, v3); err != nil {
		return nil, err
	}
	if v3 {
		buf.WriteByte('}')
	}
	buf.WriteByte('}')
	return buf.Bytes(), nil
}

// v3Security begins the components of a v3 document.
func v3Security() ([]byte, error) {
	schemes, err := json.Marshal(security())
	if err != nil {
		return nil, fmt.Errorf("encode the security schemes: %w", err)
	}
	return fmt.Appendf(nil, `,"components":{"securitySchemes":%s`, schemes), nil
}

func (d *document) encodeProto(c *catalog, table *resource.Table, v3 bool) ([]byte, error) {
	var doc proto.Message
	var err error
	if v3 {
		schemes, schemesErr := v3Security()
		if schemesErr != nil {
			return nil, schemesErr
		}
		doc, err = openapi_v3.ParseDocument(slices.Concat(d.head[:len(d.head)-1], schemes, []byte("}}")))
	} else {
		doc, err = openapi_v2.ParseDocument(d.head)
	}
	if err != nil {
		return nil, fmt.Errorf("turn the paths into protobuf: %w", err)
	}
	text, err := proto.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode the paths as protobuf: %w", err)
	}
	return append(text, c.proto(table, d.names, v3)...), nil
}
