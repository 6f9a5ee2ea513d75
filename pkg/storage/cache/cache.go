package cache

import (
	"context"
	"errors"
	"sync"
	"time"

	"coracle/pkg/storage"
)

var errNotYet = errors.New("the watch cache is not there yet")

type memos struct{ mu sync.Mutex }

// Cache is the watch cache of one API server.
type Cache struct{ cfg Config }

// New makes a cache; it serves after Run has filled it.
func New(cfg Config) *Cache { return &Cache{cfg: cfg} }

// Run fills the cache and keeps it current until ctx ends.
func (c *Cache) Run(ctx context.Context) error { return errNotYet }

// WaitReady blocks until the cache has been filled, or ctx ends.
func (c *Cache) WaitReady(ctx context.Context) error { return errNotYet }

// AddKind adds a kind at run time and loads its objects.
func (c *Cache) AddKind(ctx context.Context, kind Kind) error { return errNotYet }

// RemoveKind forgets a kind; its watchers end with ErrKindRemoved.
func (c *Cache) RemoveKind(prefix string) {}

// Get returns one object, or storage.ErrNotFound.
func (c *Cache) Get(ctx context.Context, key string, read Read) (*Object, error) {
	return nil, errNotYet
}

// List returns the objects under prefix.
func (c *Cache) List(ctx context.Context, prefix string, opts ListOptions) (*List, error) {
	return nil, errNotYet
}

// Watch opens a watch of the objects under prefix.
func (c *Cache) Watch(ctx context.Context, prefix string, opts WatchOptions) (*Watcher, error) {
	return nil, errNotYet
}

// Watcher is one open watch.
type Watcher struct{}

// Next blocks until there are events.
func (w *Watcher) Next(ctx context.Context) ([]WatchEvent, error) { return nil, errNotYet }

// Close ends the watch; a blocked Next returns storage.ErrClosed.
func (w *Watcher) Close() {}

// Create writes a new key.
func (c *Cache) Create(ctx context.Context, key string, value []byte, ttl time.Duration) (*Object, error) {
	return nil, errNotYet
}

// Update replaces the value of a key that is at revision expect.
func (c *Cache) Update(ctx context.Context, key string, value []byte, expect storage.Revision, ttl time.Duration) (*Object, error) {
	return nil, errNotYet
}

// Delete removes a key that is at revision expect and returns its last state.
func (c *Cache) Delete(ctx context.Context, key string, expect storage.Revision) (*Object, error) {
	return nil, errNotYet
}

// Object reads a stored key, for example the Current of a ConflictError.
func (c *Cache) Object(kv *storage.KV) (*Object, error) { return nil, errNotYet }

// Revision is the newest revision that the cache has applied.
func (c *Cache) Revision() storage.Revision { return 0 }

// Current is the store's revision, linearizably.
func (c *Cache) Current(ctx context.Context) (storage.Revision, error) { return 0, errNotYet }

// Lag is for how long the cache has been behind the store.
func (c *Cache) Lag() time.Duration { return 0 }

// Stats describes the kinds.
func (c *Cache) Stats() []KindStats { return nil }

// Encoding remembers an encoding of the object.
func (o *Object) Encoding(id string, make func() ([]byte, error)) ([]byte, error) { return make() }

// Decoded remembers a decoded form of the object.
func (o *Object) Decoded(make func() (any, error)) (any, error) { return make() }
