package controlplane

import (
	"context"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apitypes "k8s.io/apimachinery/pkg/types"

	"coracle/pkg/admission"
	"coracle/pkg/admission/match"
	"coracle/pkg/admission/webhook"
	"coracle/pkg/registry"
	"coracle/pkg/resource"
)

// webhooks are the plugins that ask admission webhooks.
func (cp *ControlPlane) webhooks(objects cachedObjects) (*webhook.Mutating, *webhook.Validating) {
	return webhook.New(webhook.Config{
		Mutating:    cp.configurations(objects, "mutatingwebhookconfigurations"),
		Validating:  cp.configurations(objects, "validatingwebhookconfigurations"),
		Matcher:     &match.Matcher{Objects: objects, Table: func() *resource.Table { return cp.registry.Table() }},
		Client:      cp.callouts,
		Expressions: cp.expressions, Authorizer: cp.authz,
		UID:     func() (apitypes.UID, error) { return cp.registry.NewUID() },
		Log:     cp.cfg.Log,
		Observe: cp.metrics.webhooks.observe,
	})
}

// configurations reads the configurations of admission of a kind.
func (cp *ControlPlane) configurations(objects cachedObjects, plural string) webhook.Source {
	gvr := admissionregistrationv1.SchemeGroupVersion.WithResource(plural)
	// The registry comes after the chain that it admits by.
	prefix := sync.OnceValue(func() string { return registry.Prefix(cp.resource(gvr), "") })
	return webhook.Source{
		Mark: func() any { return cp.cache.Mark(prefix()) },
		List: func(ctx context.Context) ([]runtime.Object, error) { return objects.List(ctx, gvr, "") },
	}
}

// webhookMetrics count what admission webhooks are asked, in upstream's names.
type webhookMetrics struct {
	latency    *prometheus.HistogramVec // name, type, operation, rejected
	rejections *prometheus.CounterVec   // name, type, operation, error_type, rejection_code
	open       *prometheus.CounterVec   // name, type
	requests   *prometheus.CounterVec   // name, type, operation, code, rejected
}

func newWebhookMetrics() webhookMetrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return webhookMetrics{
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_admission_webhook_admission_duration_seconds", Help: "Time that one admission webhook took.",
			Buckets: []float64{.005, .025, .1, .5, 1, 2.5, 10, 25},
		}, []string{"name", "type", "operation", "rejected"}),
		rejections: counter("apiserver_admission_webhook_rejection_count", "Requests that were refused because of an admission webhook.",
			"name", "type", "operation", "error_type", "rejection_code"),
		open: counter("apiserver_admission_webhook_fail_open_count", "Requests that an admission webhook could not be asked about and that passed.",
			"name", "type"),
		requests: counter("apiserver_admission_webhook_request_total", "Requests that an admission webhook was asked about.",
			"name", "type", "operation", "code", "rejected"),
	}
}

func (m *webhookMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.latency, m.rejections, m.open, m.requests}
}

func (m *webhookMetrics) observe(o webhook.Observation) {
	phase, op, code := "admit", string(o.Operation), strconv.Itoa(o.Code)
	if o.Phase == admission.Validating {
		phase = "validating" // as upstream calls it here
	}
	rejected := strconv.FormatBool(o.Rejected)
	m.latency.WithLabelValues(o.Webhook, phase, op, rejected).Observe(o.Took.Seconds())
	m.requests.WithLabelValues(o.Webhook, phase, op, code, rejected).Inc()
	if o.Rejected {
		m.rejections.WithLabelValues(o.Webhook, phase, op, string(o.Error), code).Inc()
	}
	if o.FailedOpen {
		m.open.WithLabelValues(o.Webhook, phase).Inc()
	}
}
