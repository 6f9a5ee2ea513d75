package apiserver

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/fields"

	"coracle/pkg/registry"
	"coracle/pkg/storage"
	"coracle/pkg/storage/cache"
)

// minWatch is how long a watch without timeoutSeconds lives at least; it ends
// at a random time up to twice that, so that clients do not all come back at
// once.
const minWatch = 30 * time.Minute

// serveWatch streams events until the client goes, the time is up or the
// history is gone, which is the last event then.
func (s *Server) serveWatch(w http.ResponseWriter, r *http.Request, sv served, req registry.Request) {
	rep, ok := negotiate(r, true)
	if !ok || rep.media == registry.YAML {
		WriteError(w, notAcceptable())
		return
	}
	opts, err := listOptions(r, sv, s.now())
	if err != nil {
		WriteError(w, err)
		return
	}
	if req.Name != "" {
		opts.Fields = named(opts.Fields, req.Name)
	}
	timeout := opts.timeout
	if timeout == 0 {
		timeout = minWatch + rand.N(minWatch)
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	watcher, err := s.cfg.Registry.Watch(ctx, req, opts.ListOptions)
	if err != nil {
		WriteError(w, err)
		return
	}
	defer watcher.Close()
	stream := &watchStream{w: w, sv: sv, rep: rep, flush: http.NewResponseController(w), legacy: opts.LegacyInitial(), now: s.now, counted: s.metrics.watched(sv)}
	stream.initial = opts.Initial()
	stream.begin()
	stream.run(ctx, watcher)
	if stream.timeUp && opts.Bookmarks && !stream.initial && r.Context().Err() == nil {
		stream.last(watcher.Bookmark())
	}
}

// named restricts a selector to one object: a watch of a single name.
func named(sel fields.Selector, name string) fields.Selector {
	one := fields.OneTermEqualSelector("metadata.name", name)
	if sel == nil {
		return one
	}
	return fields.AndSelectors(sel, one)
}

// last tells a client whose time is up where to go on.
func (s *watchStream) last(e cache.WatchEvent) {
	if err := s.event(&e); err == nil {
		s.send()
	}
}

// watchStream writes one watch to one client.
type watchStream struct {
	w      http.ResponseWriter
	flush  *http.ResponseController
	sv     served
	rep    representation
	legacy bool // the client does not expect the mark that ends initial events
	now    func() time.Time
	rows   bool // a Table with columns was sent
	// initial says that the state the stream begins with is not complete yet.
	initial bool
	timeUp  bool // the stream ended because its time was up
	counted *watchSeries
	buf     []byte
}

func (s *watchStream) begin() {
	media := string(s.rep.media)
	if s.rep.media == registry.Protobuf {
		media += ";stream=watch"
	}
	h := s.w.Header()
	h.Set("Content-Type", media)
	h.Set("Cache-Control", "no-cache, private")
	s.w.WriteHeader(http.StatusOK)
	s.send()
}

// send passes on what is buffered. A client that is gone ends the context.
func (s *watchStream) send() bool {
	if len(s.buf) > 0 {
		if _, err := s.w.Write(s.buf); err != nil {
			return false
		}
		s.buf = s.buf[:0]
	}
	return s.flush.Flush() == nil
}

func (s *watchStream) run(ctx context.Context, watcher *cache.Watcher) {
	for {
		events, err := watcher.Next(ctx)
		if err != nil {
			s.fail(ctx, err)
			return
		}
		for i := range events {
			if err := s.event(&events[i]); err != nil {
				s.fail(ctx, err)
				return
			}
			if len(s.buf) >= flushBytes && !s.send() {
				return
			}
		}
		if !s.send() {
			return
		}
	}
}

// flushBytes bounds what a stream holds before it writes.
const flushBytes = 64 << 10

func (s *watchStream) event(e *cache.WatchEvent) error {
	if e.Type == cache.Bookmark {
		s.initial = s.initial && !e.InitialEnd
		if e.InitialEnd && s.legacy {
			return nil
		}
		body, err := s.sv.bookmark(s.rep, e.Revision.String(), e.InitialEnd)
		if err != nil {
			return err
		}
		s.frame("BOOKMARK", body)
		return nil
	}
	body, err := s.sv.transformOne(e.Object, s.rep, s.now(), !s.rows)
	if err != nil {
		return err
	}
	s.rows = true
	s.counted.sent(len(body))
	s.frame(e.Type.String(), body)
	return nil
}

// frame appends one event to the buffer: a JSON line, or a length-prefixed
// metav1.WatchEvent in protobuf.
func (s *watchStream) frame(kind string, object []byte) {
	if s.rep.media != registry.Protobuf {
		s.buf = append(s.buf, `{"type":"`...)
		s.buf = append(s.buf, kind...)
		s.buf = append(s.buf, `","object":`...)
		for len(object) > 0 && object[len(object)-1] == '\n' {
			object = object[:len(object)-1]
		}
		s.buf = append(s.buf, object...)
		s.buf = append(s.buf, "}\n"...)
		return
	}
	// WatchEvent{type=1, object=2 RawExtension{raw=1}}
	inner := 1 + protowire.SizeBytes(len(object))
	size := 1 + protowire.SizeBytes(len(kind)) + 1 + protowire.SizeBytes(inner)
	s.buf = binary.BigEndian.AppendUint32(s.buf, uint32(size))
	s.buf = protowire.AppendTag(s.buf, 1, protowire.BytesType)
	s.buf = protowire.AppendString(s.buf, kind)
	s.buf = protowire.AppendTag(s.buf, 2, protowire.BytesType)
	s.buf = protowire.AppendVarint(s.buf, uint64(inner))
	s.buf = protowire.AppendTag(s.buf, 1, protowire.BytesType)
	s.buf = protowire.AppendBytes(s.buf, object)
}

// fail ends the stream: silently when its time is up or the server stops,
// with an ERROR event when the client has to list again.
func (s *watchStream) fail(ctx context.Context, err error) {
	if ctx.Err() != nil || errors.Is(err, storage.ErrClosed) {
		s.timeUp = ctx.Err() != nil
		return
	}
	status := StatusOf(registry.ReadError(err, s.sv.res))
	body, encErr := encodeObject(s.rep.media, statusGVK, &status)
	if encErr != nil {
		return
	}
	s.frame("ERROR", body)
	s.send()
}
