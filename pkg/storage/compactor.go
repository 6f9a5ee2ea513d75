package storage

import (
	"context"
	"log/slog"
	"time"

	"k8s.io/utils/clock"
)

// CompactionInterval is how often a Compactor compacts when nobody says
// otherwise. History is kept for that long at least and twice that at most.
const CompactionInterval = 5 * time.Minute

// Compactor drops old history: at each tick it compacts to where the store was
// at the tick before. Several processes may do so on one store.
type Compactor struct {
	Backend  Backend           // required
	Interval time.Duration     // default CompactionInterval
	Clock    clock.WithTicker  // default the real clock
	Log      *slog.Logger      // nil discards
	Done     func(to Revision) // called after each compaction; may be nil
}

// compactTimeout bounds the two calls of one tick together.
const compactTimeout = time.Minute

// Run compacts until ctx ends and returns nil.
func (c Compactor) Run(ctx context.Context) error {
	if c.Interval == 0 {
		c.Interval = CompactionInterval
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	ticker := c.Clock.NewTicker(c.Interval)
	defer ticker.Stop()
	var seen, compacted Revision
	for {
		select {
		case <-ticker.C():
		case <-ctx.Done():
			return nil
		}
		now, err := c.tick(ctx, seen, compacted)
		if err != nil {
			if ctx.Err() == nil {
				c.Log.Warn("The store's history has not been compacted", "error", err, "retry", c.Interval)
			}
			continue
		}
		seen, compacted = now, seen
	}
}

// tick compacts to the revision seen last time, unless that has been done, and
// returns the present one.
func (c Compactor) tick(ctx context.Context, seen, compacted Revision) (Revision, error) {
	ctx, cancel := context.WithTimeout(ctx, compactTimeout)
	defer cancel()
	if seen > compacted {
		if err := c.Backend.Compact(ctx, seen); err != nil {
			return 0, err
		}
		if c.Done != nil {
			c.Done(seen)
		}
	}
	return c.Backend.Current(ctx)
}
