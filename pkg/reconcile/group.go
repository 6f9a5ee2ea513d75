package reconcile

import (
	"context"
	"fmt"
	"sync"
)

// Runner is one long-running part. Run blocks until all its goroutines have
// ended; cancellation is not an error.
type Runner interface {
	Run(ctx context.Context) error
}

// Named is a Runner with the name its errors carry.
type Named struct {
	Name string
	Runner
}

// RunAll starts the parts in order and blocks until all have returned. The
// first that fails ends the others; its error is returned.
func RunAll(ctx context.Context, parts []Named) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var once sync.Once
	var first error
	for _, p := range parts {
		wg.Go(func() {
			if err := p.Run(ctx); err != nil {
				once.Do(func() { first = fmt.Errorf("%s: %w", p.Name, err) })
				cancel(err)
			}
		})
	}
	wg.Wait()
	return first
}
