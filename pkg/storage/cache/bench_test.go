package cache

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"coracle/pkg/storage"
	"coracle/pkg/storage/etcd"
	"coracle/pkg/storage/memory"
)

// benchValue is as large as a small pod.
var benchValue = append([]byte("in,app;"), bytes.Repeat([]byte("x"), 2000)...)

// indexBench is cheap, so that the cache itself is measured.
func indexBench(key string, stored []byte, rev storage.Revision) (*Object, error) {
	value := make([]byte, 0, len(stored)+24)
	value = fmt.Appendf(value, "@%020d ", rev)
	if stored[0] == '@' {
		stored = stored[22:]
	}
	return &Object{Value: append(value, stored...), Labels: benchLabels}, nil
}

var benchLabels = map[string]string{"in": "true"}

func benchCache(b *testing.B, backend storage.Backend, change func(*Config)) *Cache {
	b.Helper()
	cfg := Config{Backend: backend, SoleWriter: true, Kinds: []Kind{{Prefix: pods, Index: indexBench}}}
	if change != nil {
		change(&cfg)
	}
	c := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		<-done
	})
	if err := c.WaitReady(ctx); err != nil {
		b.Fatal(err)
	}
	return c
}

func benchStores(b *testing.B, run func(b *testing.B, store storage.Backend)) {
	b.Run("memory", func(b *testing.B) {
		s := memory.New(memory.Config{})
		defer s.Close()
		run(b, s)
	})
	for name, unsafe := range map[string]bool{"etcd": false, "etcd-nofsync": true} {
		b.Run(name, func(b *testing.B) {
			s, err := etcd.StartEmbedded(b.Context(), etcd.Config{DataDir: b.TempDir(), UnsafeNoFsync: unsafe})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			run(b, s)
		})
	}
}

// parallelPuts creates b.N keys with so many writers.
func parallelPuts(b *testing.B, writers int, put func(ctx context.Context, key string) error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range writers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := put(context.Background(), fmt.Sprintf("%sdefault/pod-%09d", pods, i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
}

// BenchmarkPut compares puts through the cache with puts into the store alone.
func BenchmarkPut(b *testing.B) {
	for _, writers := range []int{1, 100} {
		benchStores(b, func(b *testing.B, store storage.Backend) {
			b.Run(fmt.Sprintf("store-%d", writers), func(b *testing.B) {
				parallelPuts(b, writers, func(ctx context.Context, key string) error {
					_, err := store.Put(ctx, key+fmt.Sprint(b.N), benchValue, 0, 0)
					return err
				})
			})
		})
		benchStores(b, func(b *testing.B, store storage.Backend) {
			c := benchCache(b, store, nil)
			b.Run(fmt.Sprintf("cache-%d", writers), func(b *testing.B) {
				parallelPuts(b, writers, func(ctx context.Context, key string) error {
					_, err := c.Create(ctx, key+fmt.Sprint(b.N), benchValue, 0)
					return err
				})
			})
		})
	}
}

// filled makes a cache with n pods, loaded at its start.
func filled(b *testing.B, n int, sole bool) *Cache {
	b.Helper()
	store := memory.New(memory.Config{})
	b.Cleanup(func() { _ = store.Close() })
	for i := range n {
		if _, err := store.Put(b.Context(), fmt.Sprintf("%sns%d/pod-%06d", pods, i%10, i), benchValue, 0, 0); err != nil {
			b.Fatal(err)
		}
	}
	return benchCache(b, store, func(cfg *Config) { cfg.SoleWriter = sole })
}

func BenchmarkGet(b *testing.B) {
	for _, read := range []struct {
		name string
		sole bool
		read Read
	}{{"any", true, Read{Any: true}}, {"consistent-sole", true, Read{}}, {"consistent-shared", false, Read{}}} {
		b.Run(read.name, func(b *testing.B) {
			c := filled(b, 10_000, read.sole)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					n := i * 7919 % 10_000
					if _, err := c.Get(b.Context(), fmt.Sprintf("%sns%d/pod-%06d", pods, n%10, n), read.read); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func BenchmarkList10k(b *testing.B) {
	c := filled(b, 10_000, true)
	for name, opts := range map[string]ListOptions{"all": {}, "selected": {Match: labelled("none")}, "page-500": {Limit: 500}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.List(b.Context(), pods, opts); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFanOut writes with many watchers and waits until each has all.
func BenchmarkFanOut(b *testing.B) {
	for _, watchers := range []int{1, 100, 5000} {
		b.Run(fmt.Sprint(watchers), func(b *testing.B) {
			c := filled(b, 0, true)
			var wg sync.WaitGroup
			for range watchers {
				w, err := c.Watch(b.Context(), pods, WatchOptions{})
				if err != nil {
					b.Fatal(err)
				}
				wg.Go(func() {
					defer w.Close()
					for got := 0; got < b.N; {
						events, err := w.Next(context.Background())
						if err != nil {
							b.Error(err)
							return
						}
						got += len(events)
					}
				})
			}
			b.ResetTimer()
			var slowest time.Duration
			for i := range b.N {
				began := time.Now()
				if _, err := c.Create(context.Background(), fmt.Sprintf("%sdefault/%09d", pods, i), benchValue, 0); err != nil {
					b.Fatal(err)
				}
				slowest = max(slowest, time.Since(began))
			}
			wg.Wait()
			b.ReportMetric(float64(b.N*watchers)/b.Elapsed().Seconds(), "deliveries/s")
			b.ReportMetric(float64(slowest.Microseconds()), "slowest-put-us")
		})
	}
}

// BenchmarkNodes writes pods of many nodes, each node watching its own.
func BenchmarkNodes(b *testing.B) {
	const nodes = 5000
	for _, hint := range []bool{false, true} {
		b.Run(fmt.Sprintf("hint-%t", hint), func(b *testing.B) {
			store := memory.New(memory.Config{})
			defer store.Close()
			var seen atomic.Int64
			c := benchCache(b, store, func(cfg *Config) {
				cfg.Kinds = []Kind{{Prefix: pods, Index: func(key string, stored []byte, rev storage.Revision) (*Object, error) {
					o, err := indexBench(key, stored, rev)
					o.Fields = map[string]string{"spec.nodeName": key[len(key)-4:]}
					return o, err
				}}}
			})
			var wg sync.WaitGroup
			ctx, cancel := context.WithCancel(context.Background())
			for n := range nodes {
				value := fmt.Sprintf("%04d", n)
				opts := WatchOptions{Match: func(o *Object) bool { return o.Fields["spec.nodeName"] == value }}
				if hint {
					opts.Field, opts.Value = "spec.nodeName", value
				}
				w, err := c.Watch(ctx, pods, opts)
				if err != nil {
					b.Fatal(err)
				}
				wg.Go(func() {
					defer w.Close()
					for {
						events, err := w.Next(ctx)
						if err != nil {
							return
						}
						seen.Add(int64(len(events)))
					}
				})
			}
			b.ResetTimer()
			for i := range b.N {
				if _, err := c.Create(ctx, fmt.Sprintf("%sdefault/%09d-%04d", pods, i, i%nodes), benchValue, 0); err != nil {
					b.Fatal(err)
				}
			}
			for seen.Load() < int64(b.N) {
				time.Sleep(time.Millisecond)
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			cancel()
			wg.Wait()
		})
	}
}

// BenchmarkIngest feeds the cache by the watch alone.
func BenchmarkIngest(b *testing.B) {
	c := benchCache(b, memory.New(memory.Config{}), nil)
	rev := c.Revision()
	const batch = 500
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += batch {
		var events storage.Batch
		for i := range batch {
			rev++
			events.Events = append(events.Events, storage.Event{Type: storage.Put, KV: storage.KV{
				Key: fmt.Sprintf("%sdefault/%06d", pods, (done+i)%50_000), Value: benchValue, ModRevision: rev, CreateRevision: rev,
			}})
		}
		events.Progress = rev
		c.take(&events)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
