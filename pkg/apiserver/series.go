package apiserver

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"coracle/pkg/metrics"
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

// series are the counts of one kind of request, found once: counting a request
// allocates nothing. Labels are made when the counts are shown, for there may be
// many kinds of requests, a few for each custom resource.
type series struct {
	metrics  *serverMetrics
	key      seriesKey
	duration *metrics.Histogram // seconds
	sizes    *metrics.Histogram // bytes; nil for all but reads
	codes    codeCounters
	open     atomic.Int64 // streams
	streamed atomic.Bool  // there was one
}

// codeCounters are the counters of the answers that came, few and found by
// looking through them.
type codeCounters struct {
	mu   sync.Mutex                    // serializes additions
	seen atomic.Pointer[[]codeCounter] // replaced, never changed
}

type codeCounter struct {
	code  int
	count *atomic.Int64
}

// all are the counters so far.
func (c *codeCounters) all() []codeCounter {
	if seen := c.seen.Load(); seen != nil {
		return *seen
	}
	return nil
}

func (c *codeCounters) find(code int) *atomic.Int64 {
	for _, s := range c.all() {
		if s.code == code {
			return s.count
		}
	}
	return nil
}

// inc counts an answer.
func (c *codeCounters) inc(code int) {
	if count := c.find(code); count != nil {
		count.Add(1)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	count := c.find(code) // another request may have been first
	if count == nil {
		count = &atomic.Int64{}
		next := append(slices.Clone(c.all()), codeCounter{code, count})
		c.seen.Store(&next)
	}
	count.Add(1)
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
	s := &series{metrics: m, key: k, duration: metrics.NewHistogram(durationBounds)}
	if k.verb == verbGet || k.verb == verbList {
		s.sizes = metrics.NewHistogram(answerBounds)
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
	s.codes.inc(code)
	if stream {
		return
	}
	s.duration.Observe(took.Seconds())
	if s.sizes != nil {
		s.sizes.Observe(float64(size))
	}
}

// labels are those that all its metrics share.
func (s *series) labels() []string {
	k := &s.key
	return []string{verbNames[k.verb], k.group, k.version, k.resource, k.subresource, k.scope, component}
}

// stream counts a stream while it lasts.
func (s *series) stream() (end func()) {
	s.streamed.Store(true)
	s.open.Add(1)
	return func() { s.open.Add(-1) }
}

// refused counts a request that found no place.
func (s *series) refused(code int) {
	s.metrics.terminations.WithLabelValues(append(s.labels(), strconv.Itoa(code))...).Inc()
}

// watchSeries are the sizes of the events of one kind.
type watchSeries struct {
	key   watchKey
	sizes *metrics.Histogram // bytes
}

// watchKey names a kind by its group, version and resource.
type watchKey struct{ group, version, resource string }

func (m *serverMetrics) watched(sv served) *watchSeries {
	gvk := sv.gvk()
	return m.watches.Get(watchKey{gvk.Group, gvk.Version, sv.res.Plural}, func(k watchKey) *watchSeries {
		return &watchSeries{k, metrics.NewHistogram(eventBounds)}
	})
}

// sent counts an event of so many bytes.
func (w *watchSeries) sent(size int) { w.sizes.Observe(float64(size)) }
