package recorder

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"coracle/pkg/storage"
)

func storePlants() []plant {
	ctx := context.Background()
	put := func(f func(b storage.Backend, key string, value []byte, expect storage.Revision) (storage.Revision, error)) func() Plants {
		return func() Plants { return Plants{Backend: on("", stores{put: f})} }
	}
	sometimes, often := every{n: 6}, every{n: 2}
	return []plant{
		{name: "a comparison that is ignored", rules: []string{"OC-1"}, cfg: Config{Servers: 2}, make: put(func(b storage.Backend, key string, value []byte, expect storage.Revision) (storage.Revision, error) {
			rev, err := b.Put(ctx, key, value, expect, 0)
			if c, ok := errors.AsType[*storage.ConflictError](err); ok && expect > 0 && c.Current != nil {
				return b.Put(ctx, key, value, c.Current.ModRevision, 0)
			}
			return rev, err
		})},
		{name: "a revision that is used again", rules: []string{"RV-1"}, make: put(func(b storage.Backend, key string, value []byte, expect storage.Revision) (storage.Revision, error) {
			rev, err := b.Put(ctx, key, value, expect, 0)
			if err == nil && sometimes.now() {
				rev--
			}
			return rev, err
		})},
		{name: "a write that is acknowledged and lost", rules: []string{"I1"}, make: put(func(b storage.Backend, key string, value []byte, expect storage.Revision) (storage.Revision, error) {
			if sometimes.now() {
				return b.Current(ctx)
			}
			return b.Put(ctx, key, value, expect, 0)
		})},
		{name: "a write that is refused and stored", rules: []string{"OC-1"}, make: put(func(b storage.Backend, key string, value []byte, expect storage.Revision) (storage.Revision, error) {
			rev, err := b.Put(ctx, key, value, expect, 0)
			if err == nil && expect == 0 && often.now() {
				return 0, &storage.ConflictError{Key: key, Expect: expect, Revision: rev}
			}
			return rev, err
		})},
		{name: "a write that changes nothing and makes a revision", rules: []string{"RV-2"}, make: put(func(b storage.Backend, key string, value []byte, expect storage.Revision) (storage.Revision, error) {
			rev, err := b.Put(ctx, key, value, expect, 0)
			if err == nil && sometimes.now() {
				return b.Put(ctx, key, value, rev, 0)
			}
			return rev, err
		})},
		{name: "a create that happens twice", rules: []string{"OC-4", "OC-5"}, make: createdTwice},
		{name: "a deletion that is acknowledged and lost", rules: []string{"LIN"}, make: func() Plants {
			return Plants{Backend: on("", stores{delete: func(b storage.Backend, key string, expect storage.Revision) (storage.Revision, error) {
				if sometimes.now() {
					return b.Current(ctx)
				}
				return b.Delete(ctx, key, expect)
			}})}
		}},
		{name: "a feed that loses an event", rules: []string{"W-1", "RV-6"}, cfg: Config{Servers: 2}, make: func() Plants {
			when := every{n: 9}
			return Plants{Backend: on("b", stores{feed: func(batch *storage.Batch) {
				batch.Events = slices.DeleteFunc(slices.Clone(batch.Events), func(e storage.Event) bool { return mine(e.KV.Key) && when.now() })
			}})}
		}},
		{name: "a replica that takes old for new", rules: []string{"RV-6"}, cfg: Config{Servers: 2}, make: func() Plants {
			return Plants{Backend: on("b", stores{
				rev:  func(rev storage.Revision) storage.Revision { return max(1, rev-8) },
				feed: func(*storage.Batch) { time.Sleep(2 * time.Millisecond) },
			})}
		}},
	}
}

// createdTwice stores a create again after the object has been deleted, as a
// retry of a write of unknown outcome would.
func createdTwice() Plants {
	ctx := context.Background()
	var mu sync.Mutex
	first := map[string][]byte{}
	return Plants{Backend: on("", stores{
		put: func(b storage.Backend, key string, value []byte, expect storage.Revision) (storage.Revision, error) {
			rev, err := b.Put(ctx, key, value, expect, 0)
			if err == nil && expect == 0 {
				mu.Lock()
				first[key] = value
				mu.Unlock()
			}
			return rev, err
		},
		delete: func(b storage.Backend, key string, expect storage.Revision) (storage.Revision, error) {
			rev, err := b.Delete(ctx, key, expect)
			mu.Lock()
			value := first[key]
			delete(first, key)
			mu.Unlock()
			if err == nil && value != nil {
				if _, err := b.Put(ctx, key, value, 0, 0); err != nil && !errors.Is(err, storage.ErrExists) {
					return 0, err
				}
			}
			return rev, err
		},
	})}
}

func requestPlants() []plant {
	isGet := func(r *http.Request) bool { return r.Method == http.MethodGet && !isList(r) }
	staleGet := func(wants func(r *http.Request) bool) func() Plants {
		return func() Plants {
			var before kept
			return Plants{Transport: answers(func(r *http.Request, code int, body map[string]any) map[string]any {
				if code != http.StatusOK || !isGet(r) {
					return nil
				}
				old := before.swap(r.URL.Path, body)
				if old != nil {
					before.swap(r.URL.Path, old)
				}
				if !wants(r) {
					return nil
				}
				return old
			})}
		}
	}
	return []plant{
		{name: "a stale object", rules: []string{"LIN", "RV-6"}, make: staleGet(func(r *http.Request) bool { return len(r.URL.Query()) == 0 })},
		{name: "an object older than asked for", rules: []string{"RV-4"}, make: staleGet(func(r *http.Request) bool {
			rv := r.URL.Query().Get("resourceVersion")
			return rv != "" && rv != "0"
		})},
		{name: "a request that is refused for no reason", rules: []string{"ER-1"}, make: func() Plants {
			when := every{n: 20}
			return Plants{Transport: asked(func(r *http.Request, _ http.RoundTripper) *http.Response {
				if r.Method == http.MethodPatch && when.now() {
					return status(r, http.StatusUnprocessableEntity, "Invalid")
				}
				return nil
			})}
		}},
	}
}
