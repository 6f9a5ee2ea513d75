package reconcile

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/tools/cache"
)

// guardMaxWait bounds the time between two looks at informers that have not
// caught up.
const guardMaxWait = 500 * time.Millisecond

// guard remembers per key which own writes the informers have not shown yet.
type guard struct {
	mu   sync.Mutex
	keys map[Key]*unseen // guarded by mu; an entry is dropped once it is seen
}

// unseen is what one key waits for.
type unseen struct {
	// versions is the highest resourceVersion written, per informer that will
	// show it. A version is compared only with the informer of its own kind:
	// an idle kind's informer would learn of other kinds' versions from
	// bookmarks alone, a minute late.
	versions map[cache.SharedIndexInformer]string
	// deleted holds the deletes, by UID.
	deleted map[types.UID]deletion
	doubts  []Look // of writes whose answer was lost, until they are resolved
	looks   int    // how often wait found it unseen
}

// Look asks the server what came of a write whose answer was lost, and reports
// what it finds with Wrote and Deleted.
type Look func(ctx context.Context, r *Request) error

type deletion struct {
	informer cache.SharedIndexInformer
	key      string // of the object in the informer's store
}

func newGuard() *guard { return &guard{keys: map[Key]*unseen{}} }

// Wrote reports that a write returned obj, which informer will show. Give it
// the result of every create, update and patch of a kind that this controller
// reads. A nil obj is ignored.
func (r *Request) Wrote(informer cache.SharedIndexInformer, obj metav1.Object) {
	if obj == nil || obj.GetResourceVersion() == "" {
		return
	}
	r.guard.edit(r.Key, func(u *unseen) {
		have, ok := u.versions[informer]
		if !ok || compare(have, obj.GetResourceVersion()) < 0 {
			u.versions[informer] = obj.GetResourceVersion()
		}
	})
}

// Deleted reports that the delete of obj was accepted.
func (r *Request) Deleted(informer cache.SharedIndexInformer, obj metav1.Object) {
	key := cache.ObjectName{Namespace: obj.GetNamespace(), Name: obj.GetName()}.String()
	r.guard.edit(r.Key, func(u *unseen) {
		u.deleted[obj.GetUID()] = deletion{informer: informer, key: key}
	})
}

// Unsure reports that the answer to a write was lost; see Lost. look is called
// before the next reconcile of the key, again and again until it succeeds, so
// that a write that did happen is not done twice.
func (r *Request) Unsure(look Look) {
	r.guard.edit(r.Key, func(u *unseen) { u.doubts = append(u.doubts, look) })
}

// resolve clears up the writes of key whose answers were lost. Only the one
// worker that has key calls it.
func (g *guard) resolve(ctx context.Context, key Key) error {
	for {
		look := g.doubt(key)
		if look == nil {
			return nil
		}
		if err := look(ctx, &Request{Key: key, guard: g}); err != nil {
			return fmt.Errorf("find out what came of a write whose answer was lost: %w", err)
		}
		g.edit(key, func(u *unseen) { u.doubts = u.doubts[1:] })
	}
}

// doubt returns the first look that key waits for, or nil.
func (g *guard) doubt(key Key) Look {
	g.mu.Lock()
	defer g.mu.Unlock()
	if u := g.keys[key]; u != nil && len(u.doubts) > 0 {
		return u.doubts[0]
	}
	return nil
}

func (g *guard) edit(key Key, change func(*unseen)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	u := g.keys[key]
	if u == nil {
		u = &unseen{
			versions: map[cache.SharedIndexInformer]string{},
			deleted:  map[types.UID]deletion{},
		}
		g.keys[key] = u
	}
	change(u)
}

// wait returns 0 when key's writes have all been seen, else after how long to
// look again.
func (g *guard) wait(key Key) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	u := g.keys[key]
	if u == nil {
		return 0
	}
	for informer, version := range u.versions {
		if reached(informer, version) {
			delete(u.versions, informer)
		}
	}
	for uid, d := range u.deleted {
		if gone(d, uid) {
			delete(u.deleted, uid)
		}
	}
	if len(u.versions) == 0 && len(u.deleted) == 0 && len(u.doubts) == 0 {
		delete(g.keys, key)
		return 0
	}
	u.looks = min(u.looks+1, 8)
	return min(5*time.Millisecond<<u.looks, guardMaxWait)
}

// reached reports whether informer's cache shows version.
func reached(informer cache.SharedIndexInformer, version string) bool {
	have := informer.GetStore().LastStoreSyncResourceVersion()
	if have == "" {
		have = informer.LastSyncResourceVersion()
	}
	return compare(have, version) >= 0
}

// compare orders two resourceVersions. One that is not a number comes from a
// source without an order, where waiting would never end: it counts as equal.
func compare(a, b string) int {
	c, err := resourceversion.CompareResourceVersion(a, b)
	if err != nil {
		return 0
	}
	return c
}

// gone reports whether the cache shows that the object with this UID was
// deleted: it is absent, replaced by another, or marked for deletion.
func gone(d deletion, uid types.UID) bool {
	obj, ok, err := d.informer.GetStore().GetByKey(d.key)
	if err != nil || !ok {
		return true
	}
	have, ok := obj.(metav1.Object)
	return !ok || have.GetUID() != uid || have.GetDeletionTimestamp() != nil
}

// ErrStale is what a reconcile returns when the server showed it that its cache
// is behind, so that it must not destroy anything yet. It is retried quietly.
var ErrStale = errors.New("the cache is behind the server: nothing is destroyed until it has caught up")

// Transient reports whether err is an ordinary race with another writer or a
// busy server, which a retry cures and nobody needs to read about.
func Transient(err error) bool {
	return errors.Is(err, ErrStale) || apierrors.IsConflict(err) || apierrors.IsTooManyRequests(err) || apierrors.IsServerTimeout(err)
}

// Lost reports whether err leaves open if the write that it came from
// happened: the server did not answer, or answered that something went wrong
// underway. A refusal is an answer.
func Lost(err error) bool {
	if err == nil {
		return false
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true
	}
	const requestTimeout, internalError = 408, 500 // of HTTP; all from the second on are the server's failures
	code := status.Status().Code
	return code == requestTimeout || code >= internalError
}
