package openapi

import (
	"bytes"
	"compress/gzip"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

const (
	v2ProtoType = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	v3ProtoType = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
)

// year is how long a client may keep a document that it asked for by hash.
const year = "31536000"

// ServeHTTP implements http.Handler for GET and HEAD of paths that begin with
// /openapi/.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "the API's description can only be read", http.StatusMethodNotAllowed)
		return
	}
	path := strings.TrimSuffix(r.URL.Path, "/")
	section, isV3 := strings.CutPrefix(path, "/openapi/v3/")
	if remote, ok := h.remotes().Sections[section]; ok && isV3 {
		remote.Handler.ServeHTTP(w, r)
		return
	}
	switch {
	case path == "/openapi/v2":
		h.serve(w, r, "", v2ProtoType)
	case path == "/openapi/v3":
		b, err := h.list()
		if err != nil {
			fail(w, err)
			return
		}
		send(w, r, b, "application/json")
	case isV3 && h.has(section):
		h.serve(w, r, section, v3ProtoType)
	default:
		http.NotFound(w, r)
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, section, protoType string) {
	serveDocument(w, r, section, protoType, func(asProto bool) (*body, error) { return h.body(section, asProto) })
}

// serveDocument answers with the form of a document that the client accepts.
func serveDocument(w http.ResponseWriter, r *http.Request, section, protoType string, form func(asProto bool) (*body, error)) {
	contentType, ok := negotiate(r, protoType)
	if !ok {
		w.Header().Set("Vary", "Accept")
		http.Error(w, "the API's description comes as application/json or "+protoType, http.StatusNotAcceptable)
		return
	}
	b, err := form(contentType == protoType)
	if err != nil {
		fail(w, err)
		return
	}
	if hash := r.URL.Query().Get("hash"); section != "" && hash != "" {
		if hash != b.hash {
			http.Redirect(w, r, hashedURL(section, b.hash), http.StatusMovedPermanently)
			return
		}
		w.Header().Set("Cache-Control", "public, immutable, max-age="+year)
	}
	send(w, r, b, contentType)
}

func fail(w http.ResponseWriter, err error) {
	http.Error(w, "the API's description could not be made: "+err.Error(), http.StatusInternalServerError)
}

// negotiate chooses JSON or protobuf by the Accept header. Clients of old
// spell the protobuf type with an @ before its version.
func negotiate(r *http.Request, protoType string) (string, bool) {
	header := strings.Join(r.Header.Values("Accept"), ",")
	if strings.TrimSpace(header) == "" {
		return "application/json", true
	}
	old := strings.Replace(protoType, ".v1.0", "@v1.0", 1)
	best, bestQ := "", 0.0
	for clause := range strings.SplitSeq(header, ",") {
		media, params, err := mime.ParseMediaType(strings.TrimSpace(clause))
		if err != nil {
			// The @ is not allowed in a media type, so that the old one is no
			// such for the parser.
			name, _, _ := strings.Cut(strings.TrimSpace(clause), ";")
			media = strings.TrimSpace(name)
		}
		q := 1.0
		if s, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(s, 64); err != nil {
				continue
			}
		}
		if q <= bestQ {
			continue
		}
		switch media {
		case "application/json", "application/*", "*/*":
			best, bestQ = "application/json", q
		case protoType, old:
			best, bestQ = protoType, q
		}
	}
	return best, bestQ > 0
}

// send answers with a body, or with 304 when the client has it.
func send(w http.ResponseWriter, r *http.Request, b *body, contentType string) {
	header := w.Header()
	etag := strconv.Quote(b.hash)
	header.Set("Vary", "Accept, Accept-Encoding")
	header.Set("ETag", etag)
	if matches(r.Header.Values("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	header.Set("Content-Type", contentType)
	var content io.Reader = bytes.NewReader(b.gzipped)
	if acceptsGzip(r) {
		header.Set("Content-Encoding", "gzip")
		header.Set("Content-Length", strconv.Itoa(len(b.gzipped)))
	} else {
		header.Set("Content-Length", strconv.Itoa(b.size))
		z, err := gzip.NewReader(content)
		if err != nil {
			fail(w, err)
			return
		}
		content = z
	}
	if r.Method == http.MethodHead {
		return
	}
	if _, err := io.Copy(w, content); err != nil {
		return // the client is gone
	}
}

// matches says whether an If-None-Match header holds etag, of which only the
// content counts (weak comparison).
func matches(headers []string, etag string) bool {
	for _, header := range headers {
		for tag := range strings.SplitSeq(header, ",") {
			tag = strings.TrimSpace(tag)
			if tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
				return true
			}
		}
	}
	return false
}

func acceptsGzip(r *http.Request) bool {
	for _, header := range r.Header.Values("Accept-Encoding") {
		for clause := range strings.SplitSeq(header, ",") {
			name, params, _ := strings.Cut(strings.TrimSpace(clause), ";")
			if strings.TrimSpace(name) == "gzip" {
				q, ok := strings.CutPrefix(strings.TrimSpace(params), "q=")
				value, err := strconv.ParseFloat(q, 64)
				return !ok || err == nil && value > 0
			}
		}
	}
	return false
}
