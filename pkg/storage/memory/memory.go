// Package memory is a storage.Backend that lives in this process and forgets
// everything when closed. It means exactly what storage/etcd means: one
// revision per changing transaction, history until Compact, linearizable reads.
//
// It uses no network and no real time of its own, so that it works inside a
// testing/synctest bubble.
package memory

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"coracle/pkg/storage"
	"coracle/pkg/storage/ordered"
)

// MaxValueBytes is the largest value accepted, the same as that of an etcd
// with its default settings, rounded down.
const MaxValueBytes = 1_500_000

// Config is optional: the zero value is ready to use.
type Config struct {
	// Clock drives the expiry of keys. Default the real clock.
	Clock clock.WithTicker
}

// Store is the backend.
type Store struct {
	clock clock.WithTicker
	done  chan struct{}  // closed by Close
	wg    sync.WaitGroup // the expiry loop

	mu     sync.RWMutex // guards all below
	closed bool
	now    state
	// past holds the state after each revision from compacted to now,
	// ascending and without a hole: past[i] is at revision compacted+i.
	past      []state
	compacted storage.Revision
	changed   chan struct{} // closed and replaced when now or a watch's wish changes
	progress  int           // number of RequestProgress calls so far
	expiry    expiryQueue
	expiring  bool          // the expiry loop runs
	sooner    chan struct{} // tells the expiry loop that the first expiry changed
}

// state is the store at one revision.
type state struct {
	revision storage.Revision
	keys     ordered.Map[*record]
	events   []storage.Event // what this revision did
}

// record is a stored key.
type record struct {
	storage.KV
	expires time.Time // zero: never
}

var _ storage.Backend = (*Store)(nil)

// New makes an empty store at revision 1, as a new etcd is.
func New(cfg Config) *Store {
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	first := state{revision: 1}
	return &Store{
		clock:     cfg.Clock,
		done:      make(chan struct{}),
		now:       first,
		past:      []state{first},
		compacted: 1,
		changed:   make(chan struct{}),
		sooner:    make(chan struct{}, 1),
	}
}

// Get implements storage.Backend.
func (s *Store) Get(ctx context.Context, key string) (*storage.KV, storage.Revision, error) {
	st, err := s.current(ctx)
	if err != nil {
		return nil, 0, err
	}
	rec, ok := st.keys.Get(key)
	if !ok {
		return nil, st.revision, storage.ErrNotFound
	}
	kv := rec.KV
	return &kv, st.revision, nil
}

// Range implements storage.Backend.
func (s *Store) Range(ctx context.Context, prefix string, opts storage.RangeOptions) (*storage.Page, error) {
	st, err := s.current(ctx)
	if err != nil {
		return nil, err
	}
	page := &storage.Page{Revision: st.revision}
	if opts.Revision != 0 {
		if st, err = s.at(opts.Revision); err != nil {
			return nil, err
		}
	}
	page.Count = int64(st.keys.PrefixLen(prefix, opts.StartAfter))
	if opts.CountOnly {
		return page, nil
	}
	for _, rec := range st.keys.Prefix(prefix, opts.StartAfter) {
		if opts.Limit > 0 && len(page.Items) == opts.Limit {
			page.More = true
			break
		}
		page.Items = append(page.Items, rec.KV)
	}
	return page, nil
}

// Put implements storage.Backend.
func (s *Store) Put(ctx context.Context, key string, value []byte, expect storage.Revision, ttl time.Duration) (storage.Revision, error) {
	if len(value) > MaxValueBytes {
		return 0, fmt.Errorf("key %s: %w: %d bytes", key, storage.ErrTooLarge, len(value))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	prev, err := s.check(ctx, key, expect)
	if err != nil {
		return 0, err
	}
	rev := s.now.revision + 1
	rec := &record{KV: storage.KV{Key: key, Value: append([]byte{}, value...), ModRevision: rev, CreateRevision: rev}}
	event := storage.Event{Type: storage.Put, KV: rec.KV}
	if prev != nil {
		rec.CreateRevision = prev.CreateRevision
		event.KV = rec.KV
		event.Prev = &prev.KV
	}
	if ttl > 0 {
		rec.expires = s.clock.Now().Add(ttl)
		s.expireLater(rec)
	}
	edit := s.now.keys.Edit()
	edit.Set(key, rec)
	s.commit(edit.Map(), event)
	return rev, nil
}

// Delete implements storage.Backend.
func (s *Store) Delete(ctx context.Context, key string, expect storage.Revision) (storage.Revision, error) {
	if expect <= 0 {
		return 0, fmt.Errorf("key %s: a deletion must name the revision that it deletes", key)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	prev, err := s.check(ctx, key, expect)
	if err != nil {
		return 0, err
	}
	s.remove(prev)
	return s.now.revision, nil
}

// check is the compare of a transaction. The result is the current record, nil
// when there is none and none was expected. s.mu is held for writing.
func (s *Store) check(ctx context.Context, key string, expect storage.Revision) (*record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.closed {
		return nil, storage.ErrClosed
	}
	rec, ok := s.now.keys.Get(key)
	if ok && rec.ModRevision == expect || !ok && expect == 0 {
		return rec, nil
	}
	conflict := &storage.ConflictError{Key: key, Expect: expect, Revision: s.now.revision}
	if ok {
		kv := rec.KV
		conflict.Current = &kv
	}
	return nil, conflict
}

// remove deletes a record that is there. s.mu is held for writing.
func (s *Store) remove(rec *record) {
	edit := s.now.keys.Edit()
	edit.Delete(rec.Key)
	s.commit(edit.Map(), storage.Event{
		Type: storage.Delete,
		KV:   storage.KV{Key: rec.Key, ModRevision: s.now.revision + 1},
		Prev: &rec.KV,
	})
}

// commit makes the next revision. s.mu is held for writing.
func (s *Store) commit(keys ordered.Map[*record], event storage.Event) {
	s.now = state{revision: s.now.revision + 1, keys: keys, events: []storage.Event{event}}
	s.past = append(s.past, s.now)
	s.wake()
}

// wake lets all watches look again. s.mu is held for writing.
func (s *Store) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Current implements storage.Backend.
func (s *Store) Current(ctx context.Context) (storage.Revision, error) {
	st, err := s.current(ctx)
	return st.revision, err
}

// Compact implements storage.Backend.
func (s *Store) Compact(ctx context.Context, rev storage.Revision) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return storage.ErrClosed
	case rev > s.now.revision:
		return &storage.FutureRevisionError{Asked: rev}
	case rev <= s.compacted:
		return nil
	}
	s.past = append([]state(nil), s.past[rev-s.compacted:]...)
	s.compacted = rev
	s.wake()
	return nil
}

// RequestProgress implements storage.Backend.
func (s *Store) RequestProgress(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.progress++
	s.wake()
	return nil
}

// Close implements storage.Backend.
func (s *Store) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
		s.wake()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

func (s *Store) current(ctx context.Context) (state, error) {
	if err := ctx.Err(); err != nil {
		return state{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return state{}, storage.ErrClosed
	}
	return s.now, nil
}

// at is the state at an earlier revision.
func (s *Store) at(rev storage.Revision) (state, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case rev > s.now.revision:
		return state{}, &storage.FutureRevisionError{Asked: rev}
	case rev < s.compacted:
		return state{}, &storage.CompactedError{Compacted: s.compacted}
	}
	return s.past[rev-s.compacted], nil
}
