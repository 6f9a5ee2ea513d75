// Package aggregate passes requests for whole group versions on to the servers
// that APIServices name, and knows which of those servers are there.
//
// Contract: a request reaches a backend with the identity that this server
// found out, in X-Remote- headers and under the cluster's front-proxy
// certificate, and without any credential of the client. The backend's
// certificate is verified by the APIService's bundle for SERVICE.NAMESPACE.svc.
// Redirects are refused (CVE-2022-3172), whatever a backend answers is passed on
// in pieces and never held, and each backend has its own places for requests:
// one that hangs, lies or sends without end harms those who ask it and nobody
// else. What this server itself reads of a backend is bounded in size and time.
//
// Whether a backend is available is decided by a pure function of its Service,
// its endpoints and a look at its discovery; the loop around it is one
// goroutine for each APIService that names a Service.
package aggregate

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"reflect"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/utils/clock"

	"coracle/pkg/apiserver"
	"coracle/pkg/apiserver/openapi"
)

// Config is what an Aggregator is made of. All fields but Certificate,
// Beside, BesideOpenAPI and Log are required.
type Config struct {
	// Dial connects to a port of a Service.
	Dial func(ctx context.Context, namespace, service string, port int32) (net.Conn, error)
	// Certificate is the front proxy's, by which backends believe the headers
	// that name a user. Nil shows none.
	Certificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)
	// Service and Slices read what availability is decided by.
	Service func(ctx context.Context, namespace, name string) (*corev1.Service, error)
	Slices  func(ctx context.Context, namespace, service string) ([]*discoveryv1.EndpointSlice, error)
	// SetStatus stores a condition of an APIService, unless it is another one by
	// now.
	SetStatus func(ctx context.Context, s *apiregistrationv1.APIService, c apiregistrationv1.APIServiceCondition) error
	// Beside are group versions that another part of this process serves: there
	// is no hop and nothing that could be away, so that an APIService of the same
	// name changes nothing. May be nil.
	Beside map[schema.GroupVersion]apiserver.AggregatedVersion
	// BesideOpenAPI are the descriptions of those, by section as in
	// openapi.Remotes. May be nil.
	BesideOpenAPI map[string]openapi.Remote
	Clock         clock.WithTicker
	// Rand makes the name by which a request that comes back is known.
	Rand io.Reader
	Log  *slog.Logger
}

// Aggregator follows APIServices. It is safe for concurrent use.
type Aggregator struct {
	cfg   Config
	via   string // by which a request that comes back is known
	count *counter

	state   atomic.Pointer[apiserver.Aggregated]
	openapi atomic.Pointer[openapi.Remotes]

	mu      sync.Mutex
	records map[string]*record // by name; guarded by mu
	// ctx is that of Run, nil before and after; guarded by mu.
	ctx   context.Context
	loops sync.WaitGroup
}

// New makes an Aggregator that knows no APIService. Nothing runs yet.
func New(cfg Config) (*Aggregator, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	id := make([]byte, 8)
	if _, err := io.ReadFull(cfg.Rand, id); err != nil {
		return nil, fmt.Errorf("make the aggregator's name: %w", err)
	}
	a := &Aggregator{cfg: cfg, via: "coracle-" + hex.EncodeToString(id), count: newCounter(), records: map[string]*record{}}
	a.state.Store(&apiserver.Aggregated{Versions: maps.Clone(cfg.Beside)})
	a.openapi.Store(&openapi.Remotes{Sections: cfg.BesideOpenAPI})
	return a, nil
}

// State is what the API server needs to know.
func (a *Aggregator) State() *apiserver.Aggregated { return a.state.Load() }

// OpenAPI are the descriptions that backends serve.
func (a *Aggregator) OpenAPI() *openapi.Remotes { return a.openapi.Load() }

// record is an APIService.
type record struct {
	stored  *apiregistrationv1.APIService // shared, never changed
	backend *backend                      // nil for what this server serves
	kick    chan struct{}                 // one element: look again now
	stop    context.CancelFunc            // ends the record's loop; nil when none runs
	seen    findings                      // of the last look
}

func (r *record) gv() schema.GroupVersion {
	return schema.GroupVersion{Group: r.stored.Spec.Group, Version: r.stored.Spec.Version}
}

// Set takes in an APIService that is there or has changed. It is not kept from
// being shared and must not be changed afterwards.
func (a *Aggregator) Set(s *apiregistrationv1.APIService) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.records[s.Name]
	if r != nil && r.stored.UID == s.UID && reflect.DeepEqual(r.stored.Spec, s.Spec) {
		was := available(r.stored)
		r.stored = s
		if was != available(s) && r.backend != nil {
			r.backend.setAvailable(available(s))
		}
		a.start(r)
		a.publish()
		return
	}
	if r != nil {
		r.end()
	}
	r = &record{stored: s, kick: make(chan struct{}, 1)}
	if s.Spec.Service != nil {
		r.backend = a.newBackend(s)
		r.backend.setAvailable(available(s))
	}
	a.records[s.Name] = r
	a.start(r)
	a.publish()
}

// Delete forgets an APIService.
func (a *Aggregator) Delete(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.records[name]; r != nil {
		r.end()
		delete(a.records, name)
		a.count.forget(name)
		a.publish()
	}
}

// ServiceChanged has the backends behind a Service looked at anew.
func (a *Aggregator) ServiceChanged(namespace, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.records {
		if ref := r.stored.Spec.Service; ref != nil && ref.Namespace == namespace && ref.Name == name {
			r.backend.closeIdle()
			r.look()
		}
	}
}

// Run looks after the conditions of APIServices until ctx ends.
func (a *Aggregator) Run(ctx context.Context) error {
	a.mu.Lock()
	a.ctx = ctx
	for _, r := range a.records {
		a.start(r)
	}
	a.mu.Unlock()
	<-ctx.Done()
	a.mu.Lock()
	a.ctx = nil
	for _, r := range a.records {
		r.end()
	}
	a.mu.Unlock()
	a.loops.Wait()
	return nil
}

// start begins a record's loop, if there is something to do. a.mu is held.
func (a *Aggregator) start(r *record) {
	if a.ctx == nil || r.stop != nil || r.backend == nil && localSettled(r.stored) {
		return
	}
	ctx, cancel := context.WithCancel(a.ctx)
	r.stop = cancel
	a.loops.Go(func() { a.watch(ctx, r) })
}

// end stops what a record has running. a.mu is held.
func (r *record) end() {
	if r.stop != nil {
		r.stop()
		r.stop = nil
	}
	if r.backend != nil {
		r.backend.close()
	}
}

func (r *record) look() {
	select {
	case r.kick <- struct{}{}:
	default: // it will look anyway
	}
}

// publish makes the state that others see. a.mu is held.
func (a *Aggregator) publish() {
	versions := make(map[schema.GroupVersion]apiserver.AggregatedVersion, len(a.records))
	remotes := &openapi.Remotes{Sections: map[string]openapi.Remote{}}
	for _, r := range a.records {
		v := apiserver.AggregatedVersion{GroupPriority: r.stored.Spec.GroupPriorityMinimum, VersionPriority: r.stored.Spec.VersionPriority}
		if r.backend != nil {
			v.Backend, v.Resources = r.backend, r.seen.resources
			v.Stale = !r.seen.fresh || !available(r.stored)
			if r.seen.openAPI != "" {
				remotes.Sections["apis/"+r.gv().String()] = openapi.Remote{URL: r.seen.openAPI, Handler: r.backend.describing()}
			}
		}
		versions[r.gv()] = v
	}
	maps.Copy(versions, a.cfg.Beside)
	maps.Copy(remotes.Sections, a.cfg.BesideOpenAPI)
	if now := a.state.Load(); !sameVersions(now.Versions, versions) {
		a.state.Store(&apiserver.Aggregated{Versions: versions})
	}
	if now := a.openapi.Load(); !maps.EqualFunc(now.Sections, remotes.Sections, func(x, y openapi.Remote) bool { return x.URL == y.URL }) {
		a.openapi.Store(remotes)
	}
}

// sameVersions spares those who follow the state a change that is none.
func sameVersions(a, b map[schema.GroupVersion]apiserver.AggregatedVersion) bool {
	return maps.EqualFunc(a, b, func(x, y apiserver.AggregatedVersion) bool {
		return x.GroupPriority == y.GroupPriority && x.VersionPriority == y.VersionPriority && x.Backend == y.Backend && x.Stale == y.Stale &&
			reflect.DeepEqual(x.Resources, y.Resources)
	})
}

// condition is the present one of an APIService, nil when it has none.
func condition(s *apiregistrationv1.APIService) *apiregistrationv1.APIServiceCondition {
	for i := range s.Status.Conditions {
		if s.Status.Conditions[i].Type == apiregistrationv1.Available {
			return &s.Status.Conditions[i]
		}
	}
	return nil
}

func available(s *apiregistrationv1.APIService) bool {
	c := condition(s)
	return c != nil && c.Status == apiregistrationv1.ConditionTrue
}

// SetCondition puts a condition into a status; the time of the transition
// stays while the condition is what it was.
func SetCondition(status *apiregistrationv1.APIServiceStatus, c apiregistrationv1.APIServiceCondition, now metav1.Time) {
	c.LastTransitionTime = now
	for i := range status.Conditions {
		was := &status.Conditions[i]
		if was.Type != c.Type {
			continue
		}
		if was.Status == c.Status {
			c.LastTransitionTime = was.LastTransitionTime
		}
		*was = c
		return
	}
	status.Conditions = append(status.Conditions, c)
}
