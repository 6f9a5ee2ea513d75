package controllers_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// staleness is how far behind the state is that a stale restart begins with.
	staleness = 1500 * time.Millisecond
	// staleTime is how long it stays so.
	staleTime = 4 * time.Second
)

// gone answers that the version to watch from is compacted.
func gone(r *http.Request) *http.Response {
	const body = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410,"message":"too old"}`
	return &http.Response{
		StatusCode: http.StatusGone, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)),
	}
}

// recording keeps what first lists delivered by watches, and the changes that
// followed, to show them again as an API server does whose cache is behind.
type recording struct {
	cut time.Time // what came later is not shown; set before replay

	mu    sync.Mutex
	tapes map[string]*tape // by path; guarded by mu
}

// tape is one watch from its first list on.
type tape struct {
	header http.Header
	begin  time.Time
	mu     sync.Mutex
	data   []byte      // guarded by mu
	ends   []int       // of data after each read; guarded by mu
	times  []time.Time // of each read; guarded by mu
}

func newRecording() *recording { return &recording{tapes: map[string]*tape{}} }

func (rec *recording) record(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err != nil || r.URL.Query().Get("sendInitialEvents") == "" || resp.StatusCode != http.StatusOK {
			return resp, err
		}
		t := &tape{header: resp.Header.Clone(), begin: time.Now()}
		rec.mu.Lock()
		rec.tapes[r.URL.Path] = t
		rec.mu.Unlock()
		resp.Body = &tapedBody{resp.Body, t}
		return resp, nil
	})
}

type tapedBody struct {
	io.ReadCloser
	tape *tape
}

func (b *tapedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.tape.mu.Lock()
	defer b.tape.mu.Unlock()
	b.tape.data = append(b.tape.data, p[:n]...)
	b.tape.ends = append(b.tape.ends, len(b.tape.data))
	b.tape.times = append(b.tape.times, time.Now())
	return n, err
}

// until returns the whole frames that had come by then, and always the first
// list.
func (t *tape) until(then time.Time) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	size := 0
	for i, end := range t.ends {
		if !t.times[i].After(then) || t.times[i].Sub(t.begin) < 50*time.Millisecond {
			size = end
		}
	}
	if !strings.Contains(t.header.Get("Content-Type"), "protobuf") {
		return t.data[:bytes.LastIndexByte(t.data[:size], '\n')+1]
	}
	whole := 0
	for whole+4 <= size {
		next := whole + 4 + int(binary.BigEndian.Uint32(t.data[whole:]))
		if next > size {
			break
		}
		whole = next
	}
	return t.data[:whole]
}

// replay answers the first list of each path from its tape, and then nothing
// until staleTime has passed; after that the watch goes on with the server.
func (rec *recording) replay(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.URL.Query().Get("sendInitialEvents") == "" {
			return next.RoundTrip(r)
		}
		rec.mu.Lock()
		t := rec.tapes[r.URL.Path]
		delete(rec.tapes, r.URL.Path)
		rec.mu.Unlock()
		if t == nil {
			return next.RoundTrip(r)
		}
		return &http.Response{
			StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r, Header: t.header,
			Body: &staleBody{Reader: bytes.NewReader(t.until(rec.cut)), after: time.After(staleTime), done: r.Context().Done(), closed: make(chan struct{})},
		}, nil
	})
}

// staleBody is a watch that shows nothing new and then ends.
type staleBody struct {
	*bytes.Reader
	after  <-chan time.Time
	done   <-chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (b *staleBody) Read(p []byte) (int, error) {
	if b.Len() > 0 {
		return b.Reader.Read(p)
	}
	select {
	case <-b.after:
	case <-b.done:
	case <-b.closed:
	}
	return 0, io.EOF
}

func (b *staleBody) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}
