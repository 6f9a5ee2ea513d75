package server

import (
	"net/http"
	"slices"
	"strings"
)

// route is one path of the server.
type route struct {
	// pattern is for http.ServeMux, without a method.
	pattern string
	methods []string
	// anonymous routes need no client identity; all others need verb on one of
	// the subresources of nodes, asked in this order.
	anonymous    bool
	verb         string
	subresources []string
	// stream routes have no deadline for the whole answer.
	stream bool
	handle func(s *Server, w http.ResponseWriter, r *http.Request)
}

var (
	reads    = []string{http.MethodGet, http.MethodHead}
	upgrades = []string{http.MethodGet, http.MethodPost}
)

// routes lists everything that the server answers.
func routes() []route {
	// runs makes the route of something that runs in a pod, with and without
	// the pod's UID in the path.
	runs := func(pattern string, handle func(*Server, http.ResponseWriter, *http.Request)) []route {
		r := route{methods: upgrades, verb: "create", subresources: []string{"proxy"}, stream: true, handle: handle}
		plain, withUID := r, r
		plain.pattern = strings.Replace(pattern, "/{uid}", "", 1)
		withUID.pattern = pattern
		return []route{plain, withUID}
	}
	return slices.Concat([]route{
		{pattern: "/healthz", methods: reads, anonymous: true, handle: (*Server).healthz},
		{pattern: "/pods", methods: reads, verb: "get", subresources: []string{"pods", "proxy"}, handle: (*Server).listPods},
		{pattern: "/metrics", methods: reads, verb: "get", subresources: []string{"metrics"}, handle: (*Server).metrics},
		{pattern: "/metrics/resource", methods: reads, verb: "get", subresources: []string{"metrics"}, handle: (*Server).resourceMetrics},
		{pattern: "/stats/summary", methods: reads, verb: "get", subresources: []string{"stats"}, handle: (*Server).summary},
		{pattern: "/containerLogs/{namespace}/{pod}/{container}", methods: reads, verb: "get", subresources: []string{"proxy"},
			stream: true, handle: (*Server).containerLogs},
	},
		runs("/exec/{namespace}/{pod}/{uid}/{container}", (*Server).exec),
		runs("/attach/{namespace}/{pod}/{uid}/{container}", (*Server).attach),
		runs("/portForward/{namespace}/{pod}/{uid}", (*Server).portForward),
	)
}

// Handler answers all routes. The client's certificate, if it has one, must
// have been verified by the TLS connection of the request.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range routes() {
		mux.Handle(rt.pattern, s.serve(rt))
	}
	// What no route answers tells strangers nothing either.
	mux.Handle("/", s.serve(route{pattern: "/", verb: "get", subresources: []string{"proxy"}, methods: reads,
		handle: func(_ *Server, w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }}))
	return mux
}

// serve wraps a route in what all routes have in common.
func (s *Server) serve(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if !rt.anonymous && !s.allowed(w, r, rt) {
			return
		}
		if !slices.Contains(rt.methods, r.Method) {
			w.Header().Set("Allow", strings.Join(rt.methods, ", "))
			http.Error(w, "this path does not know the method "+r.Method, http.StatusMethodNotAllowed)
			return
		}
		if !rt.stream {
			setWriteDeadline(w)
		}
		rt.handle(s, w, r)
	})
}
