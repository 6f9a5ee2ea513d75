// Package timed wraps a storage backend and tells how long its requests took.
//
// Contract: the wrapped backend behaves as the one within, which Close closes
// too. observe is called once for each request that reads or writes keys, from
// the caller's goroutine; opening a watch is none.
package timed

import (
	"context"
	"time"

	"coracle/pkg/storage"
)

// Observe is told of a request: what it was, in the words of kube-apiserver's
// metrics (get, list, create, update, delete), for which key or prefix, how long
// it took and how it ended.
type Observe func(operation, key string, took time.Duration, err error)

// New wraps b.
func New(b storage.Backend, observe Observe) storage.Backend { return &backend{b, observe} }

type backend struct {
	storage.Backend
	observe Observe
}

// Get implements storage.Backend.
func (b *backend) Get(ctx context.Context, key string) (*storage.KV, storage.Revision, error) {
	began := time.Now()
	kv, rev, err := b.Backend.Get(ctx, key)
	b.observe("get", key, time.Since(began), err)
	return kv, rev, err
}

// Range implements storage.Backend.
func (b *backend) Range(ctx context.Context, prefix string, opts storage.RangeOptions) (*storage.Page, error) {
	began := time.Now()
	page, err := b.Backend.Range(ctx, prefix, opts)
	b.observe("list", prefix, time.Since(began), err)
	return page, err
}

// Put implements storage.Backend.
func (b *backend) Put(ctx context.Context, key string, value []byte, expect storage.Revision, ttl time.Duration) (storage.Revision, error) {
	began, operation := time.Now(), "update"
	if expect == 0 {
		operation = "create"
	}
	rev, err := b.Backend.Put(ctx, key, value, expect, ttl)
	b.observe(operation, key, time.Since(began), err)
	return rev, err
}

// Delete implements storage.Backend.
func (b *backend) Delete(ctx context.Context, key string, expect storage.Revision) (storage.Revision, error) {
	began := time.Now()
	rev, err := b.Backend.Delete(ctx, key, expect)
	b.observe("delete", key, time.Since(began), err)
	return rev, err
}
