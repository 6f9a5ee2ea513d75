package fairness

import (
	"maps"

	"github.com/prometheus/client_golang/prometheus"
)

const namespace = "apiserver_flowcontrol_"

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(namespace+name, help, labels, nil)
}

// flowDescs and levelDescs are the metrics of flows and levels, by
// kube-apiserver's names.
type flowDescs struct {
	rejected, dispatched, inQueue, inQueueSeats, executing, executingSeats, waited, executed, length *prometheus.Desc
}

type levelDescs struct {
	nominal, low, high, limit, peak, average, deviation, smoothed, target, fraction *prometheus.Desc
}

func newFlowDescs() flowDescs {
	flow := []string{"priority_level", "flow_schema"}
	with := func(more string) []string { return append(flow[:2:2], more) }
	return flowDescs{
		rejected:       desc("rejected_requests_total", "Requests refused by priority and fairness.", with("reason")...),
		dispatched:     desc("dispatched_requests_total", "Requests let in by priority and fairness.", flow...),
		inQueue:        desc("current_inqueue_requests", "Requests that wait.", flow...),
		inQueueSeats:   desc("current_inqueue_seats", "Seats of the requests that wait.", flow...),
		executing:      desc("current_executing_requests", "Requests that are served; watches until they have begun.", flow...),
		executingSeats: desc("current_executing_seats", "Seats of the requests that are served.", flow...),
		waited:         desc("request_wait_duration_seconds", "Time that requests waited.", with("execute")...),
		executed:       desc("request_execution_seconds", "Time for which requests had their seats.", with("type")...),
		length:         desc("request_queue_length_after_enqueue", "Length of the queue that a request joined.", flow...),
	}
}

func newLevelDescs() levelDescs {
	level := []string{"priority_level"}
	return levelDescs{
		nominal:   desc("nominal_limit_seats", "Seats of the level by its shares.", level...),
		low:       desc("lower_limit_seats", "Seats that the level does not lend.", level...),
		high:      desc("upper_limit_seats", "Seats that the level has when it borrows as much as it may.", level...),
		limit:     desc("current_limit_seats", "Seats that the level has.", level...),
		peak:      desc("demand_seats_high_watermark", "Most seats that the level could have used, over the last period.", level...),
		average:   desc("demand_seats_average", "Seats that the level could have used on average, over the last period.", level...),
		deviation: desc("demand_seats_stdev", "Standard deviation of the seats that the level could have used, over the last period.", level...),
		smoothed:  desc("demand_seats_smoothed", "Seats that the level could have used, smoothed.", level...),
		target:    desc("target_seats", "Seats that the level asks for when they are lent.", level...),
		fraction:  desc("seat_fair_frac", "Part of its target that each level gets."),
	}
}

// Metrics shows a Controller to Prometheus.
type Metrics struct {
	c     *Controller
	flow  flowDescs
	level levelDescs
}

// Metrics makes a collector of what the Controller does.
func (c *Controller) Metrics() *Metrics { return &Metrics{c, newFlowDescs(), newLevelDescs()} }

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	f, l := &m.flow, &m.level
	for _, d := range []*prometheus.Desc{
		f.rejected, f.dispatched, f.inQueue, f.inQueueSeats, f.executing, f.executingSeats, f.waited, f.executed, f.length,
		l.nominal, l.low, l.high, l.limit, l.peak, l.average, l.deviation, l.smoothed, l.target, l.fraction,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.c.mu.Lock()
	all := maps.Clone(m.c.stats)
	for name := range m.c.names {
		m.collectLevel(ch, m.c.levels[name])
	}
	ch <- prometheus.MustNewConstMetric(m.level.fraction, prometheus.GaugeValue, m.c.fraction)
	m.c.mu.Unlock()
	for key, s := range all {
		m.collectFlow(ch, key, s)
	}
}

// collectLevel tells of a level. The Controller's mu is held.
func (m *Metrics) collectLevel(ch chan<- prometheus.Metric, l *level) {
	d := &m.level
	for _, g := range []struct {
		desc  *prometheus.Desc
		value float64
	}{
		{d.nominal, float64(l.bounds.nominal)}, {d.low, float64(l.bounds.low)}, {d.high, float64(l.bounds.high)},
		{d.limit, float64(seats(l.state.Load()).limit())}, {d.peak, float64(l.demand.high)}, {d.average, l.demand.average},
		{d.deviation, l.demand.deviation()}, {d.smoothed, l.demand.smoothed}, {d.target, l.target},
	} {
		ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.value, l.name)
	}
}

func (m *Metrics) collectFlow(ch chan<- prometheus.Metric, k flowKey, s *stats) {
	d := &m.flow
	emit := func(desc *prometheus.Desc, kind prometheus.ValueType, v int64, more ...string) {
		ch <- prometheus.MustNewConstMetric(desc, kind, float64(v), append([]string{k.level, k.schema}, more...)...)
	}
	distribution := func(desc *prometheus.Desc, h *histogram, atOnce uint64, more ...string) {
		count, sum, upTo := h.read()
		for b := range upTo {
			upTo[b] += atOnce
		}
		if count += atOnce; count > 0 {
			ch <- prometheus.MustNewConstHistogram(desc, count, sum, upTo, append([]string{k.level, k.schema}, more...)...)
		}
	}
	for reason, n := range map[string]int64{reasonQueueFull: s.queueFull.Load(), reasonTimeOut: s.timeOut.Load(), reasonConcurrency: s.concurrency.Load(), reasonCancelled: s.cancelled.Load()} {
		if n > 0 {
			emit(d.rejected, prometheus.CounterValue, n, reason)
		}
	}
	atOnce := s.dispatches.Load()
	waited, _, _ := s.waited.read()
	emit(d.dispatched, prometheus.CounterValue, atOnce+int64(waited))
	emit(d.inQueue, prometheus.GaugeValue, s.inQueue.Load())
	emit(d.inQueueSeats, prometheus.GaugeValue, s.inQueueSeats.Load())
	emit(d.executing, prometheus.GaugeValue, s.executing.Load())
	emit(d.executingSeats, prometheus.GaugeValue, s.executingSeats.Load())
	// Who was let in at once has waited for no time.
	distribution(d.waited, &s.waited, uint64(atOnce), "true")
	distribution(d.waited, &s.gaveUp, 0, "false")
	distribution(d.executed, &s.executed, 0, "regular")
	distribution(d.length, &s.queueLength, 0)
}
