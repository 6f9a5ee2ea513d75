package probe

import (
	"hash/fnv"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// timing is a probe's numbers with their defaults.
type timing struct {
	delay, period, timeout time.Duration
	successes, failures    int
}

func timingOf(p *corev1.Probe) timing {
	seconds := func(n, def int32) time.Duration {
		if n <= 0 {
			n = def
		}
		return time.Duration(n) * time.Second
	}
	t := timing{
		delay: seconds(p.InitialDelaySeconds, 0), period: seconds(p.PeriodSeconds, 10), timeout: seconds(p.TimeoutSeconds, 1),
		successes: int(p.SuccessThreshold), failures: int(p.FailureThreshold),
	}
	if t.successes <= 0 {
		t.successes = 1
	}
	if t.failures <= 0 {
		t.failures = 3
	}
	return t
}

// view is what a probe's state machine sees of its container.
type view struct {
	container Container
	// started is set when the container has passed its startup probe, or runs
	// and has none.
	started bool
	// terminating is set when the pod is being deleted.
	terminating bool
}

// state is one probe of one container. It has no clock and no I/O: time comes
// in as an argument.
//
//	new id ──> waiting for delay ──> attempt every period ──> verdict
//	                                  ^                  │
//	                                  └── readiness, or  │
//	                                      liveness ok ───┘  else: done until a new id
type state struct {
	kind   Kind
	timing timing

	id     string // container the rest is about, "" if none has started
	result Result
	// last and streak are the outcome of the last attempt and how often in a
	// row it came.
	last   bool
	streak int
	// done is set when there is nothing left to find out about this container.
	done bool
	// next is when the next attempt is due.
	next time.Time
}

// initial is the verdict before any attempt: innocent until proven guilty for
// liveness, the reverse for readiness.
func initial(kind Kind) Result {
	switch kind {
	case Liveness:
		return Success
	case Readiness:
		return Failure
	}
	return Unknown
}

// look takes the present state of the container and reports whether the
// verdict changed by it.
func (s *state) look(v view, now time.Time) (changed bool) {
	before := s.result
	if v.container.StartedAt.IsZero() {
		v.container.ID = "" // it was created, and nothing counts from then
	}
	if v.container.ID != s.id {
		s.reset(v.container, now)
	}
	switch {
	case v.terminating && s.kind != Readiness:
		// A container that is being stopped must not be restarted for not
		// answering; but it must be able to become unready.
		s.result, s.done = Success, true
	case !v.container.Running && s.kind == Readiness:
		s.result, s.streak = Failure, 0
	}
	return s.result != before
}

func (s *state) reset(c Container, now time.Time) {
	firstSight := s.id == ""
	s.id, s.last, s.streak, s.done = c.ID, false, 0, false
	s.result = initial(s.kind)
	s.next = c.StartedAt.Add(s.timing.delay)
	if c.ID == "" || !firstSight || now.Sub(c.StartedAt) < s.timing.period {
		return
	}
	// The container is older than this agent.
	if s.kind == Startup && c.Started {
		s.result, s.done = Success, true
	}
	if s.kind == Readiness && c.Ready {
		s.result = Success
	}
	if at := now.Add(spread(c.ID, s.timing.period)); at.After(s.next) {
		s.next = at
	}
}

// spread gives each container its own part of the period, so that an agent
// that starts on a full node does not probe all containers at once.
func spread(id string, period time.Duration) time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	return time.Duration(int64(h.Sum32()) % int64(period))
}

// due says when the next attempt is to be made; ok is false while there is
// nothing to do until the view changes.
func (s *state) due(v view) (at time.Time, ok bool) {
	if s.done || s.id == "" || !v.container.Running {
		return time.Time{}, false
	}
	if s.kind != Startup && !v.started {
		return time.Time{}, false
	}
	return s.next, true
}

// attempted takes the outcome of an attempt that began at the time given and
// reports whether the verdict changed. Attempts on an older container, or with
// no verdict of their own (known is false), change nothing.
func (s *state) attempted(id string, began, now time.Time, success, known bool) (changed bool) {
	if id != s.id || s.done {
		return false
	}
	s.next = began.Add(s.timing.period)
	if s.next.Before(now) {
		s.next = now
	}
	if !known {
		return false
	}
	if s.streak > 0 && s.last == success {
		s.streak++
	} else {
		s.last, s.streak = success, 1
	}
	verdict, enough := Success, s.timing.successes
	if !success {
		verdict, enough = Failure, s.timing.failures
	}
	if s.streak < enough {
		return false
	}
	s.done = s.kind == Startup || s.kind == Liveness && verdict == Failure
	changed = s.result != verdict
	s.result = verdict
	return changed
}
