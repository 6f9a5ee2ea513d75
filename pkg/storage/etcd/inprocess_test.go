package etcd

import (
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// slowWatches serves each stream until released.
type slowWatches struct {
	pb.UnimplementedWatchServer
	release chan struct{}
}

func (s *slowWatches) Watch(pb.Watch_WatchServer) error {
	<-s.release
	return nil
}

// TestStreamsEndFirst: etcd is stopped when no stream reads it any more, and no
// stream begins then.
func TestStreamsEndFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowWatches{release: make(chan struct{})}
		s := &watchStreams{WatchServer: slow, idle: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- s.Watch(nil) }()
		synctest.Wait()
		time.AfterFunc(time.Second, func() { close(slow.release) })
		began := time.Now()
		s.end()
		if waited := time.Since(began); waited != time.Second {
			t.Errorf("the end waited %s for a stream of a second", waited)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := s.Watch(nil); status.Code(err) != codes.Unavailable {
			t.Errorf("a stream after the end: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		stuck := &slowWatches{release: make(chan struct{})}
		s := &watchStreams{WatchServer: stuck, idle: make(chan struct{})}
		go func() { _ = s.Watch(nil) }()
		synctest.Wait()
		began := time.Now()
		s.end()
		if waited := time.Since(began); waited != streamsEnd {
			t.Errorf("the end waited %s for a stream that is stuck", waited)
		}
		close(stuck.release)
	})
}
