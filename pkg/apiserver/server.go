package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/streaming/pkg/httpstream"

	"coracle/pkg/apiserver/fairness"
	"coracle/pkg/audit"
	"coracle/pkg/auth"
	"coracle/pkg/registry"
)

// Config is what a Server is made of. Registry, Authenticator and Authorizer
// are required.
type Config struct {
	Registry *registry.Registry
	// Authenticator finds out who sent a request.
	Authenticator auth.Authenticator
	// Authorizer decides on every request. Rules answers
	// SelfSubjectRulesReviews.
	Authorizer auth.Authorizer
	Rules      auth.RuleResolver
	// Tokens issues and reviews service account tokens; nil serves neither
	// serviceaccounts/token nor TokenReview.
	Tokens Tokens
	// Handlers serve further subresources, by "pods/log" (resource in
	// schema.GroupResource's form, a slash, the subresource).
	Handlers map[string]Handler
	// OpenAPI serves /openapi/...; nil serves none.
	OpenAPI http.Handler
	// Aggregated tells of the group versions that other servers serve: the same
	// pointer until something changes. Nil where nothing is aggregated.
	Aggregated func() *Aggregated
	// Collectors add to what /metrics shows.
	Collectors []prometheus.Collector
	// Fairness lets requests in, by flow schemas and priority levels. Nil bounds
	// the requests served at once, streams left out, by MaxReading and MaxMutating;
	// 0 means 400 and 200. Further ones are answered 429.
	Fairness                *fairness.Controller
	MaxReading, MaxMutating int
	// Paths are further non-resource paths (OIDC discovery).
	Paths map[string]http.Handler
	// Checks are named conditions of /readyz and /livez.
	Checks []Check
	// Components are the parts of the control plane that componentstatuses tells
	// of; Live has no meaning there.
	Components []Check
	// Profiling serves Go's profiles below /debug/pprof to who may see them.
	Profiling bool
	// Audit records who asked for what; nil records nothing. Its owner runs it,
	// until no request is under way any more.
	Audit *audit.Log
	// Version is what /version says.
	Version version.Info
	// RequestTimeout bounds requests that are no watches or streams; 0 means
	// 60 s.
	RequestTimeout time.Duration
	Log            *slog.Logger
}

// Check is one condition of the health endpoints.
type Check struct {
	Name string
	// Live checks count for /livez as well; the others for /readyz only.
	Live bool
	// Check returns nil when the condition holds.
	Check func(ctx context.Context) error
}

// Server is the API over HTTP.
type Server struct {
	cfg      Config
	decoder  *registry.Decoder // of the table's kinds
	plain    *registry.Decoder // of kinds that subresources take
	handlers map[string]Handler
	disco    atomic.Pointer[discovery] // of the table that was served last
	inflight *inflight
	watchers watchers
	metrics  *serverMetrics
	buffers  buffers
	profiles http.Handler // nil without Profiling
}

// New makes a Server. It starts nothing.
func New(cfg Config) (*Server, error) {
	if cfg.Registry == nil || cfg.Authenticator == nil || cfg.Authorizer == nil {
		return nil, fmt.Errorf("an API server needs a registry, an authenticator and an authorizer")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.RequestTimeout == 0 {
		cfg.RequestTimeout = 60 * time.Second
	}
	s := &Server{
		cfg:      cfg,
		decoder:  registry.NewDecoder(cfg.Registry.Table().Scheme()),
		plain:    registry.NewDecoder(subresourceScheme()),
		inflight: newInflight(cfg.MaxReading, cfg.MaxMutating),
	}
	var err error
	if s.metrics, err = newMetrics(&s.cfg, s.inflight); err != nil {
		return nil, fmt.Errorf("set up metrics: %w", err)
	}
	if cfg.Profiling {
		s.profiles = profiling()
	}
	s.handlers = s.ownHandlers()
	for name, h := range cfg.Handlers {
		s.handlers[name] = h
	}
	return s, nil
}

func (s *Server) now() time.Time { return s.cfg.Registry.Now() }

// discovery describes the present table. It is made when it is asked for.
func (s *Server) discovery() *discovery {
	table, state := s.cfg.Registry.Table(), s.aggregated()
	if d := s.disco.Load(); d != nil && d.table == table && d.state == state {
		return d
	}
	d := newDiscovery(table, state)
	s.disco.Store(d)
	return d
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.serve(w, r, s.authenticate)
}

// serve handles one request of the user that authenticate finds.
func (s *Server) serve(writer http.ResponseWriter, r *http.Request, authenticate func(*http.Request) (*auth.User, error)) {
	w := &recorder{ResponseWriter: writer}
	info := parseRequest(r)
	info.backend = s.backend(&info)
	began, counted, stream := time.Now(), s.seriesOf(r, &info), longRunning(r, &info)
	if stream {
		defer counted.stream()()
	}
	defer func() {
		counted.done(w.code, w.size, time.Since(began), stream)
		s.endAudit(w, &info)
	}()
	defer s.recoverPanic(w, r)
	id := r.Header.Get("Audit-ID")
	if id == "" || len(id) > maxAuditID {
		id = string(uuid.NewUUID())
	}
	h := w.Header()
	h.Set("Audit-Id", id)
	h.Set("X-Content-Type-Options", "nosniff")

	info.series, info.auditID, info.received = counted, id, began
	ctx := withInfo(withWarnings(r.Context(), h), &info)
	if !stream {
		timeout, err := s.timeout(r)
		if err != nil {
			WriteError(w, err)
			return
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	ctx, err := s.identify(r.WithContext(ctx), &info, authenticate)
	if r.ProtoMajor == 2 && unknown(ctx) {
		// Streams are cheap to open and to reset: who is nobody gets one, and a
		// connection of its own for the next (CVE-2023-44487).
		h.Set("Connection", "close")
	}
	if err != nil {
		WriteError(w, err)
		return
	}
	auditBodies(w, r, &info, stream)
	s.dispatch(w, r.WithContext(ctx), &info)
}

// unknown says that nobody knows who sent a request.
func unknown(ctx context.Context) bool {
	user, ok := auth.UserFrom(ctx)
	return !ok || user.InGroup(auth.GroupUnauthenticated)
}

// maxAuditID bounds an identifier that a client gives its request.
const maxAuditID = 128

// timeout is how long a request may take: what it asks for, within the
// server's own bound.
func (s *Server) timeout(r *http.Request) (time.Duration, error) {
	asked := r.URL.Query().Get("timeout")
	if asked == "" {
		return s.cfg.RequestTimeout, nil
	}
	d, err := time.ParseDuration(asked)
	if err != nil {
		return 0, apierrors.NewBadRequest("invalid timeout specified in the request URL - " + err.Error())
	}
	if d <= 0 {
		return s.cfg.RequestTimeout, nil
	}
	return min(d, s.cfg.RequestTimeout), nil
}

// identify finds out who sent a request and whether they may; the context
// returned knows the user.
func (s *Server) identify(r *http.Request, info *requestInfo, authenticate func(*http.Request) (*auth.User, error)) (context.Context, error) {
	user, err := authenticate(r)
	if lost := s.beginAudit(r, info, user); lost != nil {
		return r.Context(), lost
	}
	if user != nil && user.Remark != nil {
		info.remark = user.Remark
	}
	if info.remark != nil {
		passOn(r.Context(), info)
	}
	if err != nil {
		return r.Context(), err
	}
	requestor := user
	if user, err = s.impersonate(r, user); err != nil {
		return auth.WithUser(r.Context(), requestor), err
	}
	if user != requestor {
		info.audit.Impersonate(user)
	}
	ctx := auth.WithUser(r.Context(), user)
	asked := info.attributes(user, r)
	if err := s.authorize(ctx, asked); err != nil {
		return ctx, err
	}
	if info.opensStream() {
		asked.Verb = "create"
		return ctx, s.authorize(ctx, asked)
	}
	return ctx, nil
}

// dispatch serves a request that is allowed, when there is a place for it.
func (s *Server) dispatch(w http.ResponseWriter, r *http.Request, info *requestInfo) {
	if user, ok := auth.UserFrom(r.Context()); ok {
		if !s.enter(w, r, info, user) {
			return
		}
		defer info.seat.leave()
	}
	switch {
	case info.backend != nil:
		serveAggregated(w, r, info.backend)
	case info.resource:
		if err := s.serveResource(w, r, info); err != nil {
			WriteError(w, err)
		}
	default:
		s.servePath(w, r)
	}
}

// recoverPanic answers a request whose handler panicked, and logs the panic:
// the client sees nothing of it.
func (s *Server) recoverPanic(w http.ResponseWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	if rec, ok := w.(*recorder); ok {
		rec.panicked = true
	}
	s.cfg.Log.Error("a request handler panicked", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", stack())
	WriteError(w, apierrors.NewInternalError(fmt.Errorf("the request could not be served, the server's log says why")))
}

// longRunning requests have no deadline: watches, and streams to and from
// containers.
func longRunning(r *http.Request, info *requestInfo) bool {
	if info.verb == "watch" || info.backend != nil && httpstream.IsUpgradeRequest(r) {
		return true
	}
	switch info.subresource {
	case "exec", "attach", "portforward", "proxy":
		return true
	case "log":
		return r.URL.Query().Get("follow") == "true"
	}
	return false
}

func (s *Server) authenticate(r *http.Request) (*auth.User, error) {
	began := time.Now()
	user, ok, err := s.cfg.Authenticator.Authenticate(r.Context(), r)
	s.metrics.access.authenticated(user, ok, err, time.Since(began))
	if err != nil {
		s.cfg.Log.Info("a request was not authenticated", "path", r.URL.Path, "reason", err.Error())
		noteRefusal(r.Context(), err)
	}
	if err != nil || !ok {
		return nil, apierrors.NewUnauthorized("Unauthorized")
	}
	return user, nil
}

// impersonate returns the user that the request's Impersonate headers name,
// if user may.
func (s *Server) impersonate(r *http.Request, user *auth.User) (*auth.User, error) {
	as, err := auth.Impersonate(r.Context(), r.Header, user, s.cfg.Authorizer)
	if err != nil || as == nil {
		return user, err
	}
	return as, nil
}

func (s *Server) authorize(ctx context.Context, a auth.Attributes) error {
	began := time.Now()
	decision, reason, err := s.cfg.Authorizer.Authorize(ctx, a)
	s.metrics.access.authorized(decision, err, time.Since(began))
	if note := annotator(ctx); note != nil {
		allowed := "forbid"
		if decision == auth.Allow {
			allowed = "allow"
		}
		note("authorization.k8s.io/decision", allowed)
		note("authorization.k8s.io/reason", reason)
	}
	if decision == auth.Allow {
		return nil
	}
	if err != nil {
		s.cfg.Log.Warn("authorization was decided without all it needs", "error", err)
	}
	if !a.ResourceRequest {
		forbidden := apierrors.NewForbidden(schema.GroupResource{}, "", nil)
		forbidden.ErrStatus.Message = "forbidden: " + a.Forbidden(reason)
		return forbidden
	}
	resource := schema.GroupResource{Group: a.APIGroup, Resource: a.Resource}
	return apierrors.NewForbidden(resource, a.Name, fmt.Errorf("%s", a.Forbidden(reason)))
}

// servePath serves everything outside the API groups.
func (s *Server) servePath(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimSuffix(r.URL.Path, "/")
	if h, ok := s.cfg.Paths[path]; ok {
		h.ServeHTTP(w, r)
		return
	}
	switch {
	case path == "/version" && r.Method != http.MethodGet && r.Method != http.MethodHead:
		WriteError(w, pathMethodNotSupported())
	case path == "/version":
		writeJSON(w, s.cfg.Version)
	case path == "/healthz" || path == "/livez" || path == "/readyz" ||
		strings.HasPrefix(path, "/livez/") || strings.HasPrefix(path, "/readyz/") || strings.HasPrefix(path, "/healthz/"):
		s.serveHealth(w, r)
	case path == "/metrics":
		s.metrics.handler.ServeHTTP(w, r)
	case strings.HasPrefix(path, "/openapi/") && s.cfg.OpenAPI != nil:
		s.cfg.OpenAPI.ServeHTTP(w, r)
	case s.cfg.Fairness != nil && strings.HasPrefix(path, fairnessPath):
		s.serveFairness(w, r, strings.TrimPrefix(path, fairnessPath))
	case s.profiles != nil && profiled(path):
		s.profiles.ServeHTTP(w, r)
	case path == "" && r.Method == http.MethodGet:
		writeJSON(w, map[string][]string{"paths": s.discovery().paths(s.cfg.OpenAPI != nil)})
	default:
		if !s.discovery().serve(w, r, path) {
			WriteError(w, notFoundPath())
		}
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		WriteError(w, apierrors.NewInternalError(err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	writeAll(w, body)
}

// warnings collects what goes into Warning headers. It is bounded, since the
// headers are.
type warnings struct {
	mu     sync.Mutex
	header http.Header     // guarded by mu
	seen   map[string]bool // guarded by mu; made with the first
	size   int             // guarded by mu
}

const maxWarningBytes = 4 << 10

func withWarnings(ctx context.Context, h http.Header) context.Context {
	return context.WithValue(ctx, warningsKey, &warnings{header: h})
}

// warner returns a function that adds a Warning header (code 299, RFC 7234).
func warner(ctx context.Context) func(string) {
	ws, ok := ctx.Value(warningsKey).(*warnings)
	if !ok {
		return func(string) {}
	}
	return func(text string) {
		ws.mu.Lock()
		defer ws.mu.Unlock()
		if ws.seen[text] || ws.size+len(text) > maxWarningBytes {
			return
		}
		if ws.seen == nil {
			ws.seen = map[string]bool{}
		}
		ws.seen[text] = true
		ws.size += len(text)
		ws.header.Add("Warning", "299 - "+quoteWarning(text))
	}
}

// quoteWarning makes a quoted-string of RFC 7230 without control characters.
func quoteWarning(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case unicode.IsControl(c): // also those above ASCII, for which clients refuse it
			b.WriteByte(' ')
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
