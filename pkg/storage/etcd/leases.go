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

// leases hands out leases for times to live. It measures time from its own
// beginning, so that a jump of the wall clock ends no key early or late.
type leases struct {
	grant func(ctx context.Context, seconds int64) (clientv3.LeaseID, error)
	clock clock.PassiveClock
	epoch time.Time

	mu   sync.Mutex // guards all below, also while a lease is being granted
	open map[slice]*lease
}

// slice is a stretch of time in which keys end.
type slice struct {
	end   time.Duration // since the epoch
	width time.Duration
}

type lease struct {
	id   clientv3.LeaseID
	keys int
}

func newLeases(client *clientv3.Client, c clock.PassiveClock) *leases {
	return &leases{
		clock: c,
		epoch: c.Now(),
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
	now := l.clock.Since(l.epoch)
	for at := range l.open {
		if at.end <= now {
			delete(l.open, at)
		}
	}
	at := slice{end: (now + ttl + width - 1) / width * width, width: width}
	if have := l.open[at]; have != nil && have.keys < keysPerLease {
		have.keys++
		return have.id, nil
	}
	seconds := int64((at.end - now + time.Second - 1) / time.Second)
	id, err := l.grant(ctx, seconds)
	if err != nil {
		return 0, err
	}
	l.open[at] = &lease{id: id, keys: 1}
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
