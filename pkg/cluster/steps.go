package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// undoTimeout bounds the undoing of one step.
const undoTimeout = 60 * time.Second

// step is one part of a longer piece of work.
type step struct {
	// name is what the user reads while it runs, as an order: "Start 3 nodes".
	name string
	// done reports whether there is nothing to do. Such a step is not undone
	// either. Nil means there is always something to do.
	done func(ctx context.Context) (bool, error)
	// do does the work. It must be safe to repeat.
	do func(ctx context.Context) error
	// undo takes back what do may have done, also when do failed half-way.
	// Nil means do leaves nothing behind.
	undo func(ctx context.Context) error
}

// stepRunner runs steps in order and takes them back, last first, when one
// fails.
type stepRunner struct {
	out io.Writer
	now func() time.Time
	// failed is called before the undoing, while logs are still there, and
	// returns where they were put; it may be nil.
	failed func() string
}

// run returns the first step's error, with where the log is and with what
// could not be undone.
func (r *stepRunner) run(ctx context.Context, steps []step) error {
	var begun []step
	for _, s := range steps {
		start := r.now()
		skipped, err := r.one(ctx, s, &begun)
		switch {
		case err != nil:
			fmt.Fprintf(r.out, "  %-36s failed after %s\n", s.name, seconds(r.now().Sub(start)))
			return r.takeBack(ctx, begun, fmt.Errorf("%s: %w", s.name, err))
		case skipped:
			fmt.Fprintf(r.out, "  %-36s was done\n", s.name)
		default:
			fmt.Fprintf(r.out, "  %-36s %s\n", s.name, seconds(r.now().Sub(start)))
		}
	}
	return nil
}

func (r *stepRunner) one(ctx context.Context, s step, begun *[]step) (skipped bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if s.done != nil {
		done, err := s.done(ctx)
		if err != nil || done {
			return done, err
		}
	}
	*begun = append(*begun, s)
	err = s.do(ctx)
	if cause := ctx.Err(); err != nil && cause != nil && !errors.Is(err, cause) {
		// What was going on matters less than that it was interrupted.
		err = fmt.Errorf("%w (%v)", cause, err)
	}
	return false, err
}

// takeBack undoes the begun steps. It runs to its end even when the caller
// has given up, for half a cluster is what the caller wants least.
func (r *stepRunner) takeBack(ctx context.Context, begun []step, cause error) error {
	if r.failed != nil {
		if where := r.failed(); where != "" {
			cause = fmt.Errorf("%w\nthe log is %s", cause, where)
		}
	}
	var errs []error
	for i := len(begun) - 1; i >= 0; i-- {
		s := begun[i]
		if s.undo == nil {
			continue
		}
		undoCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		err := s.undo(undoCtx)
		cancel()
		if err != nil {
			errs = append(errs, fmt.Errorf("undo %q: %w", s.name, err))
			continue
		}
		fmt.Fprintf(r.out, "  %-36s undone\n", s.name)
	}
	if len(errs) > 0 {
		return errors.Join(append([]error{cause}, errs...)...)
	}
	return cause
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
