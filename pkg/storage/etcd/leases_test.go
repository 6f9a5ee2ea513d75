package etcd

import (
	"context"
	"errors"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestLeases(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(1000, 0))
	var granted []int64
	l := newLeases(nil, clock)
	l.grant = func(_ context.Context, seconds int64) (clientv3.LeaseID, error) {
		granted = append(granted, seconds)
		return clientv3.LeaseID(len(granted)), nil
	}
	get := func(ttl time.Duration) clientv3.LeaseID {
		t.Helper()
		id, err := l.get(t.Context(), ttl)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	// Within one minute all keys of one hour share a lease that ends in time.
	began := clock.Now()
	id := get(time.Hour)
	for range keysPerLease - 1 {
		clock.Step(100 * time.Millisecond)
		if next := get(time.Hour); next != id {
			// A new slice began; it must not end before the hour is over.
			id = next
		}
		ends := began.Add(time.Duration(granted[id-1]) * time.Second)
		if left := ends.Sub(clock.Now()); id == 1 && (left < time.Hour || left > time.Hour+time.Minute) {
			t.Fatalf("a key of one hour ends in %v", left)
		}
	}
	if len(granted) > 2 {
		t.Errorf("%d leases in 20 seconds", len(granted))
	}
	// One lease holds so many keys and no more.
	granted = nil
	l.open = map[slice]*lease{}
	for range 2*keysPerLease + 1 {
		get(time.Hour)
	}
	if len(granted) != 3 {
		t.Errorf("%d leases for %d keys", len(granted), 2*keysPerLease+1)
	}
	// Ended ones are forgotten, and a forgotten one is not handed out.
	clock.Step(3 * time.Hour)
	id = get(10 * time.Second)
	if len(l.open) != 1 {
		t.Errorf("%d leases are remembered", len(l.open))
	}
	l.forget(id)
	if again := get(10 * time.Second); again == id {
		t.Error("a forgotten lease was handed out")
	}
	l.grant = func(context.Context, int64) (clientv3.LeaseID, error) { return 0, errors.New("no") }
	if _, err := l.get(t.Context(), 24*time.Hour); err == nil {
		t.Error("the error of etcd was lost")
	}
}
