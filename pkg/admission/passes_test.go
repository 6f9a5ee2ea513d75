package admission

import (
	"context"
	"slices"
	"testing"
)

// step is a mutator that notes when it ran.
type step struct {
	name string
	log  *[]string
	do   func(a *Attributes)
}

func (s step) Name() string { return s.name }

func (s step) Admit(_ context.Context, a *Attributes) error {
	*s.log = append(*s.log, s.name)
	if s.do != nil {
		s.do(a)
	}
	return nil
}

func TestMutatorsRunTwiceWhenAsked(t *testing.T) {
	var log []string
	again := false
	remembered := 0
	chain, err := NewChain(
		step{"first", &log, nil},
		step{"second", &log, func(a *Attributes) {
			n := Remembered[int](a, "second")
			*n++
			remembered = *n
			if again {
				a.MutateAgain() // in the second pass, too
			}
		}},
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := chain.Admit(t.Context(), &Attributes{}); err != nil || !slices.Equal(log, []string{"first", "second"}) || remembered != 1 {
		t.Errorf("one pass: %v, remembered %d: %v", log, remembered, err)
	}
	log, again = nil, true
	a := &Attributes{}
	if err := chain.Admit(t.Context(), a); err != nil || !slices.Equal(log, []string{"first", "second", "first", "second"}) || remembered != 2 || a.Pass() != 1 {
		t.Errorf("two passes: %v, remembered %d, pass %d: %v", log, remembered, a.Pass(), err)
	}
}
