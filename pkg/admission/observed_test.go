package admission_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"coracle/pkg/admission"
)

// mutator and validator are plugins of one phase, named by their text.
type mutator string

func (m mutator) Name() string { return string(m) }

func (m mutator) Admit(context.Context, *admission.Attributes) error { return nil }

type validator struct {
	name string
	err  error
}

func (v validator) Name() string { return v.name }

func (v validator) Validate(context.Context, *admission.Attributes) error { return v.err }

// TestObserved: who takes part in a phase is told of, and the phase after them.
func TestObserved(t *testing.T) {
	chain, err := admission.NewChain(mutator("a"), validator{name: "b"}, validator{"c", errors.New("no")}, validator{name: "d"}, mutator("e"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	chain = chain.Observed(func(plugin string, phase admission.Phase, op admission.Operation) func(bool, time.Duration) {
		return func(rejected bool, took time.Duration) {
			got = append(got, fmt.Sprintf("%s %s %s %v", plugin, phase, op, rejected))
			if took < 0 {
				t.Errorf("%s took %v", plugin, took)
			}
		}
	})
	for _, op := range []admission.Operation{admission.Create, admission.Update, admission.Delete, admission.Connect} {
		got = nil
		a := &admission.Attributes{Operation: op}
		if err := chain.Admit(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		if err := chain.Validate(t.Context(), a); err == nil {
			t.Fatal("nothing was refused")
		}
		want := []string{"a admit %s false", "e admit %s false", " admit %s false", "b validate %s false", "c validate %s true", " validate %s true"}
		for i := range want {
			want[i] = fmt.Sprintf(want[i], op)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}
