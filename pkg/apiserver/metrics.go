package apiserver

import (
	"bufio"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"coracle/pkg/registry"
)

// metrics are what /metrics shows. Every label has few values whatever
// clients send: names that the table does not know are left empty
// (CVE-2020-8552).
type metrics struct {
	handler  http.Handler
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newMetrics(reg *registry.Registry, f *inflight, more []prometheus.Collector) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total",
			Help: "Requests by verb, resource and answer.",
		}, []string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apiserver_request_duration_seconds",
			Help:    "Time that requests took, streams left out.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"verb", "group", "version", "resource", "subresource", "scope", "component"}),
	}
	gatherer := prometheus.NewRegistry()
	for _, c := range append([]prometheus.Collector{
		m.requests, m.duration, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		storageObjects{reg}, inflightGauge("readOnly", f.reading), inflightGauge("mutating", f.mutating),
	}, more...) {
		if err := gatherer.Register(c); err != nil {
			return nil, err
		}
	}
	m.handler = promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
	return m, nil
}

func inflightGauge(kind string, places chan struct{}) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "apiserver_current_inflight_requests", Help: "Requests under way, streams left out.",
		ConstLabels: prometheus.Labels{"request_kind": kind},
	}, func() float64 { return float64(len(places)) })
}

// storageObjects counts the stored objects of each resource when asked.
type storageObjects struct{ registry *registry.Registry }

var storageObjectsDesc = prometheus.NewDesc("apiserver_storage_objects", "Stored objects by resource.", []string{"resource"}, nil)

// Describe implements prometheus.Collector.
func (c storageObjects) Describe(ch chan<- *prometheus.Desc) { ch <- storageObjectsDesc }

// Collect implements prometheus.Collector.
func (c storageObjects) Collect(ch chan<- prometheus.Metric) {
	names := map[string]string{}
	for _, res := range c.registry.Table().All() {
		names[registry.Prefix(res, "")] = res.GroupResource().String()
	}
	for _, s := range c.registry.Cache().Stats() {
		if name, ok := names[s.Prefix]; ok {
			ch <- prometheus.MustNewConstMetric(storageObjectsDesc, prometheus.GaugeValue, float64(s.Objects), name)
		}
	}
}

// observe counts a request that has been answered.
func (s *Server) observe(r *http.Request, info *requestInfo, code int, took time.Duration) {
	verb := metricVerb(info.verb)
	component, scope, dry := "apiserver", "", ""
	var group, version, res, sub string
	if sv, ok := s.lookup(info); ok && info.resource {
		group, version, res = info.gvr.Group, info.gvr.Version, info.gvr.Resource
		if _, known := sv.res.Subresource(info.subresource); known {
			sub = info.subresource
		}
		scope = metricScope(info)
		if r.URL.Query().Get("dryRun") == "All" {
			dry = "All"
		}
	}
	s.metrics.requests.WithLabelValues(verb, dry, group, version, res, sub, scope, component, strconv.Itoa(code)).Inc()
	if !longRunning(r, info) {
		s.metrics.duration.WithLabelValues(verb, group, version, res, sub, scope, component).Observe(took.Seconds())
	}
}

func metricVerb(verb string) string {
	switch verb {
	case "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "post", "put", "head", "options":
		return strings.ToUpper(verb)
	}
	return "other"
}

func metricScope(info *requestInfo) string {
	switch {
	case info.name != "":
		return "resource"
	case info.namespace != "":
		return "namespace"
	}
	return "cluster"
}

// recorder remembers the code that a handler answered with.
type recorder struct {
	http.ResponseWriter
	code int
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(code int) {
	if r.code == 0 || r.code < http.StatusOK {
		r.code = code
	}
	r.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(b []byte) (int, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Flush implements http.Flusher, and Hijack http.Hijacker, for libraries that
// do not know http.ResponseController.
func (r *recorder) Flush() {
	if err := r.FlushError(); err != nil {
		return // who waits for the answer sees it when more is written
	}
}

// FlushError sends what is buffered.
func (r *recorder) FlushError() error { return http.NewResponseController(r.ResponseWriter).Flush() }

// Hijack gives the connection to the handler.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(r.ResponseWriter).Hijack()
	if err == nil {
		r.code = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}
