package cache

import (
	"context"
	"sync"
	"time"
)

const (
	lagInterval = 2 * time.Second
	// lagReopen is the lag at which the watch is given up and opened anew, from
	// where it stopped; lagRelist the one at which everything is read again,
	// since a watch that opens and stays silent helps nobody.
	lagReopen = 8 * time.Second
	lagRelist = 15 * time.Second
	// sweepInterval is how often old events and snapshots are dropped.
	sweepInterval = 30 * time.Second
)

// lagMeter knows when the cache was last seen to be up with the store.
type lagMeter struct {
	mu   sync.Mutex
	good time.Time // zero before the cache has been filled
	// step is what unstick has done, and stepped when; its own.
	step    int
	stepped time.Time
}

// Lag is the time since the cache was last known to have everything that the
// store had. It is below about two seconds in normal operation, also when
// nothing happens, and grows when the watch is silent or the store does not
// answer. A server above five seconds is not ready. It is 0 before the cache
// has been filled; WaitReady tells that.
func (c *Cache) Lag() time.Duration {
	c.lag.mu.Lock()
	defer c.lag.mu.Unlock()
	if c.lag.good.IsZero() {
		return 0
	}
	return max(0, c.cfg.Clock.Since(c.lag.good))
}

// watchLag measures the lag, opens the watch anew when it stays silent, and
// drops what is old.
func (c *Cache) watchLag(ctx context.Context) {
	if c.WaitReady(ctx) != nil {
		return
	}
	c.caughtUp(c.cfg.Clock.Now())
	ticker := c.cfg.Clock.NewTicker(lagInterval)
	defer ticker.Stop()
	swept := c.cfg.Clock.Now()
	for {
		select {
		case <-ticker.C():
		case <-ctx.Done():
			return
		}
		c.measure(ctx)
		now := c.cfg.Clock.Now()
		c.unstick(c.cfg.Clock.Now())
		if now.Sub(swept) >= sweepInterval {
			swept = now
			c.sweep(now)
		}
	}
}

// unstick does something about a watch that stays silent: it is opened anew
// once, then everything is read again, each time that lagRelist has passed.
func (c *Cache) unstick(now time.Time) {
	step, lag := 0, c.Lag()
	switch {
	case lag > lagRelist:
		step = 2
	case lag > lagReopen:
		step = 1
	}
	again := step == 2 && now.Sub(c.lag.stepped) > lagRelist
	if step <= c.lag.step && !again {
		c.lag.step = step
		return
	}
	c.lag.step, c.lag.stepped = step, now
	c.log.Warn("The watch of the store is silent, it is opened again", "lag", lag, "revision", c.Revision(), "relist", step == 2)
	c.relist.Store(step == 2)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unfollow != nil {
		c.unfollow()
	}
}

// measure asks the store for its revision and gives the cache a moment to reach
// it.
func (c *Cache) measure(ctx context.Context) {
	asked := c.cfg.Clock.Now()
	rev, err := c.Current(ctx)
	if err != nil {
		return
	}
	if c.waitApplied(ctx, rev, lagInterval) == nil {
		c.caughtUp(asked)
	}
}

func (c *Cache) caughtUp(at time.Time) {
	c.lag.mu.Lock()
	defer c.lag.mu.Unlock()
	c.lag.good = at
}

func (c *Cache) sweep(now time.Time) {
	c.exclusive(func() {
		for _, k := range c.table() {
			k.trim(now)
			k.dropSnapshots(func(s snapshot) bool { return now.Sub(s.at) > snapshotAge })
		}
	})
}
