package recorder

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"coracle/pkg/testcluster/history"
)

// pace is how an informer reads.
type pace int

const (
	quick pace = iota
	slow       // a pause after each event
	dead       // nothing is read until the workload has ended
)

// informer follows a scope with lists and watches, as client-go's does, and
// breaks off often.
type informer struct {
	run    *run
	name   string
	random *rand.Rand
	ctx    context.Context
	scope  history.Scope
	pace   pace
	// streams says that the state comes by sendInitialEvents, not by a list.
	streams bool

	pos    int64
	origin history.Origin // of pos; empty when the informer has to begin anew
	last   string         // the server that pos comes from
	// final is where the informer has to get to, 0 before that is known; due is
	// the last revision of an event up to there.
	final, due int64
}

// follow runs until everything of the history has been told. It gives up when
// ctx ends or the end does not come within patience.
func (f *informer) follow() error {
	var deadline time.Time
	for f.final == 0 || f.pos < f.due || f.origin == "" {
		if f.ctx.Err() != nil {
			return nil
		}
		if f.final != 0 {
			if deadline.IsZero() {
				deadline = time.Now().Add(f.run.cfg.Patience)
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s (%s) is at %d and does not reach %d", f.name, f.scope, f.pos, f.due)
			}
		}
		srv := f.run.anyServer(f.random)
		client := srv.json
		if f.random.IntN(2) == 0 {
			client = srv.proto
		}
		if f.final == 0 && f.random.IntN(4) == 0 {
			f.origin = "" // as a new client would
		}
		if f.origin == "" && !f.streams && !f.relist(srv, client) {
			f.rest()
			continue
		}
		if !f.session(srv, client) {
			f.rest()
		}
	}
	return nil
}

// rest keeps an informer without a server from spinning.
func (f *informer) rest() {
	select {
	case <-time.After(2 * time.Millisecond):
	case <-f.ctx.Done():
	}
}

func (f *informer) relist(srv *server, client rest.Interface) bool {
	page := &history.List{Scope: f.scope}
	l := &lister{record: f.run.record, name: f.name, ctx: f.ctx}
	l.page(srv, client, page, options(f.scope))
	if page.Outcome != history.OK {
		return false
	}
	f.pos, f.origin, f.last = page.Revision, history.FromList, srv.name
	f.target()
	return true
}

// target works out which event is the last that must come.
func (f *informer) target() {
	if f.final == 0 {
		return
	}
	f.due = 0
	if due := f.run.truth.Replay(f.scope, f.pos, f.final); len(due) > 0 {
		f.due = due[len(due)-1].Revision
	}
}

// session opens one watch and reads it until one side ends it.
func (f *informer) session(srv *server, client rest.Interface) bool {
	w := &history.Watch{Client: f.name, Server: srv.name, Scope: f.scope, Origin: f.origin, Start: f.pos,
		Bookmarks: f.random.IntN(2) == 0}
	opts := options(f.scope)
	opts.Watch = true
	if f.origin == "" {
		w.Origin, w.Start, w.Bookmarks = history.FromInitial, 0, true
		yes := true
		opts.SendInitialEvents, opts.ResourceVersionMatch = &yes, metav1.ResourceVersionMatchNotOlderThan
	} else {
		if f.origin == history.FromResume && f.last != srv.name {
			w.Origin = history.FromRestart
		}
		opts.ResourceVersion = strconv.FormatInt(f.pos, 10)
	}
	opts.AllowWatchBookmarks = w.Bookmarks
	if f.random.IntN(3) == 0 {
		one := int64(1)
		opts.TimeoutSeconds = &one
	}
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	w.Opened = f.run.record.tick()
	stream, err := in(client.Get(), f.scope, opts).Watch(ctx)
	if err != nil {
		return f.refused(w, err)
	}
	defer stream.Stop()
	f.read(w, srv, stream)
	w.Reached = f.reached(w)
	f.run.record.watch(w)
	return len(w.Events) > 0
}

// reached is the revision up to which the watch is to be judged complete: one
// that was cut off owes nothing.
func (f *informer) reached(w *history.Watch) int64 {
	if f.final != 0 && f.pos < f.due && w.Answered == 0 {
		return f.final
	}
	return 0
}

// refused records the answer to a watch that was no stream.
func (f *informer) refused(w *history.Watch, err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Code >= 500 || status.Status().Code == 0 {
		return false
	}
	w.Refused, w.Answered = int(status.Status().Code), f.run.record.tick()
	f.run.record.watch(w)
	f.origin = ""
	return true
}

// read takes events until the stream ends, the informer has enough, or
// everything has come. It marks a stream that broke as answered.
func (f *informer) read(w *history.Watch, srv *server, stream watch.Interface) {
	leave := -1 // after so many events
	if f.final == 0 && f.random.IntN(2) == 0 {
		leave = 1 + f.random.IntN(60)
	}
	events := stream.ResultChan()
	if f.pace == dead && f.final == 0 {
		events = nil
	}
	initial := w.Origin == history.FromInitial
	finish := f.run.finish
	var late <-chan time.Time
	if f.final != 0 {
		finish, late = nil, time.After(f.run.cfg.Patience)
	}
	for {
		if f.final != 0 && !initial && f.pos >= f.due {
			return
		}
		select {
		case e, ok := <-events:
			if !ok || srv.alive.Err() != nil {
				w.Answered = f.run.record.tick()
				return
			}
			if f.take(w, srv, e, &initial); f.origin == "" && !initial {
				return
			}
			if leave--; leave == 0 && !initial {
				w.Answered = f.run.record.tick()
				return
			}
			f.pause()
		case <-finish:
			f.final = f.run.final
			f.target()
			events, finish, late, leave = stream.ResultChan(), nil, time.After(f.run.cfg.Patience), -1
		case <-late:
			return
		case <-f.ctx.Done():
			w.Answered = f.run.record.tick()
			return
		}
	}
}

func (f *informer) pause() {
	if f.pace == slow && f.final == 0 {
		select {
		case <-time.After(time.Duration(f.random.IntN(4)) * time.Millisecond):
		case <-f.run.finish:
		}
	}
}

// take records one event and moves the position on.
func (f *informer) take(w *history.Watch, srv *server, e watch.Event, initial *bool) {
	ev := history.Event{Seq: f.run.record.tick(), Type: history.EventType(e.Type)}
	switch {
	case e.Type == watch.Error:
		if status, ok := e.Object.(*metav1.Status); ok {
			ev.Code = int(status.Code)
		}
		w.Answered = ev.Seq
		f.origin, *initial = "", false
	case e.Type == watch.Bookmark:
		acc := e.Object.(metav1.Object)
		ev.InitialEnd = acc.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true"
		ev.Revision, ev.Dirty = bookmark(e.Object)
		if ev.InitialEnd {
			*initial = false
		}
	default:
		state, err := stateOf(e.Object)
		if err != nil {
			ev.Type, ev.Code = history.Error, 0
			break
		}
		ev.Version = state.Version
	}
	w.Events = append(w.Events, ev)
	if e.Type != watch.Error && !*initial {
		f.pos, f.origin, f.last = max(f.pos, ev.Revision), history.FromResume, srv.name
		if e.Type == watch.Bookmark && ev.InitialEnd {
			f.pos = ev.Revision
			f.target()
		}
	}
}

// bookmark reads a bookmark; dirty says that it carries more than it may.
func bookmark(obj runtime.Object) (rev int64, dirty bool) {
	o, ok := obj.(protoObject)
	if !ok {
		return 0, true
	}
	rev, err := strconv.ParseInt(o.GetResourceVersion(), 10, 64)
	bare := blank(history.Key{Resource: configMaps})
	if _, node := obj.(*corev1.Node); node {
		bare = blank(history.Key{Resource: nodes})
	}
	if o.GetAnnotations()[metav1.InitialEventsAnnotationKey] != "" {
		bare.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	got, err1 := digest(o)
	want, err2 := digest(bare)
	return rev, errors.Join(err, err1, err2) != nil || got != want
}
