package etcd

import (
	"context"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy/adapter"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// streamsEnd bounds the wait for the server's side of watches to end.
const streamsEnd = 5 * time.Second

// newInProcessClient is a client of a server in this process, and the streams
// that its watches have there.
func newInProcessClient(server *etcdserver.EtcdServer) (*clientv3.Client, *watchStreams) {
	streams := &watchStreams{WatchServer: v3rpc.NewWatchServer(server), idle: make(chan struct{})}
	client := v3client.New(server)
	client.Watcher = namelessWatcher{clientv3.NewWatchFromWatchClient(adapter.WatchServerToWatchClient(streams), client)}
	return client, streams
}

// watchStreams counts the streams that a watch server serves. An etcd that
// closes its files while a stream still looks up the previous value of an
// event would crash the process, and nobody else waits for streams that did
// not come over a network.
type watchStreams struct {
	pb.WatchServer
	mu     sync.Mutex
	open   int           // guarded by mu
	closed bool          // guarded by mu; no stream begins any more
	idle   chan struct{} // closed when closed is set and no stream is open
}

// Watch implements pb.WatchServer.
func (s *watchStreams) Watch(stream pb.Watch_WatchServer) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return status.Error(codes.Unavailable, "the embedded etcd is stopping")
	}
	s.open++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.open--
		if s.closed && s.open == 0 {
			close(s.idle)
		}
	}()
	return s.WatchServer.Watch(stream)
}

// end waits until no stream is left. Their client has been closed before.
func (s *watchStreams) end() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		if s.open == 0 {
			close(s.idle)
		}
	}
	s.mu.Unlock()
	timer := time.NewTimer(streamsEnd)
	defer timer.Stop()
	select {
	case <-s.idle:
	case <-timer.C:
	}
}

// namelessWatcher hides what a context prints as, which etcd's client reads
// while others write it.
type namelessWatcher struct{ clientv3.Watcher }

// Watch implements clientv3.Watcher.
func (w namelessWatcher) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	return w.Watcher.Watch(namelessContext{ctx}, key, opts...)
}

// RequestProgress implements clientv3.Watcher.
func (w namelessWatcher) RequestProgress(ctx context.Context) error {
	return w.Watcher.RequestProgress(namelessContext{ctx})
}

type namelessContext struct{ context.Context }

// String implements fmt.Stringer.
func (namelessContext) String() string { return "(in process)" }
