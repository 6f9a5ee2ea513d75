package apiserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// stream is an open watch in JSON.
type stream struct {
	t    *testing.T
	resp *http.Response
	dec  *json.Decoder
}

// streamEvent is one event with what tests look at.
type streamEvent struct {
	Type   string
	Object json.RawMessage
	object
}

// object is the part of an object that tests look at.
type object struct {
	Kind, APIVersion string
	Metadata         metav1.ObjectMeta
	Data             texts
	Code             int32
	Reason           metav1.StatusReason
}

// texts are a ConfigMap's data; other kinds' data are of no interest here.
type texts map[string]string

func (d *texts) UnmarshalJSON(b []byte) error {
	m := map[string]string{}
	if json.Unmarshal(b, &m) == nil {
		*d = m
	}
	return nil
}

func (e *streamEvent) revision(t *testing.T) int64 {
	t.Helper()
	n, err := strconv.ParseInt(e.Metadata.ResourceVersion, 10, 64)
	if err != nil {
		t.Fatalf("event %s %s: %v", e.Type, e.Object, err)
	}
	return n
}

// watch opens a watch that must succeed; it ends with the test.
func (s *server) watch(t *testing.T, path string, headers ...header) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*patience)
	resp, err := s.http.RoundTrip(request(ctx, t, http.MethodGet, path, nil, headers...))
	if err != nil {
		cancel()
		t.Fatalf("watch %s: %v", path, err)
	}
	t.Cleanup(func() { cancel(); closeIt(t, resp.Body) })
	if resp.StatusCode != http.StatusOK {
		body, err := io.ReadAll(resp.Body)
		t.Fatalf("watch %s: %d %s (%v)", path, resp.StatusCode, body, err)
	}
	return &stream{t: t, resp: resp, dec: json.NewDecoder(resp.Body)}
}

// next is the next event, which must come.
func (w *stream) next() *streamEvent {
	w.t.Helper()
	e, err := w.read()
	if err != nil {
		w.t.Fatalf("the watch ended: %v", err)
	}
	return e
}

func (w *stream) read() (*streamEvent, error) {
	w.t.Helper()
	e := &streamEvent{}
	if err := w.dec.Decode(e); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(e.Object, &e.object); err != nil {
		w.t.Fatalf("the object of an event is not JSON: %v: %s", err, e.Object)
	}
	return e, nil
}

// want reads the next event and checks its type and name.
func (w *stream) want(kind, name string) *streamEvent {
	w.t.Helper()
	e := w.next()
	if e.Type != kind || e.Metadata.Name != name {
		w.t.Fatalf("event %s %s, want %s of %s", e.Type, e.Object, kind, name)
	}
	return e
}

// wantEnd checks that the stream ends cleanly without another event.
func (w *stream) wantEnd() {
	w.t.Helper()
	e, err := w.read()
	if !errors.Is(err, io.EOF) {
		w.t.Fatalf("got event %+v and error %v, want the end", e, err)
	}
}
