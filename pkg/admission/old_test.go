package admission_test

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/admission"
)

// curious asks for the old object when it is told to, and does not mind if there
// is none.
type curious struct{ ask bool }

func (curious) Name() string { return "curious" }

func (c curious) Validate(_ context.Context, a *admission.Attributes) error {
	if c.ask {
		_ = a.Old()
	}
	return nil
}

// TestOldIsMadeOnDemand: the old object is made once, when it is asked for; a
// request whose old object cannot be made is refused then.
func TestOldIsMadeOnDemand(t *testing.T) {
	calls := 0
	var fault error
	ask := func(ask bool) error {
		chain, err := admission.NewChain(curious{ask})
		if err != nil {
			t.Fatal(err)
		}
		calls = 0
		a := &admission.Attributes{Operation: admission.Delete, Stored: func() (runtime.Object, error) {
			calls++
			return &corev1.Pod{}, fault
		}}
		if err := chain.Validate(t.Context(), a); err != nil {
			return err
		}
		return chain.Validate(t.Context(), a)
	}
	if err := ask(false); err != nil || calls != 0 {
		t.Errorf("nobody asks: %v, made %d times", err, calls)
	}
	if err := ask(true); err != nil || calls != 1 {
		t.Errorf("it is there: %v, made %d times", err, calls)
	}
	fault = errors.New("it is broken")
	if err := ask(true); !apierrors.IsInternalError(err) || calls != 1 {
		t.Errorf("it is broken: %v, made %d times", err, calls)
	}
	if admission.Known(nil) != nil {
		t.Error("there is something where nothing is known")
	}
}
