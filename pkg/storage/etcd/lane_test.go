package etcd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"coracle/pkg/storage"
	"coracle/pkg/storage/etcd"
)

func awaitLane(t testing.TB, s *etcd.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.AwaitLane(ctx); err != nil {
		t.Fatalf("no direct connection: %v", err)
	}
}

// TestLaneLostAnswer: a write without an answer has an unknown outcome, and one
// whose connection breaks too; both have happened once. Then the store goes on.
func TestLaneLostAnswer(t *testing.T) {
	addr, conf := external(t)
	through, mute, cut := cuttable(t, addr)
	s, direct := dial(t, through, conf), dial(t, addr, conf)
	awaitLane(t, s)
	mute.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := s.Put(ctx, "/registry/a/late", nil, 0, 0)
	if _, unknown := errors.AsType[*storage.OutcomeUnknownError](err); !unknown || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a write without an answer: %v", err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := s.Put(t.Context(), "/registry/a/cut", nil, 0, 0)
		failed <- err
	}()
	for { // until the second write has happened
		if _, _, err := direct.Get(t.Context(), "/registry/a/cut"); err == nil {
			break
		} else if !errors.Is(err, storage.ErrNotFound) {
			t.Fatal(err)
		}
	}
	cut()
	err = <-failed
	if _, unknown := errors.AsType[*storage.OutcomeUnknownError](err); !unknown {
		t.Errorf("a write whose connection broke: %v", err)
	}
	mute.Store(false)
	for _, key := range []string{"/registry/a/late", "/registry/a/cut"} {
		kv, _, err := direct.Get(t.Context(), key)
		if err != nil || kv.ModRevision != kv.CreateRevision {
			t.Errorf("%s: %+v, %v", key, kv, err)
		}
	}
	if _, err := s.Put(t.Context(), "/registry/a/after", nil, 0, 0); err != nil {
		t.Errorf("after the connection broke: %v", err)
	}
	awaitLane(t, s)
	if _, err := s.Put(t.Context(), "/registry/a/again", nil, 0, 0); err != nil {
		t.Errorf("over the next connection: %v", err)
	}
}

// cuttable is a proxy whose connections can be cut.
func cuttable(t *testing.T, to string) (addr string, mute *atomic.Bool, cut func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	inner, mute := proxy(t, to)
	var mu sync.Mutex
	var open []net.Conn
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", inner)
			if err != nil {
				_ = client.Close()
				continue
			}
			mu.Lock()
			open = append(open, client, server)
			mu.Unlock()
			go copyAll(server, client)
			go copyAll(client, server)
		}
	}()
	return l.Addr().String(), mute, func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range open {
			_ = c.Close()
		}
		open = nil
	}
}

func copyAll(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			_ = to.Close()
			return
		}
	}
}

// TestLaneWindows: many large values at once need more room than etcd gives at
// first, on the way there and back.
func TestLaneWindows(t *testing.T) {
	addr, conf := external(t)
	s := dial(t, addr, conf)
	awaitLane(t, s)
	const size, count = 1 << 20, 24
	var g errgroup.Group
	for i := range count {
		g.Go(func() error {
			key, value := fmt.Sprintf("/registry/big/%d", i), bytes.Repeat([]byte{byte(i)}, size)
			rev, err := s.Put(t.Context(), key, value, 0, 0)
			if err != nil {
				return err
			}
			// The answer to a transaction that is refused holds the value.
			_, err = s.Put(t.Context(), key, nil, 0, 0)
			conflict, ok := errors.AsType[*storage.ConflictError](err)
			if !ok || conflict.Current == nil || conflict.Current.ModRevision != rev || !bytes.Equal(conflict.Current.Value, value) {
				return fmt.Errorf("the conflict on %s: %w", key, err)
			}
			_, err = s.Delete(t.Context(), key, rev)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := s.Put(t.Context(), "/registry/big/toolarge", make([]byte, 8<<20), 0, 0); !errors.Is(err, storage.ErrTooLarge) {
		t.Errorf("a value that is too large: %v", err)
	}
}

// BenchmarkPut is the processor time of a write by 32 writers, that of etcd in
// the same process included.
func BenchmarkPut(b *testing.B) {
	for _, lane := range []bool{true, false} {
		b.Run(fmt.Sprintf("lane=%v", lane), func(b *testing.B) {
			addr := plain(b)
			s, err := etcd.Dial(b.Context(), etcd.External{Endpoints: []string{"http://" + addr}})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			if lane {
				awaitLane(b, s)
			} else {
				s.WithoutLane()
			}
			value := bytes.Repeat([]byte("x"), 1400)
			var next atomic.Int64
			b.SetParallelism(16)
			before := cpuTime()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := s.Put(b.Context(), fmt.Sprintf("/registry/bench/%d", next.Add(1)), value, 0, 0); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
