package reconcile

import (
	"log/slog"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
)

// Env is what every controller is given. The composition root fills it once
// per controller.
type Env struct {
	// Client writes under the controller's own identity.
	Client kubernetes.Interface
	// Informers is the process's one factory. Constructors register what they
	// read; the root starts it afterwards.
	Informers informers.SharedInformerFactory
	// Events tells users what happened to objects; nil forgets.
	Events EventSink
	// Clock is the source of time; nil means the real clock.
	Clock clock.WithTicker
	// Log is nil to discard.
	Log *slog.Logger
}

// Defaulted returns e with nil fields replaced by their defaults.
func (e Env) Defaulted() Env {
	if e.Clock == nil {
		e.Clock = clock.RealClock{}
	}
	if e.Log == nil {
		e.Log = slog.New(slog.DiscardHandler)
	}
	if e.Events == nil {
		e.Events = noEvents{}
	}
	return e
}

// Loop makes a Loop over fn with e's clock and log.
func (e Env) Loop(name string, fn Func) *Loop {
	return New(Config{Name: name, Reconcile: fn, Clock: e.Clock, Log: e.Log})
}
