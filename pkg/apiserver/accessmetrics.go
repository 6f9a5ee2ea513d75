package apiserver

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"coracle/pkg/auth"
)

// accessMetrics count who came and who was let in.
type accessMetrics struct {
	users     *prometheus.CounterVec
	authn     *prometheus.CounterVec
	authnTime *prometheus.HistogramVec
	authz     *prometheus.CounterVec
	authzTime *prometheus.HistogramVec

	// The results, resolved: none is ever added.
	authnResults map[string]result
	authzResults map[string]result
	userCounters map[string]prometheus.Counter
}

// result is the count and the time of one outcome.
type result struct {
	count prometheus.Counter
	time  prometheus.Observer
}

// knownUsers are those that upstream shows by name; all others would be too
// many values for a label.
var knownUsers = []string{"admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default", "email_id", "other"}

func newAccessMetrics() *accessMetrics {
	times := prometheus.ExponentialBuckets(0.001, 2, 15)
	m := &accessMetrics{
		users:     counterVec("authenticated_user_requests", "Requests by the kind of their user.", []string{"username"}),
		authn:     counterVec("authentication_attempts", "Attempts to find out who sent a request.", []string{"result"}),
		authnTime: histogramVec("authentication_duration_seconds", "Time it took to find out who sent a request.", times, []string{"result"}),
		authz:     counterVec("authorization_attempts_total", "Decisions on whether a request is allowed.", []string{"result"}),
		authzTime: histogramVec("authorization_duration_seconds", "Time it took to decide whether a request is allowed.", times, []string{"result"}),

		authnResults: map[string]result{}, authzResults: map[string]result{}, userCounters: map[string]prometheus.Counter{},
	}
	for _, r := range []string{"success", "failure", "error"} {
		m.authnResults[r] = result{m.authn.WithLabelValues(r), m.authnTime.WithLabelValues(r)}
	}
	for _, r := range []string{"allowed", "denied", "no-opinion", "error"} {
		m.authzResults[r] = result{m.authz.WithLabelValues(r), m.authzTime.WithLabelValues(r)}
	}
	for _, u := range knownUsers {
		m.userCounters[u] = m.users.WithLabelValues(u)
	}
	return m
}

func (m *accessMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.users, m.authn, m.authnTime, m.authz, m.authzTime}
}

func (m *accessMetrics) authenticated(user *auth.User, ok bool, err error, took time.Duration) {
	outcome := "success"
	switch {
	case err != nil:
		outcome = "error"
	case !ok:
		outcome = "failure"
	default:
		m.userCounters[userLabel(user.Name)].Inc()
	}
	m.authnResults[outcome].observe(took)
}

func userLabel(name string) string {
	for _, known := range knownUsers {
		if name == known {
			return known
		}
	}
	if strings.Contains(name, "@") {
		return "email_id"
	}
	return "other"
}

func (m *accessMetrics) authorized(decision auth.Decision, err error, took time.Duration) {
	outcome := "no-opinion"
	switch {
	case decision == auth.Allow:
		outcome = "allowed"
	case err != nil:
		outcome = "error"
	case decision == auth.Deny:
		outcome = "denied"
	}
	m.authzResults[outcome].observe(took)
}

func (r result) observe(took time.Duration) {
	r.count.Inc()
	r.time.Observe(took.Seconds())
}
