package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/utils/clock"

	"coracle/pkg/storage"
)

// Errors of the cache itself.
var (
	ErrNoKind      = errors.New("no kind of the cache has this key or prefix: add the kind first")
	ErrKindRemoved = errors.New("the kind has been removed")
)

// Cache is the watch cache of one API server. All methods may be called from
// any number of goroutines.
type Cache struct {
	cfg   Config
	log   *slog.Logger
	memos *memoBudget

	kinds atomic.Pointer[kindTable]
	// applied is the revision up to which every change is in the kinds' states;
	// shown is the one up to which every event is in their rings. applied is
	// never behind shown.
	applied, shown atomic.Int64
	// floor is a revision that somebody has seen already; a consistent read of
	// a sole writer waits for it.
	floor atomic.Int64
	// compacted is the revision before which history has expired; Compacted
	// raises it.
	compacted atomic.Int64

	relist atomic.Bool  // set while a silent watch is to be made up for by reading everything
	nudged atomic.Int64 // when progress was last asked for, Unix nanoseconds

	loading  chan struct{} // closed when Run has begun to read the store
	ready    chan struct{} // closed when the cache serves
	awake    wakeList
	freshest flights

	mu       sync.Mutex // orders all changes; guards all below
	pending  map[storage.Revision]change
	waiters  waiters
	unfollow context.CancelFunc // ends the present watch, nil when there is none

	lag lagMeter
}

// New makes a cache. It serves after Run has filled it. A kind that overlaps
// with another is a mistake of the program and panics.
func New(cfg Config) *Cache {
	if cfg.Prefix == "" {
		cfg.Prefix = storage.Root
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.RingBytes == 0 {
		cfg.RingBytes = 16 << 20
	}
	if cfg.MemoBytes == 0 {
		cfg.MemoBytes = 32 << 20
	}
	c := &Cache{
		cfg:     cfg,
		log:     cfg.Log,
		memos:   newMemoBudget(cfg.MemoBytes),
		loading: make(chan struct{}),
		ready:   make(chan struct{}),
		awake:   wakeList{bell: make(chan struct{}, 1)},
		pending: map[storage.Revision]change{},
	}
	var table kindTable
	for _, k := range cfg.Kinds {
		var err error
		if table, err = table.with(newKind(c, k)); err != nil {
			panic(err)
		}
	}
	c.kinds.Store(&table)
	return c
}

func (c *Cache) table() kindTable { return *c.kinds.Load() }

// WaitReady blocks until the cache has been filled once. The error is that of
// ctx.
func (c *Cache) WaitReady(ctx context.Context) error {
	select {
	case <-c.ready:
		return nil
	default:
	}
	select {
	case <-c.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the watch cache has not been filled yet: %w", ctx.Err())
	}
}

// Revision is the newest revision that the cache has applied; 0 before it has
// been filled.
func (c *Cache) Revision() storage.Revision { return storage.Revision(c.applied.Load()) }

// AddKind adds a kind at run time and returns when its objects are there. It
// may be called before Run, too. A failure leaves the kind out.
func (c *Cache) AddKind(ctx context.Context, cfg Kind) error {
	k := newKind(c, cfg)
	c.mu.Lock()
	select {
	case <-c.loading:
		c.mu.Unlock()
		return c.addLoaded(ctx, k)
	default:
	}
	defer c.mu.Unlock()
	return c.putKindLocked(k)
}

func (c *Cache) putKindLocked(k *kind) error {
	table, err := c.table().with(k)
	if err == nil {
		c.kinds.Store(&table)
	}
	return err
}

// addLoaded adds a kind while the feed runs: from the moment the kind is known
// its changes are set aside, then its objects are read, then those changes that
// are newer are made up for.
func (c *Cache) addLoaded(ctx context.Context, k *kind) error {
	if err := c.WaitReady(ctx); err != nil {
		return err
	}
	close(k.filled) // older history is read from the store when asked for
	c.mu.Lock()
	k.loading = &[]change{}
	err := c.putKindLocked(k)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	contents, err := c.readLoading(ctx, k)
	if err != nil {
		c.RemoveKind(k.Prefix)
		return fmt.Errorf("kind %s has not been added: %w", k.Prefix, err)
	}
	return c.waitApplied(ctx, contents.revision, time.Minute)
}

// catchUpLocked installs what has been read of a kind and makes up for what was
// set aside meanwhile. c.mu is held.
func (c *Cache) catchUpLocked(k *kind, contents *contents) {
	late := *k.loading
	k.loading = nil
	c.install(k, contents)
	now := c.cfg.Clock.Now()
	e := edit(k)
	e.last = contents.revision
	for i := range late {
		if late[i].rev > contents.revision {
			late[i].index()
			if ev := e.apply(&late[i]); ev != nil {
				k.add(ev, now)
			}
		}
	}
	k.state.Store(&kindState{objects: e.objects.Map(), corrupt: e.corrupt.Map(), revision: e.last})
	k.show(e.last, now)
	raise(&c.floor, contents.revision)
	close(k.loaded)
}

// readLoading reads and installs the objects of a kind whose changes are being
// set aside.
func (c *Cache) readLoading(ctx context.Context, k *kind) (*contents, error) {
	for {
		got, err := c.read(ctx, k)
		if err != nil {
			return nil, err
		}
		removed, done := false, false
		c.exclusive(func() {
			switch {
			case k.loading == nil:
				removed = true
			case k.spoiled:
				k.spoiled, k.loading = false, &[]change{}
			default:
				c.catchUpLocked(k, got)
				done = true
			}
		})
		switch {
		case removed:
			return nil, ErrKindRemoved
		case done:
			return got, nil
		}
	}
}

// RemoveKind forgets a kind and its objects; its watchers end with
// ErrKindRemoved. The stored objects stay. An unknown prefix is ignored.
func (c *Cache) RemoveKind(prefix string) {
	c.exclusive(func() {
		table, k := c.table().without(prefix)
		if k == nil {
			return
		}
		c.kinds.Store(&table)
		k.loading = nil
		close(k.removed)
		for _, o := range k.state.Load().objects.From("") {
			o.retire()
		}
	})
}

// exclusive runs f with c.mu held. After a panic in f the cache is half
// changed, which no reader may see: it ends the process, whoever recovers
// panics further up.
func (c *Cache) exclusive(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() {
		if p := recover(); p != nil {
			text := fmt.Sprintf("the watch cache broke while it was being changed: %v\n%s", p, debug.Stack())
			go func() { panic(text) }()
			select {} // keeps the lock until the process has ended
		}
	}()
	f()
}

// kindOf returns the loaded kind of a key or prefix.
func (c *Cache) kindOf(ctx context.Context, key string) (*kind, error) {
	if err := c.WaitReady(ctx); err != nil {
		return nil, err
	}
	k := c.table().find(key)
	if k == nil {
		return nil, fmt.Errorf("%q: %w", key, ErrNoKind)
	}
	select {
	case <-k.loaded:
		return k, nil
	default:
	}
	select {
	case <-k.loaded:
		return k, nil
	case <-k.removed:
		return nil, fmt.Errorf("%q: %w", key, ErrNoKind)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Mark tells states of a kind's objects apart.
type Mark struct{ state *kindState }

// Mark returns that of the state that reads of what the cache has see: as long
// as it stays equal (==), the kind's objects are the same. It costs nothing.
func (c *Cache) Mark(prefix string) Mark {
	if k := c.table().find(prefix); k != nil {
		return Mark{k.state.Load()}
	}
	return Mark{}
}

// Len is how many objects the cache has below prefix. It does not walk them.
func (c *Cache) Len(prefix string) int {
	if k := c.table().find(prefix); k != nil {
		return k.state.Load().objects.PrefixLen(prefix, "")
	}
	return 0
}

// Object reads a stored key as an object, for example the Current of a
// *storage.ConflictError. The error is a *CorruptError or wraps ErrNoKind.
func (c *Cache) Object(kv *storage.KV) (*Object, error) {
	k := c.table().find(kv.Key)
	if k == nil {
		return nil, fmt.Errorf("%q: %w", kv.Key, ErrNoKind)
	}
	return k.index(kv.Key, kv.Value, kv.ModRevision, kv.CreateRevision)
}

// Stats describes the kinds for metrics.
func (c *Cache) Stats() []KindStats {
	var out []KindStats
	for _, k := range c.table() {
		st := k.state.Load()
		out = append(out, KindStats{
			Prefix: k.Prefix, Objects: st.objects.Len(), Watchers: int(k.watchers.Load()),
			RingEvents: k.ring.len(), RingBytes: int(k.ring.bytes.Load()), Revision: st.revision,
		})
	}
	return out
}
