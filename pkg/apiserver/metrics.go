package apiserver

import (
	"bufio"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apimachinery/pkg/version"

	"coracle/pkg/metrics"
	"coracle/pkg/registry"
	"coracle/pkg/resource"
)

// serverMetrics are what /metrics shows, under the names and labels of
// kube-apiserver. Every label has few values whatever clients send: names that
// the table does not know are left empty (CVE-2020-8552).
type serverMetrics struct {
	handler http.Handler

	terminations *prometheus.CounterVec
	deprecated   *prometheus.GaugeVec
	access       *accessMetrics

	series  metrics.Handles[seriesKey, series]
	watches metrics.Handles[watchKey, watchSeries]
}

func newMetrics(cfg *Config, f *inflight) (*serverMetrics, error) {
	m := &serverMetrics{
		terminations: counterVec("apiserver_request_terminations_total", "Requests refused because the server was busy.", append(requestLabels[:len(requestLabels):len(requestLabels)], "code")),
		deprecated: gaugeVec("apiserver_requested_deprecated_apis", "Deprecated APIs that were used.",
			append(kindLabels[:len(kindLabels):len(kindLabels)], "subresource", "removed_release")),
		access: newAccessMetrics(),
	}
	gatherer := prometheus.NewRegistry()
	all := append([]prometheus.Collector{
		newSeriesCollector(m), m.terminations, m.deprecated,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		storedObjects{cfg.Registry}, inflightGauge("readOnly", &f.reading), inflightGauge("mutating", &f.mutating), buildInfo(cfg.Version),
	}, m.access.collectors()...)
	if cfg.Fairness != nil {
		all = append(all, cfg.Fairness.Metrics())
	}
	for _, c := range append(all, cfg.Collectors...) {
		if err := gatherer.Register(c); err != nil {
			return nil, err
		}
	}
	m.handler = promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
	return m, nil
}

func counterVec(name, help string, labels []string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func gaugeVec(name, help string, labels []string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
}

func histogramVec(name, help string, buckets []float64, labels []string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
}

// buildInfo is the version as a metric whose value is always 1.
func buildInfo(v version.Info) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "kubernetes_build_info", Help: "The version of the server.",
		ConstLabels: prometheus.Labels{
			"major": v.Major, "minor": v.Minor, "git_version": v.GitVersion, "git_commit": v.GitCommit, "git_tree_state": v.GitTreeState,
			"build_date": v.BuildDate, "go_version": v.GoVersion, "compiler": v.Compiler, "platform": v.Platform,
		},
	}, func() float64 { return 1 })
}

func inflightGauge(kind string, count *atomic.Int64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "apiserver_current_inflight_requests", Help: "Requests under way, streams left out.",
		ConstLabels: prometheus.Labels{"request_kind": kind},
	}, func() float64 { return float64(count.Load()) })
}

// storedObjects tells of the watch cache when asked.
type storedObjects struct{ registry *registry.Registry }

var (
	storageObjectsDesc  = prometheus.NewDesc("apiserver_storage_objects", "Stored objects by resource.", []string{"resource"}, nil)
	resourceObjectsDesc = prometheus.NewDesc("apiserver_resource_objects", "Stored objects by resource.", []string{"group", "resource"}, nil)
	watchersDesc        = prometheus.NewDesc("apiserver_registered_watchers", "Watchers by kind.", []string{"group", "version", "kind"}, nil)
	cacheRevisionDesc   = prometheus.NewDesc("apiserver_watch_cache_resource_version", "The revision that the watch cache has.", []string{"group", "resource"}, nil)
)

// Describe implements prometheus.Collector.
func (c storedObjects) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{storageObjectsDesc, resourceObjectsDesc, watchersDesc, cacheRevisionDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c storedObjects) Collect(ch chan<- prometheus.Metric) {
	resources := map[string]*resource.Resource{}
	for _, res := range c.registry.Table().All() {
		resources[registry.Prefix(res, "")] = res
	}
	for _, s := range c.registry.Cache().Stats() {
		res, ok := resources[s.Prefix]
		if !ok {
			continue
		}
		gauge := func(d *prometheus.Desc, v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
		}
		gauge(storageObjectsDesc, float64(s.Objects), res.GroupResource().String())
		gauge(resourceObjectsDesc, float64(s.Objects), res.Group, res.Plural)
		gauge(watchersDesc, float64(s.Watchers), res.Group, res.Version, res.Kind)
		gauge(cacheRevisionDesc, float64(s.Revision), res.Group, res.Plural)
	}
}

// recorder remembers what a handler answered with.
type recorder struct {
	http.ResponseWriter
	code int
	size int // bytes of the body

	// For the audit log: what it has to say of failures, the bodies that it
	// records, nil where it does not, and who is told that an answer begins.
	reason, message   string
	panicked          bool
	request, response *bounded
	requestMedia      string // the type of request
	started           func(code int)
}

// begins tells the audit log, once, that the answer begins.
func (r *recorder) begins() {
	if started := r.started; started != nil && r.code >= http.StatusSwitchingProtocols && r.code != http.StatusProcessing && r.code != http.StatusEarlyHints {
		r.started = nil
		started(r.code)
	}
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(code int) {
	if r.code == 0 || r.code < http.StatusOK {
		r.code = code
	}
	r.begins()
	r.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(b []byte) (int, error) {
	if r.code == 0 {
		r.code = http.StatusOK
		r.begins()
	}
	if r.response != nil {
		r.response.Write(b)
	}
	n, err := r.ResponseWriter.Write(b)
	r.size += n
	return n, err
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
		r.begins()
	}
	return conn, rw, err
}
