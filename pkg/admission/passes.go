package admission

import "context"

// Programs that mutate objects are asked one after the other, and each sees
// what those before it made. A later one may change what an earlier one would
// have decided by; the chain therefore runs its mutators a second time when
// one of them asks for it, once.

// MutateAgain asks the chain to run all mutators a second time. In the second
// pass it does nothing.
func (a *Attributes) MutateAgain() { a.again = true }

// Pass is 0 in the first pass over the mutators and 1 in the second.
func (a *Attributes) Pass() int { return a.pass }

// Remembered is what a plugin keeps of a request between the passes; it is the
// zero value in the first.
func Remembered[T any](a *Attributes, plugin string) *T {
	if kept, ok := a.kept[plugin].(*T); ok {
		return kept
	}
	kept := new(T)
	if a.kept == nil {
		a.kept = map[string]any{}
	}
	a.kept[plugin] = kept
	return kept
}

// Admit runs the mutating plugins in order and stops at the first refusal. It
// runs them twice when one of them asks for it.
func (c *Chain) Admit(ctx context.Context, a *Attributes) error {
	if err := c.admitOnce(ctx, a); err != nil || !a.again {
		return err
	}
	a.pass = 1
	return c.admitOnce(ctx, a)
}

func (c *Chain) admitOnce(ctx context.Context, a *Attributes) error {
	return c.run(ctx, Mutating, c.mutators, a)
}
