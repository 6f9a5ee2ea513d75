package scheduler

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"coracle/pkg/scheduler/queue"
)

// The results of an attempt, as metrics call them.
const (
	resultScheduled     = "scheduled"
	resultUnschedulable = "unschedulable"
	resultError         = "error"
)

// longAttempts is the label of pods that took more attempts than are told apart.
const longAttempts = 15

// meters count what a scheduler does. Names, labels and buckets are
// kube-scheduler's.
type meters struct {
	attempts  *prometheus.CounterVec   // result, profile
	took      *prometheus.HistogramVec // result, profile
	algorithm prometheus.Histogram
	waited    *prometheus.HistogramVec // attempts
	tries     prometheus.Histogram
	preempted prometheus.Counter
	victims   prometheus.Histogram
}

func newMeters() *meters {
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: "scheduler_" + name, Help: help}
	}
	histogram := func(name, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: "scheduler_" + name, Help: help, Buckets: buckets}
	}
	latency := prometheus.ExponentialBuckets(0.001, 2, 15)
	return &meters{
		attempts: prometheus.NewCounterVec(counter("schedule_attempts_total",
			"Attempts to place a pod: it was scheduled, no node could take it (unschedulable), or something failed (error)."), []string{"result", "profile"}),
		took: prometheus.NewHistogramVec(histogram("scheduling_attempt_duration_seconds",
			"Time from when a pod was looked at until it was bound or given back.", latency), []string{"result", "profile"}),
		algorithm: prometheus.NewHistogram(histogram("scheduling_algorithm_duration_seconds", "Time that decisions took.", latency)),
		waited: prometheus.NewHistogramVec(histogram("pod_scheduling_sli_duration_seconds",
			"Time from when a pod could first be tried until it was bound, by the number of attempts.", prometheus.ExponentialBuckets(0.01, 2, 20)), []string{"attempts"}),
		tries:     prometheus.NewHistogram(histogram("pod_scheduling_attempts", "Attempts that pods needed until they were bound.", prometheus.ExponentialBuckets(1, 2, 5))),
		preempted: prometheus.NewCounter(counter("preemption_attempts_total", "Attempts to make room for a pod.")),
		victims:   prometheus.NewHistogram(histogram("preemption_victims", "Pods that had to go for the sake of one.", prometheus.ExponentialBuckets(1, 2, 7))),
	}
}

func (m *meters) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.attempts, m.took, m.algorithm, m.waited, m.tries, m.preempted, m.victims}
}

// count notes the result of an attempt that began at a time.
func (m *meters) count(e *entry, result string, began, now time.Time) {
	profile := e.Pod.Shape.Scheduler
	m.attempts.WithLabelValues(result, profile).Inc()
	m.took.WithLabelValues(result, profile).Observe(now.Sub(began).Seconds())
}

// placed notes a pod that was bound.
func (m *meters) placed(e *entry, began, now time.Time) {
	m.count(e, resultScheduled, began, now)
	label := strconv.Itoa(e.Attempts)
	if e.Attempts > longAttempts {
		label = strconv.Itoa(longAttempts) + "+"
	}
	m.waited.WithLabelValues(label).Observe(now.Sub(e.Ready).Seconds())
	m.tries.Observe(float64(e.Attempts))
}

// planned notes an attempt to make room.
func (m *meters) planned(p *plan) {
	if p.message == "" {
		return
	}
	m.preempted.Inc()
	if len(p.victims) > 0 {
		m.victims.Observe(float64(len(p.victims)))
	}
}

var (
	pendingDesc = prometheus.NewDesc("scheduler_pending_pods", "Pods that wait for a node: to be tried now (active), later (backoff), when something changes (unschedulable), or not at all (gated).", []string{"queue"}, nil)
	cacheDesc   = prometheus.NewDesc("scheduler_cache_size", "Nodes and pods that the scheduler keeps records of, and pods whose binding is under way.", []string{"type"}, nil)
)

var _ prometheus.Collector = (*Scheduler)(nil)

// Describe implements prometheus.Collector.
func (s *Scheduler) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range s.meters.collectors() {
		c.Describe(ch)
	}
	s.news.dropped.Describe(ch)
	ch <- pendingDesc
	ch <- cacheDesc
}

// Collect implements prometheus.Collector.
func (s *Scheduler) Collect(ch chan<- prometheus.Metric) {
	for _, c := range s.meters.collectors() {
		c.Collect(ch)
	}
	s.news.dropped.Collect(ch)
	size := s.cluster.size()
	gauge := func(desc *prometheus.Desc, label string, n int) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n), label)
	}
	gauge(pendingDesc, "active", size.waiting.Active)
	gauge(pendingDesc, "backoff", size.waiting.Backoff)
	gauge(pendingDesc, "unschedulable", size.waiting.Waiting)
	gauge(pendingDesc, "gated", size.waiting.Gated)
	gauge(cacheDesc, "nodes", size.nodes)
	gauge(cacheDesc, "pods", size.pods)
	gauge(cacheDesc, "assumed_pods", size.assumed)
}

// clusterSize is how much a cluster knows.
type clusterSize struct {
	waiting              queue.Counts
	nodes, pods, assumed int
}

func (c *cluster) size() clusterSize {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := clusterSize{waiting: c.queue.Counts(), nodes: c.records.Len(), assumed: len(c.assumed)}
	for _, n := range c.records.Nodes() {
		if n != nil {
			out.pods += len(n.Pods)
		}
	}
	return out
}

// Synced says that all that decisions read has been read once.
func (s *Scheduler) Synced() bool {
	for _, synced := range s.synced {
		if !synced() {
			return false
		}
	}
	return true
}
