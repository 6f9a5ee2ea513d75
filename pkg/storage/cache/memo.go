package cache

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"
)

// memos is what an object remembers. It is empty until somebody asks.
type memos struct {
	budget *memoBudget // nil: nothing is remembered
	list   atomic.Pointer[[]*memo]
	// kept says that the object is the present one of its key. What others
	// remember only lasts until the watchers have had it.
	kept atomic.Bool
}

// memoOverhead is what a memo costs beside its result.
const memoOverhead = 192

// memo is one remembered result.
type memo struct {
	id    string // "" for the decoded form
	owner *Object
	once  sync.Once   // guards the making of all below
	done  atomic.Bool // bytes are there
	bytes []byte
	value any
	err   error
	// budget accounts for the memo; set when it is made, before it is accounted.
	budget atomic.Pointer[memoBudget]
	size   int // guarded by the budget's lock, as what follows
	// accounted says that slot is its place among those of present objects.
	accounted bool
	slot      int
}

// memoBudget bounds the memos of all objects of a cache together. Of present
// objects, what is over the bound is dropped at random, so that a scan over more
// than fits still finds a part of it the next time. Of objects that have been
// replaced, the oldest is dropped, and early: each pins a whole object.
type memoBudget struct {
	limit int
	// forms bounds the decoded forms apart from the encodings, nil in the one
	// that does. They are for what is read again and again, a namespace or a
	// role; after the update of many objects there would be one of each.
	forms *memoBudget

	mu       sync.Mutex // guards all below, and the slots and sizes of memos
	used     int
	entries  []*memo
	random   uint64
	past     []*memo // of replaced objects, oldest first
	pastUsed int
}

// pastShare is the part of the limit for the memos of replaced objects, and
// formShare that for decoded forms.
const (
	pastShare = 8
	formShare = 8
)

func newMemoBudget(limit int) *memoBudget {
	forms := &memoBudget{limit: limit / formShare, random: 0x9e3779b97f4a7c15}
	return &memoBudget{limit: limit - forms.limit, random: forms.random, forms: forms}
}

// Encoding returns the bytes remembered under id (for example "json/v1"),
// calling make when there are none; concurrent callers share one call. The
// bytes are shared and must not be changed. They are forgotten when memory is
// short, so make may be called again; an error is not remembered.
func (o *Object) Encoding(id string, make func() ([]byte, error)) ([]byte, error) {
	m := o.remember(id)
	m.once.Do(func() {
		m.bytes, m.err = make()
		m.done.Store(m.err == nil)
		o.settle(m, o.memo.budget, len(m.bytes))
	})
	return m.bytes, m.err
}

// Encoded returns the bytes remembered under id, false when there are none.
func (o *Object) Encoded(id string) ([]byte, bool) {
	if list := o.memo.list.Load(); list != nil {
		for _, m := range *list {
			if m.id == id && m.done.Load() {
				return m.bytes, true
			}
		}
	}
	return nil, false
}

// Offer remembers a copy of the bytes under id if nothing has to be forgotten
// for it: a list of everything then does not push out what watches share.
func (o *Object) Offer(id string, b []byte) {
	if o.memo.budget == nil || !o.memo.kept.Load() || !o.memo.budget.room(len(b)+memoOverhead) {
		return
	}
	m := o.remember(id)
	m.once.Do(func() {
		m.bytes = bytes.Clone(b)
		m.done.Store(true)
		o.settle(m, o.memo.budget, len(b))
	})
}

// Decoded returns the one decoded form of the object, calling make when there
// is none. The value is shared and must not be changed. It is forgotten like an
// encoding.
func (o *Object) Decoded(make func() (any, error)) (any, error) { return o.DecodedAs("", make) }

// DecodedAs is Decoded for objects that have several decoded forms, each under
// an id that no encoding has.
func (o *Object) DecodedAs(id string, make func() (any, error)) (any, error) {
	m := o.remember(id)
	m.once.Do(func() {
		m.value, m.err = make()
		// Decoded Kubernetes objects take a few times their encoded size.
		budget := o.memo.budget
		if budget != nil {
			budget = budget.forms
		}
		o.settle(m, budget, 4*len(o.Value))
	})
	return m.value, m.err
}

// remember finds or adds the memo with the id.
func (o *Object) remember(id string) *memo {
	for {
		old := o.memo.list.Load()
		var memos []*memo
		if old != nil {
			memos = *old
		}
		for _, m := range memos {
			if m.id == id {
				return m
			}
		}
		m := &memo{id: id, owner: o}
		grown := append(memos[:len(memos):len(memos)], m)
		if o.memo.list.CompareAndSwap(old, &grown) {
			return m
		}
	}
}

// settle accounts for a memo that has just been made, or drops it.
func (o *Object) settle(m *memo, budget *memoBudget, size int) {
	if m.err != nil || budget == nil {
		o.forget(m)
		return
	}
	m.size = size + memoOverhead
	m.budget.Store(budget)
	budget.add(m)
}

// forget drops a memo; whoever holds its result keeps it.
func (o *Object) forget(m *memo) {
	for {
		old := o.memo.list.Load()
		if old == nil {
			return
		}
		left := slices.DeleteFunc(slices.Clone(*old), func(n *memo) bool { return n == m })
		next := &left
		if len(left) == 0 {
			next = nil
		}
		if o.memo.list.CompareAndSwap(old, next) {
			return
		}
	}
}

// retire says that the object is not the present one of its key any more.
func (o *Object) retire() {
	o.memo.kept.Store(false)
	if list := o.memo.list.Load(); list != nil && o.memo.budget != nil {
		o.memo.budget.retire(*list)
		o.memo.budget.forms.retire(*list)
	}
}

func (b *memoBudget) retire(memos []*memo) {
	b.mu.Lock()
	for _, m := range memos {
		if m.budget.Load() == b && m.accounted {
			b.removeLocked(m.slot)
			b.pastLocked(m)
		}
	}
	drop := b.excessLocked()
	b.mu.Unlock()
	forgetAll(drop)
}

// add accounts for a memo and drops others until the bound holds again.
func (b *memoBudget) add(m *memo) {
	b.mu.Lock()
	if m.owner.memo.kept.Load() {
		m.slot, m.accounted = len(b.entries), true
		b.entries = append(b.entries, m)
		b.used += m.size
	} else {
		b.pastLocked(m)
	}
	drop := b.excessLocked()
	b.mu.Unlock()
	forgetAll(drop)
}

// room says that so much more fits.
func (b *memoBudget) room(size int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used+size <= b.limit-b.limit/pastShare
}

func forgetAll(memos []*memo) {
	for _, m := range memos {
		m.owner.forget(m)
	}
}

func (b *memoBudget) pastLocked(m *memo) {
	m.accounted = false
	b.past = append(b.past, m)
	b.pastUsed += m.size
}

// removeLocked takes the memo in a slot out of those of present objects.
func (b *memoBudget) removeLocked(slot int) {
	m, last := b.entries[slot], len(b.entries)-1
	b.used -= m.size
	m.accounted = false
	b.entries[slot] = b.entries[last]
	b.entries[slot].slot = slot
	b.entries[last] = nil
	b.entries = b.entries[:last]
}

// excessLocked takes out what is over the bounds.
func (b *memoBudget) excessLocked() []*memo {
	var drop []*memo
	for b.pastUsed > b.limit/pastShare && len(b.past) > 0 {
		m := b.past[0]
		b.past[0] = nil
		b.past = b.past[1:]
		b.pastUsed -= m.size
		drop = append(drop, m)
	}
	for b.used > b.limit-b.limit/pastShare && len(b.entries) > 0 {
		// xorshift: which one is dropped must only be spread, not secret.
		b.random ^= b.random << 13
		b.random ^= b.random >> 7
		b.random ^= b.random << 17
		slot := int(b.random % uint64(len(b.entries)))
		drop = append(drop, b.entries[slot])
		b.removeLocked(slot)
	}
	return drop
}
