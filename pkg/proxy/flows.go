package proxy

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"coracle/pkg/network"
	"coracle/pkg/network/rule"
)

// stale tells whether a UDP flow goes to a front in the list, and to none of
// its endpoints.
func stale(f network.Flow, fronts map[netip.AddrPort]UDPFront) bool {
	front, ok := fronts[f.Asked]
	if !ok && f.ToNode {
		front, ok = fronts[netip.AddrPortFrom(rule.Unspecified(f.Asked.Addr().Is6()), f.Asked.Port())]
	}
	return ok && !slices.Contains(front.Backends, f.Answers)
}

// flowCleaner ends UDP flows to endpoints that are gone, beside the loop: the
// table of all connections can be long. TCP ends by itself and is left alone.
type flowCleaner struct {
	netns int
	log   *slog.Logger

	mu sync.Mutex
	// waiting holds the newest state of each changed front; guarded by mu.
	waiting map[netip.AddrPort]UDPFront
	wake    chan struct{}
}

func newFlowCleaner(ns int, log *slog.Logger) *flowCleaner {
	return &flowCleaner{netns: ns, log: log, waiting: map[netip.AddrPort]UDPFront{}, wake: make(chan struct{}, 1)}
}

// add hands over changed fronts. The table must have the change already, or a
// deleted flow could come back as it was.
func (c *flowCleaner) add(fronts []UDPFront) {
	if len(fronts) == 0 {
		return
	}
	c.mu.Lock()
	for _, f := range fronts {
		c.waiting[netip.AddrPortFrom(f.Addr, f.Port)] = f
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *flowCleaner) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		c.mu.Lock()
		fronts := c.waiting
		c.waiting = map[netip.AddrPort]UDPFront{}
		c.mu.Unlock()
		n, err := network.DeleteUDPFlows(c.netns, func(f network.Flow) bool { return stale(f, fronts) })
		if err != nil {
			// Nothing to retry: what is missed ends with its timeout.
			c.log.Warn("could not end UDP flows to removed endpoints; they end by their timeout", "error", err)
		} else if n > 0 {
			c.log.Info("ended UDP flows to removed endpoints", "flows", n)
		}
	}
}
