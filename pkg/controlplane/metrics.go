package controlplane

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"coracle/pkg/admission"
	"coracle/pkg/audit"
	"coracle/pkg/metrics"
	"coracle/pkg/resource"
	"coracle/pkg/storage"
)

// partMetrics are those of the parts that the API server does not know of itself:
// storage, admission and the clients of this process. Names and labels are
// kube-apiserver's.
type partMetrics struct {
	storage       *prometheus.HistogramVec // operation, group, resource
	storageCount  *prometheus.CounterVec
	storageErrors *prometheus.CounterVec
	step          *prometheus.HistogramVec // type, operation, rejected
	plugin        *prometheus.HistogramVec // name, type, operation, rejected
	requests      *prometheus.CounterVec   // code, method, host
	latency       *prometheus.HistogramVec // verb, host
	size          prometheus.Collector     // nil when the backend has none to tell
	webhooks      webhookMetrics

	paths map[string]*resource.Resource // by storage path; read-only
	// What the vectors of storage made, resolved.
	storedHandles metrics.Handles[storedKey, storedMetrics]
}

// storageBuckets are kube-apiserver's for requests to the store.
var storageBuckets = []float64{.005, .025, .05, .1, .2, .4, .6, .8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60}

func newMetrics(table *resource.Table, backend storage.Backend) *partMetrics {
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	admitted := []float64{.005, .025, .1, .5, 1, 2.5}
	m := &partMetrics{
		storage:       histogram("etcd_request_duration_seconds", "Time that the store took.", storageBuckets, "operation", "group", "resource"),
		storageCount:  counter("etcd_requests_total", "Requests to the store.", "operation", "group", "resource"),
		storageErrors: counter("etcd_request_errors_total", "Requests to the store that failed.", "operation", "group", "resource"),
		step:          histogram("apiserver_admission_step_admission_duration_seconds", "Time that all of admission took.", admitted, "type", "operation", "rejected"),
		plugin:        histogram("apiserver_admission_controller_admission_duration_seconds", "Time that one plugin took.", admitted, "name", "type", "operation", "rejected"),
		requests:      counter("rest_client_requests_total", "Requests of the roles in this process.", "code", "method", "host"),
		latency: histogram("rest_client_request_duration_seconds", "Time until requests of the roles in this process were answered.",
			[]float64{.005, .025, .1, .25, .5, 1, 2, 4, 8, 15, 30, 60}, "verb", "host"),
		webhooks: newWebhookMetrics(),
		paths:    map[string]*resource.Resource{},
	}
	for _, res := range table.All() {
		if res.Stored() {
			m.paths[res.StoragePath] = res
		}
	}
	if sized, ok := backend.(interface {
		Size(context.Context) (int64, error)
	}); ok {
		m.size = storageSize{sized.Size}
	}
	return m
}

func (m *partMetrics) collectors() []prometheus.Collector {
	out := append([]prometheus.Collector{m.storage, m.storageCount, m.storageErrors, m.step, m.plugin, m.requests, m.latency}, m.webhooks.collectors()...)
	if m.size != nil {
		out = append(out, m.size)
	}
	return out
}

// auditMetrics count the events of the audit log, by kube-apiserver's names.
func auditMetrics(log *audit.Log) []prometheus.Collector {
	if log == nil {
		return nil
	}
	counter := func(name, help string, value func() int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	return []prometheus.Collector{
		counter("apiserver_audit_event_total", "Events of the audit log.", log.Events),
		counter("apiserver_audit_error_total", "Events that the audit log lost.", log.Dropped),
	}
}

// storageSize asks the store for its size when metrics are read.
type storageSize struct {
	size func(context.Context) (int64, error)
}

var storageSizeDesc = prometheus.NewDesc("apiserver_storage_size_bytes", "Size of the store's file.", []string{"storage_cluster_id"}, nil)

// sizeTimeout bounds how long reading metrics waits for the store.
const sizeTimeout = 2 * time.Second

// Describe implements prometheus.Collector.
func (s storageSize) Describe(ch chan<- *prometheus.Desc) { ch <- storageSizeDesc }

// Collect implements prometheus.Collector.
func (s storageSize) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), sizeTimeout)
	defer cancel()
	if size, err := s.size(ctx); err == nil {
		ch <- prometheus.MustNewConstMetric(storageSizeDesc, prometheus.GaugeValue, float64(size), "etcd-0")
	}
}

// storedKey and storedMetrics: the requests to the store of one kind.
type storedKey struct {
	operation string
	res       *resource.Resource // nil for other keys
}

type storedMetrics struct {
	time          prometheus.Observer
	count, errors prometheus.Counter
}

// stored counts a request to the store.
func (m *partMetrics) stored(operation, key string, took time.Duration, err error) {
	s := m.storedHandles.Get(storedKey{operation, m.resourceOf(key)}, m.newStored)
	s.count.Inc()
	s.time.Observe(took.Seconds())
	var conflict *storage.ConflictError
	if err != nil && !errors.Is(err, storage.ErrNotFound) && !errors.As(err, &conflict) {
		s.errors.Inc()
	}
}

func (m *partMetrics) newStored(k storedKey) *storedMetrics {
	var group, name string
	if k.res != nil {
		group, name = k.res.Group, k.res.Plural
	}
	return &storedMetrics{
		m.storage.WithLabelValues(k.operation, group, name), m.storageCount.WithLabelValues(k.operation, group, name),
		m.storageErrors.WithLabelValues(k.operation, group, name),
	}
}

// resourceOf finds the kind of a storage key, nil if it is none of ours.
func (m *partMetrics) resourceOf(key string) *resource.Resource {
	rest, ok := strings.CutPrefix(key, "/registry/")
	if !ok {
		return nil
	}
	first := strings.IndexByte(rest, '/')
	if first < 0 {
		return m.paths[rest]
	}
	if second := strings.IndexByte(rest[first+1:], '/'); second >= 0 {
		if res, ok := m.paths[rest[:first+1+second]]; ok {
			return res
		}
	}
	return m.paths[rest[:first]]
}

// admitted is an admission.Observer.
func (m *partMetrics) admitted(plugin string, phase admission.Phase, op admission.Operation) func(rejected bool, took time.Duration) {
	s := &admittedSeries{m: m, plugin: plugin, phase: phase, op: op}
	return s.observe
}

// admittedSeries are the series of one plugin in a phase of an operation; the
// name is empty for a phase. There is none before the first request.
type admittedSeries struct {
	m                  *partMetrics
	plugin             string
	phase              admission.Phase
	op                 admission.Operation
	accepted, rejected atomic.Pointer[prometheus.Observer]
}

func (s *admittedSeries) observe(rejected bool, took time.Duration) {
	series := &s.accepted
	if rejected {
		series = &s.rejected
	}
	o := series.Load()
	if o == nil {
		o = new(s.resolve(rejected))
		series.Store(o)
	}
	(*o).Observe(took.Seconds())
}

func (s *admittedSeries) resolve(rejected bool) prometheus.Observer {
	labels := []string{string(s.phase), string(s.op), strconv.FormatBool(rejected)}
	if s.plugin == "" {
		return s.m.step.WithLabelValues(labels...)
	}
	return s.m.plugin.WithLabelValues(append([]string{s.plugin}, labels...)...)
}

// client counts the requests that go through a transport.
func (m *partMetrics) client(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		began := time.Now()
		resp, err := next.RoundTrip(r)
		code := "<error>"
		if err == nil {
			code = strconv.Itoa(resp.StatusCode)
		}
		m.requests.WithLabelValues(code, r.Method, r.URL.Host).Inc()
		m.latency.WithLabelValues(r.Method, r.URL.Host).Observe(time.Since(began).Seconds())
		return resp, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
