package ctl

import (
	"fmt"

	"github.com/spf13/cobra"
)

// exitError ends ctl with a code of its own; err may be nil, for commands
// whose code says all.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err != nil {
		return e.err.Error()
	}
	return fmt.Sprintf("exit code %d", e.code)
}

func (e *exitError) Unwrap() error { return e.err }

// usageError is a command line that was not understood; the help is pointed
// to.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// between returns an argument check: at least lo and at most hi arguments (hi
// below 0 for any number), with a sentence that says what is expected.
func between(lo, hi int, want string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < lo || hi >= 0 && len(args) > hi {
			return usagef("got %d arguments, expected %s", len(args), want)
		}
		return nil
	}
}

// explain makes the sentence for the user out of an error.
func (t *tool) explain(err error) string { return err.Error() }
