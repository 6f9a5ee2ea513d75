package cache

import (
	"strings"
	"sync/atomic"
	"time"

	"coracle/pkg/storage"
)

// A group is the watchers of a kind that look at the same part of it: all of
// it, one namespace, one object, or the objects with one value of a field (the
// pods of one node). Only they are woken by an event of that part, and they read it from a
// short ring of the group's own, so that five thousand nodes that each watch
// their pods cost what their own pods do.
type group struct {
	ring *ring
	// wake is closed and replaced after events became visible, by the cache's
	// notifier only. dirty says that the notifier has been told.
	wake  atomic.Pointer[chan struct{}]
	dirty atomic.Bool
	// touched says that the ring has events to be made visible. Guarded by the
	// cache's lock.
	touched  bool
	watchers atomic.Int64 // written under the cache's lock
	// rest is until when the group is not woken again; the notifier's own.
	rest time.Time
}

// groupKey names a group; the field "" is the namespace, keyField the key.
type groupKey struct{ field, value string }

// keyField is no field that a kind can have.
const keyField = "\x00key"

const (
	// groupChunk and groupBytes keep the rings of groups short: what one does
	// not have is in the kind's.
	groupChunk = 4
	groupBytes = 16 << 10
)

func newGroup(r *ring) *group {
	g := &group{ring: r}
	wake := make(chan struct{})
	g.wake.Store(&wake)
	return g
}

// groupOf says which group a watch belongs to. The zero key is the whole kind.
func (k *kind) groupOf(prefix string, opts *WatchOptions) groupKey {
	if opts.Key != "" {
		return groupKey{field: keyField, value: opts.Key}
	}
	if opts.Field != "" {
		return groupKey{field: opts.Field, value: opts.Value}
	}
	namespace, rest, found := strings.Cut(strings.TrimPrefix(prefix, k.Prefix), "/")
	if found && rest == "" {
		return groupKey{value: namespace}
	}
	return groupKey{}
}

// join returns the group of a watch, making it when this is its first watcher.
func (k *kind) join(key groupKey) *group {
	k.cache.mu.Lock()
	defer k.cache.mu.Unlock()
	k.watchers.Add(1)
	if key == (groupKey{}) {
		k.all.watchers.Add(1)
		return k.all
	}
	g := k.groups[key]
	if g == nil {
		// Everything up to here is visible in the kind's ring.
		g = newGroup(newRing(storage.Revision(k.cache.shown.Load()), groupChunk))
		g.ring.raiseStart(k.state.Load().revision)
		k.groups[key] = g
		k.fields[key.field]++
	}
	g.watchers.Add(1)
	return g
}

// leave undoes join.
func (k *kind) leave(key groupKey, g *group) {
	k.cache.mu.Lock()
	defer k.cache.mu.Unlock()
	k.watchers.Add(-1)
	if g.watchers.Add(-1) > 0 || g == k.all {
		return
	}
	delete(k.groups, key)
	if k.fields[key.field]--; k.fields[key.field] == 0 {
		delete(k.fields, key.field)
	}
}

// add puts an event into the kind's ring and into those of the groups that it
// concerns: of the object as it was and as it is. c.mu is held.
func (k *kind) add(e *event, now time.Time) {
	k.all.ring.add(e, now)
	k.all.touched = true
	for field := range k.fields {
		switch field {
		case "":
			namespace, _, _ := strings.Cut(strings.TrimPrefix(e.key, k.Prefix), "/")
			k.addTo(groupKey{value: namespace}, e, now)
			continue
		case keyField:
			k.addTo(groupKey{field: keyField, value: e.key}, e, now)
			continue
		}
		if e.prev != nil {
			k.addTo(groupKey{field, e.prev.Fields[field]}, e, now)
		}
		if e.obj != nil && (e.prev == nil || e.obj.Fields[field] != e.prev.Fields[field]) {
			k.addTo(groupKey{field, e.obj.Fields[field]}, e, now)
		}
	}
}

func (k *kind) addTo(key groupKey, e *event, now time.Time) {
	if g := k.groups[key]; g != nil {
		g.ring.add(e, now)
		if !g.touched {
			g.touched = true
			k.touched = append(k.touched, g)
		}
	}
}

// show makes the events up to rev visible. c.mu is held.
func (k *kind) show(rev storage.Revision, now time.Time) {
	k.all.show(k.cache, rev, k.cache.cfg.RingBytes, now)
	for i, g := range k.touched {
		g.show(k.cache, rev, groupBytes, now)
		k.touched[i] = nil
	}
	k.touched = k.touched[:0]
}

func (g *group) show(c *Cache, rev storage.Revision, limit int, now time.Time) {
	g.touched = false
	g.ring.trim(limit, now)
	g.ring.publish(rev)
	if g.watchers.Load() > 0 && !g.dirty.Swap(true) {
		c.awake.add(g)
	}
}

// forget empties all rings of the kind, which go on after rev. show lets the
// watchers notice. c.mu is held.
func (k *kind) forget(rev storage.Revision) {
	k.all.ring.reset(rev)
	k.touched = k.touched[:0]
	for _, g := range k.groups {
		g.ring.reset(rev)
		g.touched = true
		k.touched = append(k.touched, g)
	}
}

// trim drops what is old. c.mu is held.
func (k *kind) trim(now time.Time) {
	k.all.ring.trim(k.cache.cfg.RingBytes, now)
	for _, g := range k.groups {
		g.ring.trim(groupBytes, now)
	}
}
