package apiserver

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"coracle/pkg/apiserver/fairness"
	"coracle/pkg/auth"
	"coracle/pkg/registry"
)

const (
	// maxWait bounds how long a request waits for its seats; most wait for a
	// quarter of their time at the most.
	maxWait = time.Minute
	// watchBegins is how long the beginning of a watch holds its seats: a client
	// that reads slowly keeps them from others no longer.
	watchBegins = 10 * time.Second
)

// seat is what a request holds while it is served: its seats, and its part in
// the count of those under way. The zero value holds nothing.
type seat struct {
	count  *atomic.Int64 // nil when it is not counted
	ticket fairness.Ticket
	left   int32 // accessed atomically
}

// leave gives all back; further calls do nothing. It may be called from any
// goroutine.
func (p *seat) leave() {
	if !atomic.CompareAndSwapInt32(&p.left, 0, 1) {
		return
	}
	if p.count != nil {
		p.count.Add(-1)
	}
	p.ticket.Leave()
}

// The keys of headers that name the flow schema and the priority level of a
// request, in the form that http.Header has them.
const (
	schemaHeader = "X-Kubernetes-Pf-Flowschema-Uid"
	levelHeader  = "X-Kubernetes-Pf-Prioritylevel-Uid"
)

// enter takes a place for a request, waiting for it where requests queue. False
// means that there was none and the client has been told.
//
// Streams to containers take none, and neither do requests that other servers
// serve: one of those that hangs holds up its own clients only.
func (s *Server) enter(w http.ResponseWriter, r *http.Request, info *requestInfo, user *auth.User) bool {
	stream, watch := longRunning(r, info), info.verb == "watch"
	if stream && !watch {
		return true
	}
	if s.cfg.Fairness == nil {
		if stream || info.backend != nil || auth.AnonymousHealth(info.path) {
			return true
		}
		count, err := s.inflight.enter(info.verb, user)
		info.seat.count = count
		return s.entered(w, info, err)
	}
	flow := s.cfg.Fairness.Classify(&fairness.Request{
		User: user, Verb: info.verb, Namespace: info.namespace, Group: info.gvr.Group, Plural: info.gvr.Resource, Sub: info.subresource,
		Path: info.path, Resource: info.resource,
	})
	h := w.Header()
	h[schemaHeader], h[levelHeader] = flow.SchemaUID, flow.LevelUID
	if info.backend != nil {
		return true
	}
	limit := s.cfg.RequestTimeout / 4
	if deadline, ok := r.Context().Deadline(); ok {
		limit = deadline.Sub(info.received) / 4
	}
	ticket, err := s.cfg.Fairness.Enter(r.Context(), flow, user.Name, info.namespace, s.work(flow, r, info), info.received, min(limit, maxWait))
	if refused := (*fairness.Refused)(nil); errors.As(err, &refused) {
		return s.entered(w, info, errTooMany("Too many requests, please try again later.", refused.RetryAfter))
	}
	count, _ := s.inflight.kind(info.verb)
	count.Add(1)
	info.seat.ticket, info.seat.count = ticket, count
	return true
}

// entered answers a request that found no place.
func (s *Server) entered(w http.ResponseWriter, info *requestInfo, err error) bool {
	if err == nil {
		return true
	}
	info.series.refused(http.StatusTooManyRequests)
	WriteError(w, err)
	return false
}

// work is what a request is expected to cost.
func (s *Server) work(flow *fairness.Flow, r *http.Request, info *requestInfo) fairness.Work {
	one := fairness.Work{Seats: 1}
	if flow.Exempt() || !info.resource {
		return one
	}
	switch info.verb {
	case "list":
		return flow.ListWork(s.objects(r, info))
	case "watch":
		q := r.URL.Query()
		version := q.Get("resourceVersion")
		if begins := version == "" || version == "0"; q.Has("sendInitialEvents") && boolParam(q, "sendInitialEvents") || !q.Has("sendInitialEvents") && begins {
			return flow.ListWork(s.objects(r, info))
		}
	case "create", "update", "patch", "delete":
		if info.subresource == "token" && info.gvr.Resource == "serviceaccounts" {
			return one // nobody is told of it
		}
		return flow.WriteWork(s.watchers.of(info.gvr.Group, info.gvr.Resource, info.namespace))
	}
	return one
}

// objects is how many objects a list goes through.
func (s *Server) objects(r *http.Request, info *requestInfo) int {
	res, ok := s.cfg.Registry.Table().ByGVR(info.gvr)
	if !ok || !res.Stored() || info.name != "" || strings.Contains(r.URL.RawQuery, "metadata.name") {
		return 1
	}
	n := s.cfg.Registry.Cache().Len(registry.Prefix(res, info.namespace))
	if strings.Contains(r.URL.RawQuery, "limit=") && !strings.Contains(r.URL.RawQuery, "Selector=") {
		if limit, err := strconv.Atoi(r.URL.Query().Get("limit")); err == nil && limit > 0 {
			n = min(n, limit)
		}
	}
	return n
}

// watchers counts the watches that are told of every write to a resource, or
// to a resource in a namespace. Those of single objects, or of what a field
// selects, as a node's pods, are not.
type watchers struct {
	mu sync.RWMutex
	n  map[watchScope]int // guarded by mu; none is zero
}

type watchScope struct{ group, resource, namespace string }

// of is how many watches are told of a write.
func (w *watchers) of(group, resource, namespace string) int {
	w.mu.RLock()
	defer w.mu.RUnlock()
	n := w.n[watchScope{group, resource, ""}]
	if namespace != "" {
		n += w.n[watchScope{group, resource, namespace}]
	}
	return n
}

// add counts a watch until the function returned is called.
func (w *watchers) add(scope watchScope) (end func()) {
	w.count(scope, 1)
	return func() { w.count(scope, -1) }
}

func (w *watchers) count(scope watchScope, by int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n == nil {
		w.n = map[watchScope]int{}
	}
	if w.n[scope] += by; w.n[scope] == 0 {
		delete(w.n, scope)
	}
}
