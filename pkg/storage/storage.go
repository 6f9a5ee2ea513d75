package storage

import (
	"context"
	"strconv"
	"time"
)

// Revision is a position in the history of the whole store. The first write of
// a store has a revision greater than zero; zero means "none" or "not given".
type Revision int64

// String is the revision as a Kubernetes resourceVersion, for example "42".
func (r Revision) String() string { return strconv.FormatInt(int64(r), 10) }

// KV is one key with its value at a revision. Value is shared and must not be
// changed by anyone.
type KV struct {
	Key            string
	Value          []byte
	ModRevision    Revision // the last change of the key
	CreateRevision Revision // the change that made the key; a recreated key has a new one
}

// EventType says what happened to a key.
type EventType int

// The kinds of change.
const (
	Put EventType = iota + 1
	Delete
)

// String names the type for logs.
func (t EventType) String() string {
	switch t {
	case Put:
		return "PUT"
	case Delete:
		return "DELETE"
	}
	return "EventType(" + strconv.Itoa(int(t)) + ")"
}

// Event is one change of one key.
type Event struct {
	Type EventType
	// KV is the key after the change. For a Delete it carries only Key and
	// ModRevision, which is the revision of the deletion.
	KV KV
	// Prev is the key before the change, nil when the key did not exist or the
	// watch did not ask for it.
	Prev *KV
}

// Batch is what one call of Watch.Next returns.
type Batch struct {
	// Events are ordered by revision. All events of one revision are in one
	// batch. May be empty: then the batch is a progress mark.
	Events []Event
	// Progress promises that every event of the watched prefix up to and with
	// this revision has been delivered, this batch included. It never falls
	// and is at least the revision of the last event.
	Progress Revision
}

// Watch is one open watch. It is used by one goroutine at a time, but Close
// may be called from any.
type Watch interface {
	// Next blocks until there is something to deliver. The error is final
	// (except for the end of ctx): *CompactedError when the history that the
	// watch needs is gone, ErrClosed after Close, anything else when the
	// connection to the store broke; the caller then watches again from the
	// revision after the last Progress.
	Next(ctx context.Context) (Batch, error)
	// Close releases the watch and wakes a blocked Next.
	Close()
}

// RangeOptions restrict a Range. The zero value reads everything, now.
type RangeOptions struct {
	// StartAfter is the last key of the previous page; only greater keys are
	// returned. It must begin with the prefix. Empty starts at the beginning.
	StartAfter string
	// Limit is the greatest number of items returned; zero means all.
	Limit int
	// Revision reads the state as it was at that revision. Zero is a
	// linearizable read of the newest state.
	Revision Revision
	// CountOnly returns no items, only Count.
	CountOnly bool
}

// Page is the result of a Range.
type Page struct {
	Items []KV // ordered by key
	// Revision is the store's revision when the page was read. To continue at
	// the same state, the first page's Revision is the Revision option of the
	// next one.
	Revision Revision
	More     bool // there are keys after the last item
	// Count is the number of keys under the prefix after StartAfter, of which
	// Items may be a part.
	Count int64
}

// WatchOptions say where a watch starts and what its events carry.
type WatchOptions struct {
	// From is the first revision delivered. Zero starts with the first one
	// after the call; one in the future delivers nothing until then.
	From Revision
	// Prev fills in Event.Prev, which costs the store a read for each event.
	Prev bool
}

// Backend is a store. All methods may be called from any number of goroutines.
// A method returns early with the context's error when ctx ends before the
// request was sent; a write that ends later returns *OutcomeUnknownError.
type Backend interface {
	// Get reads one key, linearizably. The revision is the store's at the time
	// of reading and is valid with ErrNotFound too.
	Get(ctx context.Context, key string) (*KV, Revision, error)
	// Range reads the keys under a prefix. Errors: *CompactedError when
	// Revision is gone, *FutureRevisionError when it is not there yet.
	Range(ctx context.Context, prefix string, opts RangeOptions) (*Page, error)
	// Put writes value if the key's ModRevision equals expect; 0 expects that
	// the key does not exist. The result is the revision of the write. A
	// positive ttl deletes the key after about that time (never earlier, up to
	// a minute later); zero keeps it until deleted, also when an earlier write
	// of the key had a ttl. Errors: *ConflictError, *OutcomeUnknownError,
	// ErrTooLarge, ErrNoSpace.
	Put(ctx context.Context, key string, value []byte, expect Revision, ttl time.Duration) (Revision, error)
	// Delete removes the key if its ModRevision equals expect, which must be
	// positive. The result is the revision of the deletion. Errors:
	// *ConflictError, *OutcomeUnknownError.
	Delete(ctx context.Context, key string, expect Revision) (Revision, error)
	// Watch delivers every event under prefix from opts.From on. A compacted
	// From is reported by Watch or by the first Next as *CompactedError. The
	// watch outlives ctx, which bounds only the opening.
	Watch(ctx context.Context, prefix string, opts WatchOptions) (Watch, error)
	// RequestProgress asks that open watches deliver a batch whose Progress is
	// at least the store's revision at the time of the call, soon. It is a
	// hint: a caller that depends on it asks again.
	RequestProgress(ctx context.Context) error
	// Current is the store's revision, linearizably: at least that of every
	// write acknowledged before the call.
	Current(ctx context.Context) (Revision, error)
	// Compact drops history older than rev: reads at rev and later still work,
	// and watches from rev+1. Compacting twice to the same revision is no
	// error.
	Compact(ctx context.Context, rev Revision) error
	// Close releases the backend. Open watches end with ErrClosed.
	Close() error
}
