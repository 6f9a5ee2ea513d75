package aggregate

import (
	"context"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"coracle/pkg/resource"
)

// Times of the loop that looks after one backend.
const (
	lookEvery = 30 * time.Second
	// retryFirst is the wait after a look that found the backend unavailable; it
	// doubles up to lookEvery.
	retryFirst = 250 * time.Millisecond
	// readTime bounds the reading of a Service and its endpoints.
	readTime = 5 * time.Second
	// lookTime bounds one question to a backend.
	lookTime = 5 * time.Second
	// lookTries is how often a backend is asked before it counts as gone: one of
	// its endpoints may be.
	lookTries = 2
)

// findings are what a look at a backend found.
type findings struct {
	condition apiregistrationv1.APIServiceCondition
	// resources are what the backend serves; fresh says that this look found
	// them, and not one before.
	resources []apidiscoveryv2.APIResourceDiscovery
	fresh     bool
	// openAPI is where the backend describes the group version, as its own list
	// says it; empty when it does not.
	openAPI string
}

// watch looks at one APIService until ctx ends.
func (a *Aggregator) watch(ctx context.Context, r *record) {
	wait := retryFirst
	for ctx.Err() == nil {
		a.mu.Lock()
		stored, last := r.stored, r.seen
		a.mu.Unlock()
		seen := findings{condition: resource.LocalAPIService(metav1.Time{})}
		if r.backend != nil {
			seen = a.examine(ctx, r.backend, stored.Spec.Service, last)
		}
		if ctx.Err() != nil {
			return
		}
		stale := a.settle(ctx, r, stored, seen)
		if r.backend == nil && !stale {
			a.mu.Lock()
			if r.stop != nil { // what is local stays so, unless somebody writes over it
				r.stop()
				r.stop = nil
			}
			a.mu.Unlock()
			return
		}
		next := lookEvery
		if stale || seen.condition.Status != apiregistrationv1.ConditionTrue {
			next, wait = wait, min(2*wait, lookEvery)
		} else {
			wait = retryFirst
		}
		timer := a.cfg.Clock.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-timer.C():
		case <-r.kick:
			wait = retryFirst
		}
		timer.Stop()
	}
}

// settle notes what was found and stores the condition where it is another one.
// It returns true when that failed.
func (a *Aggregator) settle(ctx context.Context, r *record, stored *apiregistrationv1.APIService, seen findings) (failed bool) {
	a.mu.Lock()
	r.seen = seen
	a.publish()
	a.mu.Unlock()
	if sameCondition(condition(stored), seen.condition) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	if err := a.cfg.SetStatus(ctx, stored, seen.condition); err != nil {
		a.cfg.Log.Warn("the condition of an APIService could not be stored", "name", stored.Name, "error", err)
		return true
	}
	if available(stored) && seen.condition.Status != apiregistrationv1.ConditionTrue {
		a.count.unavailable(stored.Name, seen.condition.Reason)
	}
	a.cfg.Log.Info("the availability of an APIService changed", "name", stored.Name, "reason", seen.condition.Reason, "message", seen.condition.Message)
	return false
}

// examine finds out whether a backend is there and what it serves.
func (a *Aggregator) examine(ctx context.Context, b *backend, ref *apiregistrationv1.ServiceReference, last findings) findings {
	seen := findings{resources: last.resources, openAPI: last.openAPI}
	around := a.surroundings(ctx, ref)
	var ok bool
	if seen.condition, ok = reachable(ref, around); !ok {
		return seen
	}
	for range lookTries {
		resources, read, err := b.discover(ctx)
		seen.condition = verdict(err)
		if err != nil {
			b.closeIdle()
			continue
		}
		if read {
			seen.resources, seen.fresh = resources, true
		}
		seen.openAPI = b.findOpenAPI(ctx)
		return seen
	}
	return seen
}

func (a *Aggregator) surroundings(ctx context.Context, ref *apiregistrationv1.ServiceReference) surroundings {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	var s surroundings
	if s.service, s.serviceErr = a.cfg.Service(ctx, ref.Namespace, ref.Name); s.serviceErr == nil {
		s.slices, s.slicesErr = a.cfg.Slices(ctx, ref.Namespace, ref.Name)
	}
	return s
}

// localSettled says that a local APIService says so.
func localSettled(s *apiregistrationv1.APIService) bool {
	return sameCondition(condition(s), resource.LocalAPIService(metav1.Time{}))
}
