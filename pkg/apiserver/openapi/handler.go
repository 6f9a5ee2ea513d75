package openapi

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
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
	tables  func() *resource.Table
	remotes func() *Remotes // never nil
	version string
	data    []byte // the compressed catalog
	digest  [sha256.Size]byte

	mu sync.Mutex
	// table is what all below describes. Guarded by mu, as is all below.
	table *resource.Table
	// sections are the names of the v3 documents.
	sections map[string]bool
	// kept is the size of the bodies that describe custom resources.
	kept    int
	catalog weak.Pointer[catalog] // guarded by mu; kept while the collector lets it
	hashes  map[string]string     // guarded by mu; by section, "" is v2
	bodies  map[bodyKey]*body     // guarded by mu
	index   *body                 // guarded by mu; the list of v3 documents
	// others are what index lists of other servers. Guarded by mu.
	others *Remotes
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

// maxKept bounds the bodies that are kept of documents with custom resources;
// beyond, such a document is made anew for each client that does not have it.
const maxKept = 4 << 20

// New makes a handler for the kinds of the table that tables returns at the
// moment. info is what the documents give as their version. Nothing is built
// yet.
func New(tables func() *resource.Table, info version.Info) *Handler {
	none := &Remotes{}
	return &Handler{
		tables: tables, remotes: func() *Remotes { return none }, version: info.GitVersion, data: embedded, digest: sha256.Sum256(embedded),
		hashes: map[string]string{}, bodies: map[bodyKey]*body{},
	}
}

// Remotes are the documents that other servers have, or other parts of this
// one. They do not change.
type Remotes struct {
	// Sections are those of version 3, by name: apis/GROUP/VERSION.
	Sections map[string]Remote
}

// Remote is a document of another server.
type Remote struct {
	// URL is its address in the list of documents, with a hash where the other
	// server tells one.
	URL string
	// Handler serves it.
	Handler http.Handler
}

// Join adds documents of other servers: those that remotes returns at the
// moment, the same pointer until something changes. Where one has the name of a
// document of this server's, it counts. Join is called before the first request.
func (h *Handler) Join(remotes func() *Remotes) { h.remotes = remotes }

// follow makes the handler describe the present table: what is not about its
// literal kinds is forgotten. h.mu is held.
func (h *Handler) follow() {
	table := h.tables()
	if h.table == table {
		return
	}
	var base map[string]bool
	if h.table != nil {
		base = map[string]bool{}
		for _, name := range sectionNames(table.Base()) {
			base[name] = len(customsOf(table, name)) == 0 && len(customsOf(h.table, name)) == 0
		}
	}
	maps.DeleteFunc(h.hashes, func(section string, _ string) bool { return !base[section] })
	maps.DeleteFunc(h.bodies, func(key bodyKey, _ *body) bool { return !base[key.section] })
	h.table, h.index, h.kept, h.sections = table, nil, 0, map[string]bool{}
	for _, name := range sectionNames(table) {
		h.sections[name] = true
	}
}

// has says whether there is a document of this name.
func (h *Handler) has(section string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.follow()
	return h.sections[section]
}

// load returns the catalog. h.mu is held.
func (h *Handler) load() (*catalog, error) {
	c := h.catalog.Value()
	if c == nil {
		var err error
		if c, err = loadCatalog(h.data); err != nil {
			return nil, err
		}
		h.catalog = weak.Make(c)
	}
	return c.with(h.table), nil
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
		// The catalog, the head and the generations of definitions decide on all
		// of the document.
		sum := sha256.New()
		sum.Write(h.digest[:])
		sum.Write(d.head)
		for _, res := range customsOf(h.table, section) {
			fmt.Fprintf(sum, "\n%s", res.Custom.ID)
		}
		h.hashes[section] = hex.EncodeToString(sum.Sum(nil))
	}
	return d, nil
}

// body returns a document that is ready to be sent.
func (h *Handler) body(section string, asProto bool) (*body, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.follow()
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
	b, err := pack(h.hashes[section], func(w io.Writer) error {
		if asProto {
			return d.encodeProto(w, c, h.table, section != "")
		}
		return d.encodeJSON(w, c, h.table, section != "")
	})
	if err != nil {
		return nil, err
	}
	if len(customsOf(h.table, section)) > 0 {
		if h.kept+len(b.gzipped) > maxKept {
			return b, nil
		}
		h.kept += len(b.gzipped)
	}
	h.bodies[key] = b
	return b, nil
}

// list returns the list of v3 documents with their hashes.
func (h *Handler) list() (*body, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.follow()
	others := h.remotes()
	if h.index != nil && h.others == others {
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
	for section, remote := range others.Sections {
		paths[section] = entry{remote.URL}
	}
	text, err := json.Marshal(map[string]any{"paths": paths})
	if err != nil {
		return nil, fmt.Errorf("encode the list of documents: %w", err)
	}
	sum := sha256.Sum256(text)
	h.others = others
	h.index, err = pack(hex.EncodeToString(sum[:]), func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
	return h.index, err
}

func hashedURL(section, hash string) string {
	return "/openapi/v3/" + section + "?hash=" + hash
}

// pack compresses what write writes: a document may be far larger than its
// compressed form, which alone is kept.
func pack(hash string, write func(io.Writer) error) (*body, error) {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	counted := &counter{w: z}
	if err := write(counted); err != nil {
		return nil, fmt.Errorf("make a document: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compress a document: %w", err)
	}
	return &body{gzipped: bytes.Clone(buf.Bytes()), size: counted.n, hash: hash}, nil
}

// counter counts what passes through.
type counter struct {
	w io.Writer
	n int
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += n
	return n, err
}

func (d *document) encodeJSON(w io.Writer, c *catalog, table *resource.Table, v3 bool) error {
	buf := bufio.NewWriter(w)
	before, after := []byte(`,"definitions":`), "}"
	if v3 {
		schemes, err := v3Security()
		if err != nil {
			return err
		}
		before, after = append(schemes, `,"schemas":`...), "}}"
	}
	for _, part := range [][]byte{d.head[:len(d.head)-1], before} {
		if _, err := buf.Write(part); err != nil {
			return err
		}
	}
	if err := c.writeJSON(buf, table, d.names, v3); err != nil {
		return err
	}
	if _, err := buf.WriteString(after); err != nil {
		return err
	}
	return buf.Flush()
}

// v3Security begins the components of a v3 document.
func v3Security() ([]byte, error) {
	schemes, err := json.Marshal(security())
	if err != nil {
		return nil, fmt.Errorf("encode the security schemes: %w", err)
	}
	return fmt.Appendf(nil, `,"components":{"securitySchemes":%s`, schemes), nil
}

func (d *document) encodeProto(w io.Writer, c *catalog, table *resource.Table, v3 bool) error {
	var doc proto.Message
	var err error
	if v3 {
		schemes, schemesErr := v3Security()
		if schemesErr != nil {
			return schemesErr
		}
		doc, err = openapi_v3.ParseDocument(slices.Concat(d.head[:len(d.head)-1], schemes, []byte("}}")))
	} else {
		doc, err = openapi_v2.ParseDocument(d.head)
	}
	if err != nil {
		return fmt.Errorf("turn the paths into protobuf: %w", err)
	}
	text, err := proto.Marshal(doc)
	if err != nil {
		return fmt.Errorf("encode the paths as protobuf: %w", err)
	}
	definitions, err := c.proto(table, d.names, v3)
	if err != nil {
		return err
	}
	_, err = w.Write(append(text, definitions...))
	return err
}
