package cache

import (
	"context"
	"sync"
	"time"
)

const (
	lagInterval = 2 * time.Second
	// lagRestart is the lag at which the watch is given up and opened anew.
	lagRestart = 15 * time.Second
	// sweepInterval is how often old events and snapshots are dropped.
	sweepInterval = 30 * time.Second
)

// lagMeter knows when the cache was last seen to be up with the store.
type lagMeter struct {
	mu   sync.Mutex
	good time.Time // zero before the cache has been filled
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
	restarted, swept := c.cfg.Clock.Now(), c.cfg.Clock.Now()
	for {
		select {
		case <-ticker.C():
		case <-ctx.Done():
			return
		}
		c.measure(ctx)
		now := c.cfg.Clock.Now()
		if c.Lag() > lagRestart && now.Sub(restarted) > lagRestart {
			restarted = now
			c.log.Warn("The watch of the store is silent, it is opened again", "lag", c.Lag(), "revision", c.Revision())
			c.mu.Lock()
			if c.unfollow != nil {
				c.unfollow()
			}
			c.mu.Unlock()
		}
		if now.Sub(swept) >= sweepInterval {
			swept = now
			c.sweep(now)
		}
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
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.table() {
		k.trim(now)
		k.dropOldSnapshots(now)
	}
}
