package probe

import (
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

var epoch = time.Unix(1_000_000, 0)

func at(seconds int) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }

func running(id string) view {
	return view{container: Container{Name: "app", ID: id, Running: true, StartedAt: epoch}, started: true}
}

func newState(kind Kind, p corev1.Probe) *state {
	return &state{kind: kind, timing: timingOf(&p), result: initial(kind)}
}

func TestThresholds(t *testing.T) {
	const ok, bad = true, false
	tests := []struct {
		name     string
		kind     Kind
		probe    corev1.Probe
		outcomes []bool
		want     []Result // after each outcome
	}{
		{"readiness needs its successes in a row", Readiness, corev1.Probe{SuccessThreshold: 2},
			[]bool{ok, bad, ok, ok}, []Result{Failure, Failure, Failure, Success}},
		{"readiness needs its failures in a row", Readiness, corev1.Probe{FailureThreshold: 2},
			[]bool{ok, bad, ok, bad, bad, ok}, []Result{Success, Success, Success, Success, Failure, Success}},
		{"liveness is held after its verdict", Liveness, corev1.Probe{FailureThreshold: 2},
			[]bool{bad, bad, ok}, []Result{Success, Failure, Failure}},
		{"liveness forgets failures", Liveness, corev1.Probe{},
			[]bool{bad, bad, ok, bad, bad, bad}, []Result{Success, Success, Success, Success, Success, Failure}},
		{"startup ends with success", Startup, corev1.Probe{},
			[]bool{bad, ok, bad, bad, bad}, []Result{Unknown, Success, Success, Success, Success}},
		{"startup fails", Startup, corev1.Probe{FailureThreshold: 1}, []bool{bad, ok}, []Result{Failure, Failure}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newState(tt.kind, tt.probe)
			s.look(running("1"), at(0))
			for i, o := range tt.outcomes {
				before := s.result
				changed := s.attempted("1", at(i), at(i), o, true)
				if s.result != tt.want[i] || changed != (before != s.result) {
					t.Fatalf("after %v: %q, changed %v; want %q", tt.outcomes[:i+1], s.result, changed, tt.want[i])
				}
			}
		})
	}
}

// A container is seen when it has been created and not started yet: its delay
// begins when it starts.
func TestDelayBeginsAtTheStart(t *testing.T) {
	for _, kind := range []Kind{Readiness, Liveness, Startup} {
		s := newState(kind, corev1.Probe{InitialDelaySeconds: 15})
		created := running("1")
		created.container.Running, created.container.StartedAt = false, time.Time{}
		s.look(created, at(0))
		if due, ok := s.due(created); ok {
			t.Errorf("%v: a container that does not run is probed at %v", kind, due)
		}
		started := running("1")
		started.container.StartedAt = at(2)
		s.look(started, at(3))
		if due, ok := s.due(started); !ok || !due.Equal(at(17)) {
			t.Errorf("%v: the first attempt is due at %v (%v), want %v", kind, due, ok, at(17))
		}
	}
}

func TestWhenDue(t *testing.T) {
	s := newState(Readiness, corev1.Probe{InitialDelaySeconds: 7, PeriodSeconds: 5})
	v := running("1")
	s.look(v, at(1))
	check := func(want int) {
		t.Helper()
		if got, ok := s.due(v); !ok || !got.Equal(at(want)) {
			t.Fatalf("due at %v (%v), want %v", got, ok, at(want))
		}
	}
	idle := func() {
		t.Helper()
		if got, ok := s.due(v); ok {
			t.Fatalf("due at %v, want nothing to do", got)
		}
	}
	check(7)
	s.attempted("1", at(7), at(8), true, true)
	check(12)
	s.attempted("1", at(12), at(20), true, true)
	check(20)
	s.attempted("1", at(20), at(20), false, false)
	check(25)
	v.started = false
	idle()
	v.started, v.container.Running = true, false
	if !s.look(v, at(21)) || s.result != Failure {
		t.Error("a container that does not run must not be ready")
	}
	idle()
	v = running("2")
	v.container.StartedAt = at(30)
	s.look(v, at(30))
	check(37)
	if s.attempted("1", at(20), at(31), true, true) {
		t.Error("an attempt on the container before this one must count for nothing")
	}
	v.terminating = true
	s.look(v, at(31))
	check(37)
	s.kind = Liveness
	s.look(v, at(32))
	idle()
}

func TestAgentRestart(t *testing.T) {
	old := running("1")
	old.container.Started, old.container.Ready = true, true
	startup, readiness := newState(Startup, corev1.Probe{}), newState(Readiness, corev1.Probe{})
	startup.look(old, at(1000))
	readiness.look(old, at(1000))
	if startup.result != Success || !startup.done || readiness.result != Success {
		t.Errorf("startup %q, readiness %q: a container must stay what it was", startup.result, readiness.result)
	}
	if due, ok := readiness.due(old); !ok || due.Before(at(1000)) || due.After(at(1010)) {
		t.Errorf("the first attempt is due at %v, want it within one period", due)
	}
	next := running("2")
	next.container.StartedAt = at(900)
	readiness.look(next, at(1000))
	if readiness.result != Failure {
		t.Error("a new container must not inherit the readiness of the one before")
	}
}

// TestVerdictsNeverLie checks, for random histories, that a verdict only comes
// from enough equal outcomes in a row on the container it is about.
func TestVerdictsNeverLie(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		kind := kinds()[r.IntN(3)]
		p := corev1.Probe{SuccessThreshold: int32(1 + r.IntN(3)), FailureThreshold: int32(1 + r.IntN(3))}
		if kind != Readiness {
			p.SuccessThreshold = 1
		}
		s := newState(kind, p)
		v, id := running("0"), 0
		s.look(v, at(0))
		var history []bool
		for i := range 60 {
			switch {
			case r.IntN(10) == 0:
				id++
				v = running(string(rune('0' + id)))
				history = nil
				s.look(v, at(i))
				if s.result != initial(kind) {
					t.Fatalf("seed %d: a new container has the verdict %q", seed, s.result)
				}
			default:
				_, wanted := s.due(v)
				outcome := r.IntN(2) == 0
				changed := s.attempted(v.container.ID, at(i), at(i), outcome, true)
				history = append(history, outcome)
				enough := int(p.SuccessThreshold)
				if s.result == Failure {
					enough = int(p.FailureThreshold)
				}
				if changed && (!wanted || !endsIn(history, s.result == Success, enough)) {
					t.Fatalf("seed %d: verdict %q after %v", seed, s.result, history)
				}
			}
		}
	}
}

func endsIn(history []bool, value bool, n int) bool {
	if len(history) < n {
		return false
	}
	for _, v := range history[len(history)-n:] {
		if v != value {
			return false
		}
	}
	return true
}
