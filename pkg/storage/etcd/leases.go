package etcd

import (
	"context"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/utils/clock"
)

const (
	// longestSlack is how much longer than asked a key may live at most, so that
	// keys that end within one slice of time share a lease.
	longestSlack = time.Minute
	// keysPerLease bounds how many keys end in one transaction of etcd.
	keysPerLease = 200
)

// leases hands out leases for times to live.
type leases struct {
	grant func(ctx context.Context, seconds int64) (clientv3.LeaseID, error)
	clock clock.PassiveClock

	mu   sync.Mutex // guards all below, also while a lease is being granted
	open map[slice]*lease
}

// slice is a time at which keys end, and the width of the slices around it.
type slice struct {
	end   int64 // Unix nanoseconds
	width time.Duration
}

type lease struct {
	id   clientv3.LeaseID
	ends time.Time
	keys int
}

func newLeases(client *clientv3.Client, c clock.PassiveClock) *leases {
	return &leases{
		clock: c,
		open:  map[slice]*lease{},
		grant: func(ctx context.Context, seconds int64) (clientv3.LeaseID, error) {
			resp, err := client.Grant(ctx, seconds)
			if err != nil {
				return 0, err
			}
			return resp.ID, nil
		},
	}
}

// get returns a lease that ends in not less than ttl, and not more than a tenth
// of it, a minute at most and a second at least, later.
func (l *leases) get(ctx context.Context, ttl time.Duration) (clientv3.LeaseID, error) {
	width := min(max(ttl/10, time.Second), longestSlack)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	for at, have := range l.open {
		if !have.ends.After(now) {
			delete(l.open, at)
		}
	}
	// Slices are cut on the wall clock only to have common borders; the lease
	// itself is measured by etcd.
	ends := now.Add(ttl + width).Truncate(width)
	at := slice{end: ends.UnixNano(), width: width}
	if have := l.open[at]; have != nil && have.keys < keysPerLease {
		have.keys++
		return have.id, nil
	}
	seconds := int64((ends.Sub(now) + time.Second - 1) / time.Second)
	id, err := l.grant(ctx, seconds)
	if err != nil {
		return 0, err
	}
	l.open[at] = &lease{id: id, ends: ends, keys: 1}
	return id, nil
}

// forget drops a lease that etcd does not know any more.
func (l *leases) forget(id clientv3.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for at, have := range l.open {
		if have.id == id {
			delete(l.open, at)
		}
	}
}
