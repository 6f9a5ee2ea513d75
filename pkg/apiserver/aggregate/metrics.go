package aggregate

import (
	"github.com/prometheus/client_golang/prometheus"
)

// counter counts how often backends became unavailable; the name is upstream's.
type counter struct{ vec *prometheus.CounterVec }

func newCounter() *counter {
	return &counter{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "aggregator_unavailable_apiservice_total",
		Help: "How often APIServices became unavailable, by name and reason.",
	}, []string{"name", "reason"})}
}

func (c *counter) unavailable(name, reason string) { c.vec.WithLabelValues(name, reason).Inc() }

// forget drops the series of an APIService that is gone, so that names do not
// heap up.
func (c *counter) forget(name string) { c.vec.DeletePartialMatch(prometheus.Labels{"name": name}) }

var unavailableDesc = prometheus.NewDesc("aggregator_unavailable_apiservice",
	"1 for each APIService that is not available, 0 for the others.", []string{"name"}, nil)

// Describe implements prometheus.Collector.
func (a *Aggregator) Describe(ch chan<- *prometheus.Desc) {
	ch <- unavailableDesc
	a.count.vec.Describe(ch)
}

// Collect implements prometheus.Collector.
func (a *Aggregator) Collect(ch chan<- prometheus.Metric) {
	a.mu.Lock()
	values := make(map[string]float64, len(a.records))
	for name, r := range a.records {
		if !available(r.stored) {
			values[name] = 1
		} else {
			values[name] = 0
		}
	}
	a.mu.Unlock()
	for name, value := range values {
		ch <- prometheus.MustNewConstMetric(unavailableDesc, prometheus.GaugeValue, value, name)
	}
	a.count.vec.Collect(ch)
}
