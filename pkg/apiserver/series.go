package apiserver

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// reportedVerb is a verb as metrics name it: those of HTTP, with LIST, WATCH,
// APPLY and CONNECT told apart.
type reportedVerb uint8

const (
	verbOther reportedVerb = iota
	verbGet
	verbList
	verbWatch
	verbPost
	verbPut
	verbPatch
	verbApply
	verbDelete
	verbConnect
)

var verbNames = [...]string{"other", "GET", "LIST", "WATCH", "POST", "PUT", "PATCH", "APPLY", "DELETE", "CONNECT"}

// reported is the verb under which a request counts.
func reported(r *http.Request, info *requestInfo) reportedVerb {
	switch info.subresource {
	case "exec", "attach", "portforward", "proxy", "log":
		return verbConnect
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		switch info.verb {
		case "watch":
			return verbWatch
		case "list":
			return verbList
		}
		return verbGet
	case http.MethodPost:
		return verbPost
	case http.MethodPut:
		return verbPut
	case http.MethodPatch:
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/apply-patch") {
			return verbApply
		}
		return verbPatch
	case http.MethodDelete:
		return verbDelete
	}
	return verbOther
}

// reportedScope is how much a request is about.
func reportedScope(info *requestInfo) string {
	switch {
	case !info.resource:
		return ""
	case info.name != "" || info.verb == "create":
		return "resource"
	case info.namespace != "":
		return "namespace"
	}
	return "cluster"
}

// seriesKey is what requests are told apart by, beside the answer's code. Its
// strings are the table's or literals, never a client's (CVE-2020-8552).
type seriesKey struct {
	group, version, resource, subresource, scope string
	verb                                         reportedVerb
	dry                                          bool
}

// series are the metrics of one kind of request, resolved once: counting a
// request allocates nothing.
type series struct {
	metrics  *serverMetrics
	key      seriesKey
	duration prometheus.Observer
	sli      prometheus.Observer // nil for dry runs
	sizes    prometheus.Observer // nil for all but reads
	codes    codeCounters
}

// codeCounters are the counters of the answers that came, few and found by
// looking through them.
type codeCounters struct {
	mu   sync.Mutex                    // serializes additions
	seen atomic.Pointer[[]codeCounter] // replaced, never changed
}

type codeCounter struct {
	code    int
	counter prometheus.Counter
}

// inc counts an answer; make is called at the first of its code.
func (c *codeCounters) inc(code int, make func(code int) prometheus.Counter) {
	if seen := c.seen.Load(); seen != nil {
		for i := range *seen {
			if (*seen)[i].code == code {
				(*seen)[i].counter.Inc()
				return
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	counter := make(code)
	counter.Inc()
	next := []codeCounter{{code, counter}}
	if seen := c.seen.Load(); seen != nil {
		for _, s := range *seen {
			if s.code == code {
				return // another request was first, with the same counter
			}
			next = append(next, s)
		}
	}
	c.seen.Store(&next)
}

// seriesOf finds the series of a request.
func (s *Server) seriesOf(r *http.Request, info *requestInfo) *series {
	key := seriesKey{verb: reported(r, info)}
	if sv, ok := s.lookup(info); ok && info.resource {
		key.group, key.version, key.resource = sv.res.Group, sv.res.Version, sv.res.Plural
		if sv.view != nil {
			key.group, key.version = sv.view.Group, sv.view.Version
		}
		if sub, known := sv.res.Subresource(info.subresource); known {
			key.subresource = sub.Name
		}
		key.scope = reportedScope(info)
		key.dry = strings.Contains(r.URL.RawQuery, "dryRun") && r.URL.Query().Get("dryRun") == "All"
	} else if !info.resource {
		key.subresource = healthPath(info.path)
	}
	return s.metrics.series.Get(key, s.metrics.newSeries)
}

// healthPath is the path of a health check, as upstream's metrics show it.
func healthPath(path string) string {
	for _, p := range []string{"/healthz", "/livez", "/readyz"} {
		if path == p {
			return p
		}
	}
	return ""
}

func (m *serverMetrics) newSeries(k seriesKey) *series {
	verb, dry := verbNames[k.verb], ""
	if k.dry {
		dry = "All"
	}
	s := &series{metrics: m, key: k}
	s.duration = m.duration.WithLabelValues(verb, dry, k.group, k.version, k.resource, k.subresource, k.scope, component)
	if !k.dry {
		s.sli = m.sli.WithLabelValues(verb, k.group, k.version, k.resource, k.subresource, k.scope, component)
	}
	if k.verb == verbGet || k.verb == verbList {
		s.sizes = m.sizes.WithLabelValues(verb, k.group, k.version, k.resource, k.subresource, k.scope, component)
	}
	return s
}

// component is the value of the label of that name.
const component = "apiserver"

// done counts a request that was answered.
func (s *series) done(code, size int, took time.Duration, stream bool) {
	if code == 0 {
		code = http.StatusOK // what net/http writes when a handler wrote nothing
	}
	s.codes.inc(code, s.counter)
	if stream {
		return
	}
	seconds := took.Seconds()
	s.duration.Observe(seconds)
	if s.sli != nil {
		s.sli.Observe(seconds)
	}
	if s.sizes != nil {
		s.sizes.Observe(float64(size))
	}
}

func (s *series) counter(code int) prometheus.Counter {
	k, dry := &s.key, ""
	if k.dry {
		dry = "All"
	}
	return s.metrics.requests.WithLabelValues(verbNames[k.verb], dry, k.group, k.version, k.resource, k.subresource, k.scope, component, strconv.Itoa(code))
}

// labels are those that gauges and counters of single requests share.
func (s *series) labels() []string {
	k := &s.key
	return []string{verbNames[k.verb], k.group, k.version, k.resource, k.subresource, k.scope, component}
}

// stream counts a stream while it lasts.
func (s *series) stream() (end func()) {
	g := s.metrics.longrunning.WithLabelValues(s.labels()...)
	g.Inc()
	return g.Dec
}

// refused counts a request that found no place.
func (s *series) refused(code int) {
	s.metrics.terminations.WithLabelValues(append(s.labels(), strconv.Itoa(code))...).Inc()
}

// watchSeries are the metrics of the events of one kind.
type watchSeries struct {
	events prometheus.Counter
	sizes  prometheus.Observer
}

// watchKey names a kind by its group, version and resource.
type watchKey struct{ group, version, resource string }

func (m *serverMetrics) watched(sv served) *watchSeries {
	gvk := sv.gvk()
	return m.watches.Get(watchKey{gvk.Group, gvk.Version, sv.res.Plural}, func(k watchKey) *watchSeries {
		return &watchSeries{m.watchEvents.WithLabelValues(k.group, k.version, k.resource), m.watchSizes.WithLabelValues(k.group, k.version, k.resource)}
	})
}

// sent counts an event of so many bytes.
func (w *watchSeries) sent(size int) {
	w.events.Inc()
	w.sizes.Observe(float64(size))
}
