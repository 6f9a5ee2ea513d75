package recorder

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"coracle/pkg/storage"
)

// every says yes once in so many calls.
type every struct {
	n  int
	mu sync.Mutex
	at int
}

func (e *every) now() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.at++
	return e.at%e.n == 0
}

// wireEvent is a watch event on the wire.
type wireEvent struct {
	Type   string         `json:"type"`
	Object map[string]any `json:"object"`
}

func (e wireEvent) meta() map[string]any {
	m, _ := e.Object["metadata"].(map[string]any)
	return m
}

func (e wireEvent) revision() string {
	rv, _ := e.meta()["resourceVersion"].(string)
	return rv
}

// bookmarkAt is a bookmark of the same kind as the event.
func (e wireEvent) bookmarkAt(rv string) wireEvent {
	return wireEvent{"BOOKMARK", map[string]any{"kind": e.Object["kind"], "apiVersion": e.Object["apiVersion"],
		"metadata": map[string]any{"resourceVersion": rv}}}
}

// copied is the event with metadata of its own.
func (e wireEvent) copied() wireEvent {
	var c wireEvent
	if err := json.Unmarshal(encode(e), &c); err != nil {
		panic(err)
	}
	return c
}

// streams edits the events of every watch in JSON. open makes the editor of
// one stream; nil leaves it alone.
func streams(open func(r *http.Request) func(wireEvent) []wireEvent) func(string, http.RoundTripper) http.RoundTripper {
	return func(_ string, below http.RoundTripper) http.RoundTripper {
		return trip(func(r *http.Request) (*http.Response, error) {
			resp, err := below.RoundTrip(r)
			if err != nil || r.URL.Query().Get("watch") == "" || resp.StatusCode != http.StatusOK ||
				!strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
				return resp, err
			}
			if edit := open(r); edit != nil {
				resp.Body = &editedStream{ReadCloser: resp.Body, lines: bufio.NewReader(resp.Body), edit: edit}
			}
			return resp, nil
		})
	}
}

type trip func(*http.Request) (*http.Response, error)

func (f trip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type editedStream struct {
	io.ReadCloser
	lines *bufio.Reader
	edit  func(wireEvent) []wireEvent
	ready bytes.Buffer
}

func (s *editedStream) Read(p []byte) (int, error) {
	for s.ready.Len() == 0 {
		line, err := s.lines.ReadBytes('\n')
		if err != nil {
			return 0, err
		}
		var e wireEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return 0, err
		}
		for _, out := range s.edit(e) {
			s.ready.Write(append(encode(out), '\n'))
		}
	}
	return s.ready.Read(p)
}

// answers edits the whole answers in JSON to requests that are no watches.
func answers(edit func(r *http.Request, code int, body map[string]any) map[string]any) func(string, http.RoundTripper) http.RoundTripper {
	return func(_ string, below http.RoundTripper) http.RoundTripper {
		return trip(func(r *http.Request) (*http.Response, error) {
			resp, err := below.RoundTrip(r)
			if err != nil || r.URL.Query().Get("watch") != "" || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
				return resp, err
			}
			data, err := io.ReadAll(resp.Body)
			if err = errors.Join(err, resp.Body.Close()); err != nil {
				return nil, err
			}
			var body map[string]any
			if err := json.Unmarshal(data, &body); err != nil {
				return nil, err
			}
			if out := edit(r, resp.StatusCode, body); out != nil {
				data = encode(out)
			}
			resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
			return resp, nil
		})
	}
}

// asked edits requests before they are sent; an answer replaces the server's.
func asked(edit func(r *http.Request, below http.RoundTripper) *http.Response) func(string, http.RoundTripper) http.RoundTripper {
	return func(_ string, below http.RoundTripper) http.RoundTripper {
		return trip(func(r *http.Request) (*http.Response, error) {
			r = r.Clone(r.Context())
			if resp := edit(r, below); resp != nil {
				return resp, nil
			}
			return below.RoundTrip(r)
		})
	}
}

// status is an answer of a code and a reason.
func status(r *http.Request, code int, reason string) *http.Response {
	body := encode(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason})
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Request: r,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body))}
}

// isList says that a request is a list.
func isList(r *http.Request) bool {
	last := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	return r.Method == http.MethodGet && (last == configMaps || last == nodes) && r.URL.Query().Get("watch") == ""
}

// items are those of a list's body.
func items(body map[string]any) []any {
	list, _ := body["items"].([]any)
	return list
}

func metadata(body any) map[string]any {
	m, _ := body.(map[string]any)
	m, _ = m["metadata"].(map[string]any)
	return m
}

// stores edits the writes to the store, of the workload's objects only.
type stores struct {
	storage.Backend
	put    func(b storage.Backend, key string, value []byte, expect storage.Revision) (storage.Revision, error)
	delete func(b storage.Backend, key string, expect storage.Revision) (storage.Revision, error)
	feed   func(batch *storage.Batch)
	rev    func(storage.Revision) storage.Revision
}

func mine(key string) bool {
	return strings.HasPrefix(key, "/registry/configmaps/ns1") || strings.HasPrefix(key, "/registry/minions/")
}

func (s *stores) Put(ctx context.Context, key string, value []byte, expect storage.Revision, ttl time.Duration) (storage.Revision, error) {
	if s.put == nil || !mine(key) {
		return s.Backend.Put(ctx, key, value, expect, ttl)
	}
	return s.put(s.Backend, key, value, expect)
}

func (s *stores) Delete(ctx context.Context, key string, expect storage.Revision) (storage.Revision, error) {
	if s.delete == nil || !mine(key) {
		return s.Backend.Delete(ctx, key, expect)
	}
	return s.delete(s.Backend, key, expect)
}

func (s *stores) Current(ctx context.Context) (storage.Revision, error) {
	rev, err := s.Backend.Current(ctx)
	if s.rev != nil && err == nil {
		rev = s.rev(rev)
	}
	return rev, err
}

func (s *stores) Watch(ctx context.Context, prefix string, opts storage.WatchOptions) (storage.Watch, error) {
	w, err := s.Backend.Watch(ctx, prefix, opts)
	if err != nil || s.feed == nil {
		return w, err
	}
	return &fed{w, s.feed}, nil
}

type fed struct {
	storage.Watch
	edit func(batch *storage.Batch)
}

func (w *fed) Next(ctx context.Context) (storage.Batch, error) {
	batch, err := w.Watch.Next(ctx)
	if err == nil {
		w.edit(&batch)
	}
	return batch, err
}

// on puts a store's editor before one slot only, or before all when slot is
// empty.
func on(slot string, s stores) func(string, storage.Backend) storage.Backend {
	return func(name string, below storage.Backend) storage.Backend {
		if slot != "" && slot != name {
			return below
		}
		edited := s
		edited.Backend = below
		return &edited
	}
}

// kept remembers answers by URL.
type kept struct {
	mu   sync.Mutex
	body map[string]map[string]any
}

// swap keeps body and returns what was kept before.
func (k *kept) swap(url string, body map[string]any) map[string]any {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.body == nil {
		k.body = map[string]map[string]any{}
	}
	old := k.body[url]
	k.body[url] = body
	return old
}

// currentRevision asks a server for a collection's revision.
func currentRevision(r *http.Request, below http.RoundTripper) (string, error) {
	list := r.Clone(r.Context())
	q := list.URL.Query()
	for _, name := range []string{"watch", "resourceVersion", "timeoutSeconds", "allowWatchBookmarks"} {
		q.Del(name)
	}
	list.URL.RawQuery = q.Encode()
	list.Header.Set("Accept", "application/json")
	resp, err := below.RoundTrip(list)
	if err != nil {
		return "", err
	}
	var body map[string]any
	if err := errors.Join(json.NewDecoder(resp.Body).Decode(&body), resp.Body.Close()); err != nil {
		return "", err
	}
	rv, ok := metadata(body)["resourceVersion"].(string)
	if !ok {
		return "", fmt.Errorf("no resourceVersion in %v", body)
	}
	return rv, nil
}
