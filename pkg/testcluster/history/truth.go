package history

import (
	"cmp"
	"math"
	"slices"
	"sort"
)

// Truth answers questions about what the store did.
type Truth struct {
	Final      int64
	byKey      map[Key][]*Change
	byRevision map[int64]*Change
	byResource map[string][]*Change
	keys       map[string][]Key // of a resource, in the order of lists
}

// NewTruth indexes changes, which are in the order of their revisions.
func NewTruth(changes []Change, final int64) *Truth {
	t := &Truth{Final: final, byKey: map[Key][]*Change{}, byRevision: map[int64]*Change{},
		byResource: map[string][]*Change{}, keys: map[string][]Key{}}
	for i := range changes {
		c := &changes[i]
		if t.byKey[c.Key] == nil {
			t.keys[c.Key.Resource] = append(t.keys[c.Key.Resource], c.Key)
		}
		t.byKey[c.Key] = append(t.byKey[c.Key], c)
		t.byRevision[c.Revision] = c
		t.byResource[c.Key.Resource] = append(t.byResource[c.Key.Resource], c)
	}
	for _, keys := range t.keys {
		slices.SortFunc(keys, func(a, b Key) int { return cmp.Compare(a.Path(), b.Path()) })
	}
	return t
}

// after is the index of the first change later than rev.
func after(changes []*Change, rev int64) int {
	return sort.Search(len(changes), func(i int) bool { return changes[i].Revision > rev })
}

// Object is an object as of a revision, nil when there was none.
func (t *Truth) Object(key Key, rev int64) *State {
	changes := t.byKey[key]
	if i := after(changes, rev); i > 0 {
		return changes[i-1].Now
	}
	return nil
}

// At is the scope's objects as of a revision, in the order of lists.
func (t *Truth) At(scope Scope, rev int64) []Version {
	var out []Version
	for _, key := range t.keys[scope.Resource] {
		if o := t.Object(key, rev); scope.Selects(o) {
			out = append(out, o.Version)
		}
	}
	return out
}

// Until is the revision before the next change of the key after rev: a state
// of rev holds as long.
func (t *Truth) Until(key Key, rev int64) int64 {
	changes := t.byKey[key]
	if i := after(changes, rev); i < len(changes) {
		return changes[i].Revision - 1
	}
	return math.MaxInt64
}

// Replay is the events that a watch of the scope must deliver after one
// revision up to another.
func (t *Truth) Replay(scope Scope, from, to int64) []Event {
	var out []Event
	changes := t.byResource[scope.Resource]
	for _, c := range changes[after(changes, from):] {
		if c.Revision > to {
			break
		}
		if e, ok := told(scope, c); ok {
			out = append(out, e)
		}
	}
	return out
}

// told is the event that a watch of the scope sees of a change.
func told(scope Scope, c *Change) (Event, bool) {
	was, is := scope.Selects(c.Prev), scope.Selects(c.Now)
	switch {
	case was && is:
		return Event{Type: Modified, Version: c.Now.Version}, true
	case is:
		return Event{Type: Added, Version: c.Now.Version}, true
	case was:
		return Event{Type: Deleted, Version: Version{Key: c.Key, Revision: c.Revision, Digest: c.Prev.Digest}}, true
	}
	return Event{}, false
}

// horizon knows how far back history could be gone.
type horizon []Compaction

// at is the oldest revision that was there for sure at seq.
func (h horizon) at(seq int64) int64 {
	if i := sort.Search(len(h), func(i int) bool { return h[i].Seq >= seq }); i > 0 {
		return h[i-1].Revision
	}
	return 0
}

func newHorizon(compactions []Compaction) horizon {
	h := slices.Clone(compactions)
	slices.SortFunc(h, func(a, b Compaction) int { return cmp.Compare(a.Seq, b.Seq) })
	for i := 1; i < len(h); i++ {
		h[i].Revision = max(h[i].Revision, h[i-1].Revision)
	}
	return h
}

// seen is what clients had been shown by a time.
type seen []Compaction // Seq, and the greatest revision shown before or at it

func (s seen) before(seq int64) int64 { return horizon(s).at(seq) }

// newSeen collects every revision that a client was told, except those that
// the store never had.
func newSeen(h *History) seen {
	var out []Compaction
	add := func(seq, rev int64) {
		if rev > 0 && rev <= h.Final {
			out = append(out, Compaction{Seq: seq, Revision: rev})
		}
	}
	for _, r := range h.Requests {
		if r.Result != nil && r.Return > 0 {
			add(r.Return, r.Result.Revision)
		}
	}
	for _, l := range h.Lists {
		if l.Outcome == OK {
			add(l.Return, l.Revision)
		}
	}
	for _, w := range h.Watches {
		for i := range w.Events {
			add(w.Events[i].Seq, w.Events[i].Revision)
		}
	}
	return seen(newHorizon(out))
}
