package etcd

import (
	"context"
	"time"
)

// AwaitLane waits until the store has its short way to etcd.
func (s *Store) AwaitLane(ctx context.Context) error {
	for s.lane.get() == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// WithoutLane leaves etcd's client alone.
func (s *Store) WithoutLane() {
	s.lane.close()
	s.lane = nil
}
