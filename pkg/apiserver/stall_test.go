package apiserver_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"coracle/pkg/storage"
	"coracle/pkg/storage/memory"
	"coracle/pkg/testcluster"
)

// silentStore is a store whose watches can fall silent.
type silentStore struct {
	storage.Backend
	silent atomic.Bool
}

type silentWatch struct {
	storage.Watch
	store *silentStore
}

func (s *silentStore) Watch(ctx context.Context, prefix string, opts storage.WatchOptions) (storage.Watch, error) {
	w, err := s.Backend.Watch(ctx, prefix, opts)
	return &silentWatch{w, s}, err
}

func (w *silentWatch) Next(ctx context.Context) (storage.Batch, error) {
	batch, err := w.Watch.Next(ctx)
	if w.store.silent.Load() {
		<-ctx.Done()
		return storage.Batch{}, ctx.Err()
	}
	return batch, err
}

// TestStalledFeed: W-8. A server whose watch of the store is silent while
// others write is not ready after five seconds, and ready again by itself.
func TestStalledFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := memory.New(memory.Config{})
		defer func() { _ = backend.Close() }()
		store := &silentStore{Backend: backend}
		s := newServer(t, testcluster.WithBackend(store))
		time.Sleep(time.Minute)
		s.must(t, 200, "GET", "/readyz", "")
		store.silent.Store(true)
		if _, err := backend.Put(t.Context(), "/registry/elsewhere/key", []byte("x"), 0, 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		s.must(t, 200, "GET", "/readyz", "")
		time.Sleep(6 * time.Second)
		if a := s.must(t, 500, "GET", "/readyz", ""); !strings.Contains(string(a.body), "watch-cache") {
			t.Errorf("the server says it is not ready for %s", a.body)
		}
		s.must(t, 200, "GET", "/livez", "")
		// Everything is read again although no watch says a word.
		time.Sleep(20 * time.Second)
		s.must(t, 200, "GET", "/readyz", "")
	})
}
