package h2

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// bufferedBytes is how much of an answer is kept back: one that ends within
// goes out whole.
const bufferedBytes = 16 << 10

// response is the http.ResponseWriter of a stream. Its handler alone uses it.
type response struct {
	st     *stream
	header http.Header
	status int
	said   bool // WriteHeader was called
	sent   bool // the headers are out
	ended  bool // the handler has returned
	closes bool // the connection shall end with its streams
	typed  bool // a Content-Type is set, or there is no telling from the bytes
	dated  bool
	length int64 // that the handler declared, -1 when not
	size   int64 // of the body so far
	buf    []byte
	fields []hpack.HeaderField
	trails []string // trailers that were announced
}

var (
	_ http.Flusher = (*response)(nil)
	_ interface {
		FlushError() error
		SetReadDeadline(time.Time) error
		SetWriteDeadline(time.Time) error
		EnableFullDuplex() error
		WriteString(string) (int, error)
	} = (*response)(nil)
)

func (w *response) begin(st *stream, k *worker) {
	*w = response{st: st, header: make(http.Header, 8), length: -1, buf: k.buf, fields: k.fields}
}

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(code int) {
	if w.said || w.ended {
		return
	}
	if code < 100 || code > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", code))
	}
	if code < 200 {
		w.inform(code)
		return
	}
	w.said, w.status = true, code
	w.fields = append(w.fields, statusField(code))
	for k, values := range w.header {
		w.note(k, values)
	}
}

// inform sends an answer that is not the last one.
func (w *response) inform(code int) {
	fields := []hpack.HeaderField{statusField(code)}
	for k, values := range w.header {
		if k != "Content-Length" && k != "Transfer-Encoding" {
			fields = appendFields(fields, k, values)
		}
	}
	c := w.st.c
	c.mu.Lock()
	if w.st.err == nil {
		c.putHeaders(w.st, fields, false)
	}
	c.flush()
}

// note takes a header into those that are sent, as it is now.
func (w *response) note(key string, values []string) {
	switch key {
	case "Content-Length":
		n, err := strconv.ParseUint(strings.Join(values, ","), 10, 63)
		if err != nil {
			return
		}
		w.length = int64(n)
	case "Content-Type", "Content-Encoding":
		w.typed = true
	case "Date":
		w.dated = true
	case "Trailer":
		for _, v := range values {
			for name := range strings.SplitSeq(v, ",") {
				w.announce(strings.TrimSpace(name))
			}
		}
	case "Connection":
		w.closes = slices.Contains(values, "close")
		return
	case "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade":
		return
	}
	w.fields = appendFields(w.fields, key, values)
}

func (w *response) announce(trailer string) {
	if trailer = http.CanonicalHeaderKey(trailer); httpguts.ValidTrailerHeader(trailer) && !slices.Contains(w.trails, trailer) {
		w.trails = append(w.trails, trailer)
	}
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) { return write(w, p) }

// WriteString implements io.StringWriter.
func (w *response) WriteString(s string) (int, error) { return write(w, s) }

func write[B []byte | string](w *response, p B) (int, error) {
	if w.ended {
		return 0, errHandlerEnded
	}
	w.WriteHeader(http.StatusOK)
	if !bodyAllowed(w.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if w.size += int64(len(p)); w.length >= 0 && w.size > w.length {
		return 0, http.ErrContentLength
	}
	if len(w.buf)+len(p) <= bufferedBytes {
		w.buf = append(w.buf, p...)
		return len(p), nil
	}
	c := w.st.c
	c.mu.Lock()
	err := w.put([]byte(p))
	c.flush()
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// put sends what was kept back and more. c.mu is held.
func (w *response) put(more []byte) error {
	if w.st.err != nil {
		return w.st.err
	}
	if !w.sent {
		first := w.buf
		if len(first) == 0 {
			first = more
		}
		w.complete(first)
		w.st.c.putHeaders(w.st, w.fields, false)
	}
	if w.head() {
		return nil
	}
	if err := w.st.putData(w.buf, false); err != nil {
		return err
	}
	w.buf = w.buf[:0]
	return w.st.putData(more, false)
}

// complete adds the headers that the server knows, as the answer goes out that
// begins with these bytes. c.mu is held.
func (w *response) complete(body []byte) {
	w.sent, w.st.expect = true, false
	if !w.typed && bodyAllowed(w.status) && len(body) > 0 {
		w.fields = append(w.fields, hpack.HeaderField{Name: "content-type", Value: http.DetectContentType(body)})
	}
	if !w.dated {
		w.fields = append(w.fields, hpack.HeaderField{Name: "date", Value: w.st.c.server.date(time.Now())})
	}
	if w.closes {
		w.st.c.leave(http2.ErrCodeNo)
	}
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.FlushError() } // who wants to know calls that

// FlushError is for http.ResponseController.
func (w *response) FlushError() error {
	if w.ended {
		return errHandlerEnded
	}
	w.WriteHeader(http.StatusOK)
	c := w.st.c
	c.mu.Lock()
	err := w.put(nil)
	c.flush()
	return err
}

// SetReadDeadline is for http.ResponseController.
func (w *response) SetReadDeadline(t time.Time) error {
	return w.st.setTimer(&w.st.readTimer, t, w.st.expireBody)
}

// SetWriteDeadline is for http.ResponseController. The stream is reset then.
func (w *response) SetWriteDeadline(t time.Time) error {
	return w.st.setTimer(&w.st.writeTimer, t, w.st.expire)
}

// EnableFullDuplex is for http.ResponseController: streams always are.
func (w *response) EnableFullDuplex() error { return nil }

// finish sends the rest of the answer and ends the stream.
func (w *response) finish() {
	w.WriteHeader(http.StatusOK)
	w.ended = true
	st, c := w.st, w.st.c
	trailers := w.trailers()
	c.mu.Lock()
	if st.err == nil && !w.sent {
		if whole := w.size == int64(len(w.buf)); w.length < 0 && whole && bodyAllowed(w.status) && (w.size > 0 || !w.head()) {
			w.fields = append(w.fields, lengthField(len(w.buf)))
		}
		w.complete(w.buf)
		end := len(trailers) == 0 && (len(w.buf) == 0 || w.head())
		c.putHeaders(st, w.fields, end)
		if end {
			w.conclude()
			return
		}
	}
	if w.head() {
		w.buf = w.buf[:0]
	}
	err := st.err
	if err == nil {
		err = st.putData(w.buf, len(trailers) == 0)
	}
	if err == nil && len(trailers) > 0 {
		c.putHeaders(st, trailers, true)
	}
	w.conclude()
}

// head says that the answer has no body, although the handler may write one.
func (w *response) head() bool { return w.st.request.Method == http.MethodHead }

// conclude forgets the stream, whose end is among what is pending. It is called
// with c.mu held and releases it.
func (w *response) conclude() {
	st, c := w.st, w.st.c
	if st.err == nil {
		if !st.whole { // the rest of the body is not needed
			c.pending = appendReset(c.queue(), st.id, http2.ErrCodeNo)
		}
		c.drop(st, errHandlerEnded)
	}
	c.done()
	c.flush()
}

// trailers are the headers that were announced as such and set meanwhile, and
// those with http.TrailerPrefix.
func (w *response) trailers() []hpack.HeaderField {
	var fields []hpack.HeaderField
	for _, k := range w.trails {
		fields = appendFields(fields, k, w.header[k])
	}
	for k, values := range w.header {
		if name, ok := strings.CutPrefix(k, http.TrailerPrefix); ok && httpguts.ValidTrailerHeader(http.CanonicalHeaderKey(name)) {
			fields = appendFields(fields, name, values)
		}
	}
	return fields
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// putHeaders appends the frames of headers, or of trailers. c.mu is held.
func (c *conn) putHeaders(st *stream, fields []hpack.HeaderField, end bool) {
	c.block.Reset()
	for i := range fields {
		_ = c.encoder.WriteField(fields[i]) // into a buffer
	}
	c.pending = appendHeaders(c.queue(), st.id, c.block.Bytes(), end, c.frame)
}

// putData appends the frames of a part of the body, as the client has room for
// it. c.mu is held, but not while it waits.
func (st *stream) putData(p []byte, end bool) error {
	c := st.c
	for len(p) > 0 || end {
		n := int(max(0, min(int64(len(p)), int64(c.frame), st.room, c.room)))
		if n == 0 && len(p) > 0 || len(c.pending) > maxPending {
			if !st.short {
				st.short = true
				c.short = append(c.short, st)
			}
			c.kick()
			st.cond.Wait()
			if st.err != nil {
				return st.err
			}
			continue
		}
		last, flags := n == len(p), http2.Flags(0)
		if last && end {
			flags = http2.FlagDataEndStream
		}
		c.pending = append(appendFrame(c.queue(), http2.FrameData, flags, st.id, n), p[:n]...)
		p = p[n:]
		st.room -= int64(n)
		c.room -= int64(n)
		if last {
			return nil
		}
	}
	return nil
}

func statusField(code int) hpack.HeaderField {
	text := ""
	switch code {
	case http.StatusOK:
		text = "200"
	case http.StatusCreated:
		text = "201"
	default:
		text = strconv.Itoa(code)
	}
	return hpack.HeaderField{Name: ":status", Value: text}
}

func lengthField(n int) hpack.HeaderField {
	return hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(n), Sensitive: true}
}

// appendFields appends a header as it goes out. Values that are another for each
// request are kept out of the table of header compression, where they would
// displace what comes again.
func appendFields(fields []hpack.HeaderField, key string, values []string) []hpack.HeaderField {
	name, unique := lower(key), false
	switch name {
	case "":
		return fields
	case "audit-id", "content-length", "location", "etag":
		unique = true
	}
	for _, v := range values {
		if httpguts.ValidHeaderFieldValue(v) {
			fields = append(fields, hpack.HeaderField{Name: name, Value: v, Sensitive: unique})
		}
	}
	return fields
}

// lower is a header's name as HTTP/2 has it, empty when it is none.
func lower(key string) string {
	switch key {
	case "Audit-Id":
		return "audit-id"
	case "Cache-Control":
		return "cache-control"
	case "Content-Length":
		return "content-length"
	case "Content-Type":
		return "content-type"
	case "Strict-Transport-Security":
		return "strict-transport-security"
	case "X-Content-Type-Options":
		return "x-content-type-options"
	case "X-Kubernetes-Pf-Flowschema-Uid":
		return "x-kubernetes-pf-flowschema-uid"
	case "X-Kubernetes-Pf-Prioritylevel-Uid":
		return "x-kubernetes-pf-prioritylevel-uid"
	}
	if name := strings.ToLower(key); httpguts.ValidHeaderFieldName(name) {
		return name
	}
	return ""
}
