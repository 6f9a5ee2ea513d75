package encrypted

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"coracle/pkg/storage"
)

// Backend encrypts what it writes to the one within.
type Backend struct {
	storage.Backend
	rand  io.Reader
	rules atomic.Pointer[Rules]
}

// New wraps b. Nonces are read from rand, which must be fit for cryptography.
func New(b storage.Backend, rules *Rules, rand io.Reader) *Backend {
	out := &Backend{Backend: b, rand: rand}
	out.rules.Store(rules)
	return out
}

// SetRules makes all requests from now on follow other rules.
func (b *Backend) SetRules(rules *Rules) { b.rules.Store(rules) }

// Get implements storage.Backend.
func (b *Backend) Get(ctx context.Context, key string) (*storage.KV, storage.Revision, error) {
	kv, rev, err := b.Backend.Get(ctx, key)
	if kv != nil {
		kv = b.opened(kv)
	}
	return kv, rev, err
}

// opened is a copy of kv with its value plain.
func (b *Backend) opened(kv *storage.KV) *storage.KV {
	out := *kv
	out.Value = b.rules.Load().open(kv.Key, kv.Value)
	return &out
}

// Range implements storage.Backend.
func (b *Backend) Range(ctx context.Context, prefix string, opts storage.RangeOptions) (*storage.Page, error) {
	page, err := b.Backend.Range(ctx, prefix, opts)
	if err != nil {
		return nil, err
	}
	rules := b.rules.Load()
	for i := range page.Items { // a page is the caller's own
		kv := &page.Items[i]
		kv.Value = rules.open(kv.Key, kv.Value)
	}
	return page, nil
}

// Put implements storage.Backend.
func (b *Backend) Put(ctx context.Context, key string, value []byte, expect storage.Revision, ttl time.Duration) (storage.Revision, error) {
	if bytes.HasPrefix(value, encryptedPrefix) {
		return 0, fmt.Errorf("key %s: a value must not begin with %s, which marks those that are encrypted already", key, storage.EncryptedPrefix)
	}
	sealed, err := b.rules.Load().seal(key, value, b.rand)
	if err != nil {
		return 0, err
	}
	rev, err := b.Backend.Put(ctx, key, sealed, expect, ttl)
	return rev, b.refused(err)
}

// Delete implements storage.Backend.
func (b *Backend) Delete(ctx context.Context, key string, expect storage.Revision) (storage.Revision, error) {
	rev, err := b.Backend.Delete(ctx, key, expect)
	return rev, b.refused(err)
}

// refused opens the value that a transaction saw instead of the expected one.
func (b *Backend) refused(err error) error {
	conflict, ok := errors.AsType[*storage.ConflictError](err)
	if !ok || conflict.Current == nil {
		return err
	}
	out := *conflict
	out.Current = b.opened(conflict.Current)
	return &out
}

// Watch implements storage.Backend.
func (b *Backend) Watch(ctx context.Context, prefix string, opts storage.WatchOptions) (storage.Watch, error) {
	w, err := b.Backend.Watch(ctx, prefix, opts)
	if err != nil {
		return nil, err
	}
	return &watch{Watch: w, b: b}, nil
}

type watch struct {
	storage.Watch
	b *Backend
}

// Next implements storage.Watch.
func (w *watch) Next(ctx context.Context) (storage.Batch, error) {
	batch, err := w.Watch.Next(ctx)
	if err != nil {
		return batch, err
	}
	rules, shared := w.b.rules.Load(), true
	for i := range batch.Events {
		ev := &batch.Events[i]
		r := rules.of(ev.KV.Key)
		if r == nil && !bytes.HasPrefix(ev.KV.Value, encryptedPrefix) && (ev.Prev == nil || !bytes.HasPrefix(ev.Prev.Value, encryptedPrefix)) {
			continue
		}
		if shared { // with other watches of the backend
			batch.Events, shared = slices.Clone(batch.Events), false
			ev = &batch.Events[i]
		}
		if ev.Type == storage.Put {
			ev.KV.Value = rules.open(ev.KV.Key, ev.KV.Value)
		}
		if ev.Prev != nil {
			ev.Prev = w.b.opened(ev.Prev)
		}
	}
	return batch, nil
}
