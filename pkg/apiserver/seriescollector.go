package apiserver

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"coracle/pkg/metrics"
)

// What requests and watch events are told apart by in metrics.
var (
	requestLabels = []string{"verb", "group", "version", "resource", "subresource", "scope", "component"}
	kindLabels    = []string{"group", "version", "resource"}
)

// The bounds of histograms, kube-apiserver's. From sliFrom on, those of the
// duration are those of apiserver_request_sli_duration_seconds.
var (
	durationBounds = []float64{.005, .025, .05, .1, .2, .4, .6, .8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60}
	answerBounds   = prometheus.ExponentialBuckets(1000, 10, 7)
	eventBounds    = prometheus.ExponentialBuckets(1024, 2, 8)
)

const sliFrom = 2

// seriesCollector shows the counts of requests and watch events.
type seriesCollector struct {
	metrics                                     *serverMetrics
	requests, duration, sli, sizes, longrunning *prometheus.Desc
	watchEvents, watchSizes                     *prometheus.Desc
}

func newSeriesCollector(m *serverMetrics) *seriesCollector {
	desc := func(name, help string, labels []string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append(labels[:len(labels):len(labels)], more...), nil)
	}
	return &seriesCollector{
		metrics:     m,
		requests:    desc("apiserver_request_total", "Requests by verb, resource and answer.", requestLabels, "dry_run", "code"),
		duration:    desc("apiserver_request_duration_seconds", "Time that requests took, streams left out.", requestLabels, "dry_run"),
		sli:         desc("apiserver_request_sli_duration_seconds", "Time that requests took, streams and dry runs left out.", requestLabels),
		sizes:       desc("apiserver_response_sizes", "Bytes that reads were answered with.", requestLabels),
		longrunning: desc("apiserver_longrunning_requests", "Watches and other streams that are open.", requestLabels),
		watchEvents: desc("apiserver_watch_events_total", "Events sent to watchers.", kindLabels),
		watchSizes:  desc("apiserver_watch_events_sizes", "Bytes of events sent to watchers.", kindLabels),
	}
}

// Describe implements prometheus.Collector.
func (c *seriesCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.requests, c.duration, c.sli, c.sizes, c.longrunning, c.watchEvents, c.watchSizes} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *seriesCollector) Collect(ch chan<- prometheus.Metric) {
	for s := range c.metrics.series.All() {
		labels, dry := s.labels(), ""
		labels = labels[:len(labels):len(labels)]
		if s.key.dry {
			dry = "All"
		}
		for _, code := range s.codes.all() {
			ch <- prometheus.MustNewConstMetric(c.requests, prometheus.CounterValue, float64(code.count.Load()), append(labels, dry, strconv.Itoa(code.code))...)
		}
		show(ch, c.duration, s.duration, 0, append(labels, dry)...)
		if !s.key.dry {
			show(ch, c.sli, s.duration, sliFrom, labels...)
		}
		show(ch, c.sizes, s.sizes, 0, labels...)
		if s.streamed.Load() {
			ch <- prometheus.MustNewConstMetric(c.longrunning, prometheus.GaugeValue, float64(s.open.Load()), labels...)
		}
	}
	for w := range c.metrics.watches.All() {
		labels := []string{w.key.group, w.key.version, w.key.resource}
		ch <- prometheus.MustNewConstMetric(c.watchEvents, prometheus.CounterValue, float64(w.sizes.Count()), labels...)
		show(ch, c.watchSizes, w.sizes, 0, labels...)
	}
}

// show tells of a histogram that counted anything; nil is one that never does.
func show(ch chan<- prometheus.Metric, d *prometheus.Desc, h *metrics.Histogram, first int, labels ...string) {
	if h == nil {
		return
	}
	if count, sum, upTo := h.Read(first); count > 0 {
		ch <- prometheus.MustNewConstHistogram(d, count, sum, upTo, labels...)
	}
}
