package admission

import (
	"context"
	"maps"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	// eventsPerSecond and eventBurst are what one namespace may write, of which a
	// rollout of thousands of pods takes no notice.
	eventsPerSecond = 50
	eventBurst      = 2000
	// eventNamespaces bounds the namespaces that are remembered. One that has been
	// quiet is forgotten first, which gives it nothing.
	eventNamespaces = 4096
)

// EventRateLimit bounds the events of each namespace, so that a loop of one
// tenant does not fill the store for all.
type EventRateLimit struct {
	now func() time.Time

	mu      sync.Mutex
	buckets map[string]bucket // by namespace; guarded by mu
}

// bucket is how many events were left at a time.
type bucket struct {
	left float64
	at   time.Time
}

// NewEventRateLimit makes the plugin.
func NewEventRateLimit(now func() time.Time) *EventRateLimit {
	return &EventRateLimit{now: now, buckets: map[string]bucket{}}
}

// Name implements Plugin.
func (*EventRateLimit) Name() string { return "EventRateLimit" }

// Validate implements Validator.
func (p *EventRateLimit) Validate(_ context.Context, a *Attributes) error {
	if a.Resource.GroupResource() != corev1.Resource("events") || a.Operation != Create && a.Operation != Update || a.DryRun {
		return nil
	}
	if p.take(a.Namespace) {
		return nil
	}
	err := apierrors.NewTooManyRequests("limit reached on type Namespace for key "+a.Namespace, 1)
	err.ErrStatus.Code = http.StatusTooManyRequests
	return err
}

// take takes one event from what a namespace has left.
func (p *EventRateLimit) take(namespace string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	filled := func(b bucket) float64 {
		return min(eventBurst, b.left+max(0, now.Sub(b.at).Seconds())*eventsPerSecond)
	}
	b, known := p.buckets[namespace]
	if !known {
		b = bucket{left: eventBurst, at: now}
		if len(p.buckets) >= eventNamespaces {
			maps.DeleteFunc(p.buckets, func(_ string, b bucket) bool { return filled(b) >= eventBurst })
		}
		if len(p.buckets) >= eventNamespaces {
			return false // so many namespaces at once are no rollout
		}
	}
	left := filled(b)
	if left < 1 {
		return false
	}
	p.buckets[namespace] = bucket{left: left - 1, at: now}
	return true
}
