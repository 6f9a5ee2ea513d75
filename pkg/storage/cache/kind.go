package cache

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"coracle/pkg/storage"
	"coracle/pkg/storage/ordered"
)

// kind is the cached part of one resource.
type kind struct {
	Kind
	cache *Cache

	// base is the revision at which the kind was read from the store; changes up
	// to it are in the state already. Guarded by the cache's lock.
	base storage.Revision
	// lost is how far the cache had come when it last made up for a watch that
	// was silent: the store does not tell what followed, so that watchers that
	// have not passed it list again. Written under the cache's lock.
	lost atomic.Int64
	// state is replaced as a whole, under the cache's lock.
	state atomic.Pointer[kindState]
	// all is the watchers of the whole kind; its ring has every event.
	all  *group
	ring *ring // all.ring
	// loaded is closed when state holds the stored objects.
	loaded chan struct{}
	// removed is closed when the kind has been removed.
	removed chan struct{}
	// filled is closed when the ring holds what could be had of the history
	// before the start, or never will.
	filled chan struct{}

	watchers atomic.Int64 // of all groups
	// groups are the other groups that have watchers, fields how many of them
	// there are of each field, and touched those with events to be made visible.
	// Guarded by the cache's lock.
	groups  map[groupKey]*group
	fields  map[string]int
	touched []*group

	// loading collects changes while AddKind reads the stored objects, nil at
	// other times. Guarded by the cache's lock.
	loading *[]change
	// spoiled says that changes are missing in loading, so that the objects
	// must be read once more. Guarded by the cache's lock.
	spoiled bool

	snapMu sync.Mutex
	snaps  []snapshot // states that a paged list began with, oldest first
}

// kindState is every object of a kind as of a revision. It is immutable.
type kindState struct {
	objects ordered.Map[*Object]
	corrupt ordered.Map[*CorruptError] // keys whose value cannot be read
	// revision is that of the last change; the state holds from then on until
	// the next one.
	revision storage.Revision
}

// snapshot is a state known to hold from its own revision up to until.
type snapshot struct {
	state *kindState
	until storage.Revision
	at    time.Time
}

// maxSnapshots bounds the states kept for later pages, per kind. What is not
// here any more is read from the store's history.
const (
	maxSnapshots = 64
	snapshotAge  = 5 * time.Minute
)

func newKind(c *Cache, cfg Kind) *kind {
	k := &kind{
		Kind: cfg, cache: c, ring: newRing(0, chunkEvents),
		groups: map[groupKey]*group{}, fields: map[string]int{},
		loaded: make(chan struct{}), removed: make(chan struct{}), filled: make(chan struct{}),
	}
	k.state.Store(&kindState{})
	k.all = newGroup(k.ring)
	return k
}

// index reads a stored value as an object of the cache. What the kind's Index
// panics at is a value that cannot be read, and no reason to end.
func (k *kind) index(key string, stored []byte, rev, created storage.Revision) (*Object, error) {
	return k.read(k.Index, key, stored, rev, created)
}

// indexOwn is index for a value that this server has written.
func (k *kind) indexOwn(key string, stored []byte, rev, created storage.Revision) (*Object, error) {
	if k.Own == nil {
		return k.index(key, stored, rev, created)
	}
	return k.read(k.Own, key, stored, rev, created)
}

func (k *kind) read(index func(string, []byte, storage.Revision) (*Object, error), key string, stored []byte, rev, created storage.Revision) (o *Object, err error) {
	defer func() {
		if p := recover(); p != nil {
			o, err = nil, &CorruptError{Key: key, Revision: rev, Err: fmt.Errorf("reading it panicked: %v", p)}
		}
	}()
	o, err = index(key, stored, rev)
	if err != nil {
		return nil, &CorruptError{Key: key, Revision: rev, Err: err}
	}
	o.Key, o.Revision, o.CreateRevision = key, rev, created
	o.memo.budget = k.cache.memos
	return o, nil
}

// revise returns o as it is at another revision, that of its deletion.
func (k *kind) revise(o *Object, rev storage.Revision) (*Object, error) {
	if k.Revise == nil {
		return k.index(o.Key, o.Value, rev, o.CreateRevision)
	}
	value, err := k.Revise(o.Value, rev)
	if err != nil {
		return nil, &CorruptError{Key: o.Key, Revision: rev, Err: err}
	}
	return &Object{
		Key: o.Key, Namespace: o.Namespace, Name: o.Name, UID: o.UID, Revision: rev, CreateRevision: o.CreateRevision,
		Value: value, Labels: o.Labels, Fields: o.Fields, Deleting: o.Deleting, memo: memos{budget: k.cache.memos},
	}, nil
}

// keep remembers a state for later pages of a list that was served at rev.
func (k *kind) keep(st *kindState, rev storage.Revision) {
	now := k.cache.cfg.Clock.Now()
	k.snapMu.Lock()
	defer k.snapMu.Unlock()
	if n := len(k.snaps); n > 0 && k.snaps[n-1].state == st {
		k.snaps[n-1].until = max(k.snaps[n-1].until, rev)
		k.snaps[n-1].at = now
		return
	}
	k.snaps = append(k.snaps, snapshot{state: st, until: rev, at: now})
	if len(k.snaps) > maxSnapshots {
		k.snaps = slices.Delete(k.snaps, 0, 1)
	}
}

// kept returns a remembered state that holds at rev, or nil.
func (k *kind) kept(rev storage.Revision) *kindState {
	k.snapMu.Lock()
	defer k.snapMu.Unlock()
	for _, s := range k.snaps {
		if s.state.revision <= rev && rev <= s.until {
			return s.state
		}
	}
	return nil
}

// Compacted says that the store's history before rev is gone. Lists at a
// revision before it expire with it, also those that the cache could serve:
// whether a client's token holds must not depend on what else was read here.
func (c *Cache) Compacted(rev storage.Revision) {
	for {
		known := c.compacted.Load()
		if known >= int64(rev) {
			return
		}
		if c.compacted.CompareAndSwap(known, int64(rev)) {
			break
		}
	}
	for _, k := range c.table() {
		k.dropSnapshots(func(s snapshot) bool { return s.until < rev })
	}
}

func (k *kind) dropSnapshots(drop func(snapshot) bool) {
	k.snapMu.Lock()
	defer k.snapMu.Unlock()
	k.snaps = slices.DeleteFunc(k.snaps, drop)
}

// corruptUnder returns the first unreadable key under prefix, or nil.
func (st *kindState) corruptUnder(prefix string) error {
	for _, err := range st.corrupt.Prefix(prefix, "") {
		return err
	}
	return nil
}

// kindTable is an immutable list of kinds, ordered by prefix.
type kindTable []*kind

// find returns the kind that a key or a prefix belongs to, nil when there is
// none.
func (t kindTable) find(key string) *kind {
	i, found := slices.BinarySearchFunc(t, key, func(k *kind, key string) int { return strings.Compare(k.Prefix, key) })
	if found {
		return t[i]
	}
	if i > 0 && strings.HasPrefix(key, t[i-1].Prefix) {
		return t[i-1]
	}
	return nil
}

// with returns the table with one more kind.
func (t kindTable) with(k *kind) (kindTable, error) {
	if !strings.HasSuffix(k.Prefix, "/") || !strings.HasPrefix(k.Prefix, k.cache.cfg.Prefix) || k.Index == nil {
		return nil, fmt.Errorf("kind %q: its prefix must begin with %q and end with a slash, and it needs an Index", k.Prefix, k.cache.cfg.Prefix)
	}
	for _, other := range t {
		if strings.HasPrefix(k.Prefix, other.Prefix) || strings.HasPrefix(other.Prefix, k.Prefix) {
			return nil, fmt.Errorf("kind %q overlaps with kind %q: give each its own prefix", k.Prefix, other.Prefix)
		}
	}
	next := append(slices.Clone(t), k)
	slices.SortFunc(next, func(a, b *kind) int { return strings.Compare(a.Prefix, b.Prefix) })
	return next, nil
}

func (t kindTable) without(prefix string) (kindTable, *kind) {
	i := slices.IndexFunc(t, func(k *kind) bool { return k.Prefix == prefix })
	if i < 0 {
		return t, nil
	}
	return slices.Delete(slices.Clone(t), i, i+1), t[i]
}
