package apiserver

import (
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"coracle/pkg/storage/cache"
)

// stallLimit is how long a client may take nothing of a list, or of the state
// that a watch begins with, before it is given up: until then it holds a
// snapshot in memory.
const stallLimit = time.Minute

// stream writes a list piece by piece. An item that cannot be encoded is a 500
// while nothing has been sent, and breaks the answer off afterwards: a list
// that lacks an item must not look whole.
func (s *Server) stream(w http.ResponseWriter, rep representation, form *listForm, items []*cache.Object) {
	out := &chunkWriter{w: w, rep: rep, size: form.size, buffers: &s.buffers, buf: s.buffers.chunk()}
	defer out.close()
	*out.buf = append(*out.buf, form.head...)
	for i, o := range items {
		if i > 0 {
			*out.buf = append(*out.buf, form.sep...)
		}
		var err error
		if *out.buf, err = form.item(*out.buf, o); err != nil {
			s.cfg.Log.Error("an object of a list cannot be encoded", "key", o.Key, "error", err)
			if out.begun {
				panic(http.ErrAbortHandler)
			}
			WriteError(w, apierrors.NewInternalError(err))
			return
		}
		if len(*out.buf) >= chunkBytes && !out.flush() {
			return
		}
	}
	*out.buf = append(*out.buf, form.tail...)
	out.end()
}

// chunkWriter writes an answer of 200 in chunks.
type chunkWriter struct {
	w       http.ResponseWriter
	rep     representation
	size    int // of the whole body, -1 when not known
	buffers *buffers
	buf     *[]byte
	zip     *gzip.Writer // nil when the answer is not compressed
	begun   bool         // the header is out
}

func (c *chunkWriter) begin() {
	c.begun = true
	h := c.w.Header()
	h.Set("Content-Type", string(c.rep.media))
	h.Set("Cache-Control", "no-cache, private")
	switch {
	case c.rep.gzip && len(*c.buf) >= chunkBytes:
		compressed(h)
		c.zip = c.buffers.zip(c.w)
	case c.size >= 0:
		h.Set("Content-Length", strconv.Itoa(c.size))
	}
	c.w.WriteHeader(http.StatusOK)
}

// flush writes what is buffered; false means that the client has gone.
func (c *chunkWriter) flush() bool {
	if !c.begun {
		c.begin()
	}
	limitWrites(c.w, time.Now().Add(stallLimit))
	var out io.Writer = c.w
	if c.zip != nil {
		out = c.zip
	}
	_, err := out.Write(*c.buf)
	*c.buf = (*c.buf)[:0]
	return err == nil
}

// limitWrites sets a deadline on the writes that follow; the zero time sets
// none. The in-memory transport knows none: its bodies end with their request.
func limitWrites(w http.ResponseWriter, t time.Time) {
	if err := http.NewResponseController(w).SetWriteDeadline(t); err != nil {
		return
	}
}

// end writes the rest. What is small enough to be here as a whole has a length.
func (c *chunkWriter) end() {
	if !c.begun && (!c.rep.gzip || len(*c.buf) < chunkBytes) {
		c.size = len(*c.buf)
	}
	if !c.flush() || c.zip == nil {
		return
	}
	if err := c.zip.Close(); err != nil {
		return // the client has gone
	}
}

func (c *chunkWriter) close() {
	if c.begun {
		limitWrites(c.w, time.Time{}) // a connection of HTTP/1 serves further requests
	}
	if c.zip != nil {
		c.buffers.putZip(c.zip)
	}
	c.buffers.putChunk(c.buf)
}
