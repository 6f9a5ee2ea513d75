package cache

import (
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"coracle/pkg/storage"
)

// Config is what a Cache needs. Backend is required.
type Config struct {
	// Backend is the store. The cache does not close it.
	Backend storage.Backend
	// Prefix covers every key of every kind. Default storage.Root.
	Prefix string
	// Kinds are there from the start; AddKind adds more at run time.
	Kinds []Kind
	// SoleWriter promises that nobody else writes to the store, as with one API
	// server over an embedded etcd of one member. A consistent read then need
	// not ask the store for its revision: every acknowledged write has been
	// applied here before it was acknowledged.
	SoleWriter bool
	// Clock drives bookmarks, back-off and the age of rings. Default the real one.
	Clock clock.WithTicker
	// Log gets what the cache repairs by itself. Nil discards.
	Log *slog.Logger
	// RingBytes bounds the events kept for each kind. Default 16 MiB.
	RingBytes int
	// MemoBytes bounds what Encoding and Decoded remember for all objects
	// together. Default 32 MiB.
	MemoBytes int
}

// Kind says how the stored values of one resource are read.
type Kind struct {
	// Prefix is the key prefix of the resource, for example "/registry/pods/".
	// It ends with a slash and no kind's prefix begins with another's.
	Prefix string
	// Index reads a stored value and returns the object with every field but
	// Key, Revision and CreateRevision filled in; Value is the bytes to serve,
	// with rev spliced in as resourceVersion.
	//
	//
	// Index must also accept a Value that it returned earlier and replace the
	// resourceVersion in it. It must not keep stored.
	Index func(key string, stored []byte, rev storage.Revision) (*Object, error)
	// Own is Index for values that this server has encoded and written itself,
	// which need no check. Nil means Index.
	Own func(key string, stored []byte, rev storage.Revision) (*Object, error)
	// Revise returns a Value that Index made, which is not changed, with another
	// resourceVersion: so the last state of a deleted object is served at the
	// revision of its deletion. Nil means by Index.
	Revise func(value []byte, rev storage.Revision) ([]byte, error)
}

// Object is one object of the cache. It is shared by all readers and must not
// be changed.
type Object struct {
	Key, Namespace, Name     string
	UID                      types.UID
	Revision, CreateRevision storage.Revision
	// Value is the storage encoding, decrypted, with resourceVersion spliced in.
	Value    []byte
	Labels   map[string]string
	Fields   map[string]string // selectable fields
	Deleting bool              // deletionTimestamp is set

	memo memos
}

// Read says how fresh a read must be. The zero value is a consistent read: it
// sees every write that any API server acknowledged before.
type Read struct {
	// AtLeast serves from a state not older than this revision.
	AtLeast storage.Revision
	// Any serves what the cache has: resourceVersion "0".
	Any bool
	// Exact serves the state at this revision; List only.
	Exact storage.Revision
}

// Predicate selects objects; nil selects all. It is called without locks, from
// many goroutines.
type Predicate func(*Object) bool

// ListOptions restrict a List.
type ListOptions struct {
	Read  Read
	Limit int    // 0 = all; counts matching objects
	After string // key of the last item of the previous page; wants Read.Exact
	Match Predicate
	// Key restricts the list to the object with this key, which begins with
	// the prefix; finding it does not take a look at the others.
	Key string
}

// List is one page of objects in key order, all as of Revision.
type List struct {
	Revision storage.Revision
	Items    []*Object
	Next     string // key of the last item when there is more, else empty
	// Remaining counts the objects after this page, -1 when unknown, which it
	// is when Match is set.
	Remaining int64
}

// WatchOptions say where a watch starts and what it delivers.
type WatchOptions struct {
	// From delivers what happened after this revision. 0 starts now. With
	// Initial it is the least revision of the initial state.
	From storage.Revision
	// Initial first sends the current state as Added events, then a Bookmark
	// with InitialEnd set, whatever Bookmarks says.
	Initial bool
	// Consistent makes the start (now, or the initial state) not older than any
	// write acknowledged before the call.
	Consistent bool
	// Bookmarks asks for a Bookmark at least once a minute.
	Bookmarks bool
	Match     Predicate
	// Field and Value promise that Match selects only objects whose
	// Fields[Field] is Value, for example spec.nodeName of a kubelet's watch.
	// Events of other objects then do not even wake the watcher. Empty promises
	// nothing. A prefix of one namespace does the same by itself.
	Field, Value string
	// Key promises that Match selects nothing but the object with this key.
	Key string
}

// WatchEventType is the type of a WatchEvent.
type WatchEventType int

// The types of watch events.
const (
	Added WatchEventType = iota + 1
	Modified
	Deleted
	Bookmark
)

// String is the type as it stands in a Kubernetes watch stream.
func (t WatchEventType) String() string {
	switch t {
	case Added:
		return "ADDED"
	case Modified:
		return "MODIFIED"
	case Deleted:
		return "DELETED"
	case Bookmark:
		return "BOOKMARK"
	}
	return "WatchEventType(" + strconv.Itoa(int(t)) + ")"
}

// WatchEvent is one event as a watcher sees it after its predicate: an object
// that begins to match is Added, one that ceases to match is Deleted with the
// content that matched last, at the revision of the change.
type WatchEvent struct {
	Type       WatchEventType
	Object     *Object          // nil for a Bookmark
	Revision   storage.Revision // the object's, or the bookmark's
	InitialEnd bool             // a Bookmark that ends the initial state
}

// ExpiredError says that a revision can no longer be served: 410 Gone.
type ExpiredError struct {
	Revision storage.Revision
}

func (e *ExpiredError) Error() string {
	return fmt.Sprintf("the history at resource version %d is gone: list again and start from there", e.Revision)
}

// TooLargeError says that a revision has not been reached within the time that
// a read waits: 504 with the cause ResourceVersionTooLarge.
type TooLargeError struct {
	Asked, Current storage.Revision
	RetryAfter     time.Duration // when to try again
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("Too large resource version: %d, current: %d", e.Asked, e.Current)
}

// CorruptError says that a stored value cannot be read, so that neither it nor
// a list that contains it can be served. It can still be deleted.
type CorruptError struct {
	Key      string
	Revision storage.Revision // of the unreadable value; what Delete expects
	Err      error

	last *Object // what watchers saw last of the object, or nil
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("the stored value of %s cannot be read: delete or restore it: %v", e.Key, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// KindStats describes one kind for metrics.
type KindStats struct {
	Prefix     string
	Objects    int
	Watchers   int
	RingEvents int
	RingBytes  int
	Revision   storage.Revision // last change of the kind
}
