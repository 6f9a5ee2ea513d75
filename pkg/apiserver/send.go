package apiserver

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"coracle/pkg/registry"
)

const (
	// gzipFrom is the size from which a body is compressed for clients that
	// accept it: below, time counts more than bytes (upstream's limit).
	gzipFrom = 128 << 10
	// gzipLevel is the fastest, which saves most of what others save.
	gzipLevel = gzip.BestSpeed
)

// acceptsGzip says that the client takes compressed bodies.
func acceptsGzip(r *http.Request) bool {
	for clause := range strings.SplitSeq(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		coding, params, _ := strings.Cut(clause, ";")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			q := strings.ReplaceAll(params, " ", "")
			return q != "q=0" && q != "q=0.0" && q != "q=0.00" && q != "q=0.000"
		}
	}
	return false
}

// send writes an encoded body.
func send(w http.ResponseWriter, code int, rep representation, body []byte) {
	if rep.media == registry.JSON && rep.pretty {
		var buf bytes.Buffer
		if json.Indent(&buf, body, "", "  ") == nil {
			body = buf.Bytes()
		}
	}
	h := w.Header()
	h.Set("Content-Type", string(rep.media))
	h.Set("Cache-Control", "no-cache, private")
	if rep.gzip && len(body) >= gzipFrom {
		sendCompressed(w, code, body)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	writeAll(w, body)
}

func sendCompressed(w http.ResponseWriter, code int, body []byte) {
	compressed(w.Header())
	w.WriteHeader(code)
	z, err := gzip.NewWriterLevel(w, gzipLevel)
	if err != nil {
		return // the level is a constant of the library
	}
	if _, err := z.Write(body); err != nil {
		return // the client has gone
	}
	if err := z.Close(); err != nil {
		return
	}
}

func compressed(h http.Header) {
	h.Set("Content-Encoding", "gzip")
	h.Add("Vary", "Accept-Encoding")
}
