package apiserver

import (
	"bytes"
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
func (s *Server) serveWatch(w http.ResponseWriter, r *http.Request, sv served, req registry.Request) error {
	rep, err := sv.negotiate(r)
	if err != nil {
		return err
	}
	if rep.media == registry.YAML {
		return notAcceptable()
	}
	opts, err := listOptions(r, sv, s.now())
	if err != nil {
		return err
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
		return err
	}
	defer watcher.Close()
	if opts.Fields == nil || opts.Fields.Empty() {
		defer s.watchers.add(watchScope{sv.res.Group, sv.res.Plural, req.Namespace})()
	}
	stream := &watchStream{sink: newHTTPSink(w, rep), sv: sv, rep: rep, buffers: &s.buffers, legacy: opts.LegacyInitial(), now: s.now, counted: s.metrics.watched(sv)}
	stream.initial = opts.Initial()
	defer stream.begins(r)()
	if wantsWebSocket(r) {
		socket, watched, end, err := openSocket(w, r, ctx, rep)
		if err != nil {
			return nil // it was answered
		}
		defer end()
		stream.sink, ctx = socket, watched
	}
	defer unblock(ctx, stream.sink)()
	if !stream.sink.begin() {
		return nil
	}
	stream.run(ctx, watcher)
	if stream.timeUp && opts.Bookmarks && !stream.initial && r.Context().Err() == nil {
		stream.last(watcher.Bookmark())
	}
	return nil
}

// begins has the watch leave its place as soon as it has sent the state that it
// begins with: from then on it costs what happens, not what is there. The
// function returned ends that.
func (s *watchStream) begins(r *http.Request) (end func()) {
	info, ok := r.Context().Value(infoKey).(*requestInfo)
	if !ok {
		return func() {}
	}
	if !s.initial {
		info.seat.leave()
		return func() {}
	}
	s.complete = info.seat.leave
	timer := time.AfterFunc(watchBegins, info.seat.leave)
	return func() { timer.Stop() }
}

// lastWrite is how long a stream whose time is up may still write.
const lastWrite = 5 * time.Second

// unblock ends the writes to a client that takes nothing when the time of its
// watch is up. The result must be called before the handler returns.
func unblock(ctx context.Context, to sink) (done func()) {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		to.limit(time.Now().Add(lastWrite))
	})
	return func() {
		if !stop() {
			<-ended
		}
		to.limit(time.Time{}) // a connection of HTTP/1 serves further requests
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

// sink takes the frames of one watch to its client. False means that the client
// has gone.
type sink interface {
	begin() bool
	// send passes on whole frames; slow allows only so much time for it.
	send(frames []byte, slow bool) bool
	// perFrame says that each send must be one frame.
	perFrame() bool
	// limit sets a deadline on the writes from now on. Unlike all else it may be
	// called while another goroutine sends.
	limit(t time.Time)
}

// httpSink streams frames in the body of an answer.
type httpSink struct {
	w     http.ResponseWriter
	flush *http.ResponseController
	media string
	// limited says that a deadline is set on writes.
	limited bool
}

func newHTTPSink(w http.ResponseWriter, rep representation) *httpSink {
	media := string(rep.media)
	if rep.media == registry.Protobuf {
		media += ";stream=watch"
	}
	return &httpSink{w: w, flush: http.NewResponseController(w), media: media}
}

func (s *httpSink) begin() bool {
	h := s.w.Header()
	h.Set("Content-Type", s.media)
	h.Set("Cache-Control", "no-cache, private")
	s.w.WriteHeader(http.StatusOK)
	return s.flush.Flush() == nil
}

func (s *httpSink) send(frames []byte, slow bool) bool {
	if slow || s.limited {
		var limit time.Time
		if slow {
			limit = time.Now().Add(stallLimit)
		}
		limitWrites(s.w, limit)
		s.limited = slow
	}
	if _, err := s.w.Write(frames); err != nil {
		return false
	}
	return s.flush.Flush() == nil
}

func (s *httpSink) perFrame() bool { return false }

func (s *httpSink) limit(t time.Time) { limitWrites(s.w, t) }

// watchStream writes one watch to one client.
type watchStream struct {
	sink    sink
	sv      served
	rep     representation
	buffers *buffers
	legacy  bool // the client does not expect the mark that ends initial events
	now     func() time.Time
	rows    bool // a Table with columns was sent
	// initial says that the state the stream begins with is not complete yet.
	initial bool
	// complete is called as it is; may be nil.
	complete func()
	timeUp   bool // the stream ended because its time was up
	// buf holds frames to be sent; nil while there are none, so that a watch
	// that waits costs no buffer.
	buf     *[]byte
	counted *watchSeries
}

// last tells a client whose time is up where to go on.
func (s *watchStream) last(e cache.WatchEvent) {
	if s.event(&e) {
		s.send()
	}
}

// send passes on what is buffered. A client that is gone ends the context.
func (s *watchStream) send() bool {
	if s.buf == nil {
		return true
	}
	buf := s.buf
	s.buf = nil
	defer s.buffers.putSmall(buf)
	return len(*buf) == 0 || s.sink.send(*buf, s.initial)
}

// run sends events as they come: those that wait go out together, in one write
// and one flush.
func (s *watchStream) run(ctx context.Context, watcher *cache.Watcher) {
	for {
		events, err := watcher.Next(ctx)
		if err != nil {
			s.fail(ctx, err)
			return
		}
		for i := range events {
			if !s.event(&events[i]) {
				return
			}
		}
		if !s.send() {
			return
		}
	}
}

// flushBytes bounds what a stream holds before it writes.
const flushBytes = 32 << 10

// event adds one event to the buffer and sends that when it is full. An event
// that cannot be encoded ends the stream.
func (s *watchStream) event(e *cache.WatchEvent) bool {
	if e.Type == cache.Bookmark {
		if s.initial && e.InitialEnd {
			s.initial = false
			if s.complete != nil {
				s.complete()
			}
		}
		if e.InitialEnd && s.legacy {
			return true
		}
	}
	if s.buf == nil {
		s.buf = s.buffers.small()
	}
	grown, err := s.appendEvent(*s.buf, e)
	if err != nil {
		s.broken(err)
		return false
	}
	if e.Type != cache.Bookmark {
		s.counted.sent(len(grown) - len(*s.buf))
	}
	*s.buf = grown
	if len(grown) >= flushBytes || s.sink.perFrame() {
		return s.send()
	}
	return true
}

func (s *watchStream) appendEvent(dst []byte, e *cache.WatchEvent) ([]byte, error) {
	if e.Type == cache.Bookmark {
		body, err := s.sv.bookmark(s.rep, e.Revision.String(), e.InitialEnd)
		return s.appendFrame(dst, "BOOKMARK", body), err
	}
	columns := !s.rows
	s.rows = true
	if s.rep.media != registry.Protobuf {
		if s.rep.as == "" {
			// What many watchers will want is made once and kept.
			if _, err := s.sv.bareJSON(e.Object); err != nil {
				return dst, err
			}
		}
		dst = appendFrameHead(dst, e.Type.String())
		dst, err := s.sv.appendOne(dst, e.Object, s.rep, s.now(), columns)
		return append(dst, "}\n"...), err
	}
	if s.rep.as == "" {
		value, err := s.sv.protobuf(e.Object)
		return s.appendFrame(dst, e.Type.String(), value), err
	}
	body, err := s.sv.appendOne(nil, e.Object, s.rep, s.now(), columns)
	return s.appendFrame(dst, e.Type.String(), body), err
}

func appendFrameHead(dst []byte, kind string) []byte {
	dst = append(dst, `{"type":"`...)
	dst = append(dst, kind...)
	return append(dst, `","object":`...)
}

// appendFrame appends one event: a JSON line, or a length-prefixed
// metav1.WatchEvent in protobuf.
func (s *watchStream) appendFrame(dst []byte, kind string, object []byte) []byte {
	if s.rep.media != registry.Protobuf {
		dst = appendFrameHead(dst, kind)
		dst = append(dst, bytes.TrimRight(object, "\n")...)
		return append(dst, "}\n"...)
	}
	// WatchEvent{type=1, object=2 RawExtension{raw=1}}
	inner := 1 + protowire.SizeBytes(len(object))
	size := 1 + protowire.SizeBytes(len(kind)) + 1 + protowire.SizeBytes(inner)
	dst = binary.BigEndian.AppendUint32(dst, uint32(size))
	dst = protowire.AppendTag(dst, 1, protowire.BytesType)
	dst = protowire.AppendString(dst, kind)
	dst = protowire.AppendTag(dst, 2, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(inner))
	dst = protowire.AppendTag(dst, 1, protowire.BytesType)
	return protowire.AppendBytes(dst, object)
}

// fail ends the stream: silently when its time is up or the server stops,
// with an ERROR event when the client has to list again.
func (s *watchStream) fail(ctx context.Context, err error) {
	if ctx.Err() != nil || errors.Is(err, storage.ErrClosed) || errors.Is(err, cache.ErrKindRemoved) {
		s.timeUp = ctx.Err() != nil
		return
	}
	s.broken(err)
}

// broken sends an error as the last event.
func (s *watchStream) broken(err error) {
	status := StatusOf(registry.ReadError(err, s.sv.res))
	body, encErr := encodeObject(s.rep.media, statusGVK, &status)
	if encErr != nil {
		return
	}
	if s.buf == nil {
		s.buf = s.buffers.small()
	}
	*s.buf = s.appendFrame(*s.buf, "ERROR", body)
	s.send()
}
