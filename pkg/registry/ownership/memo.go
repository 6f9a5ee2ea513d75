package ownership

import "sync"

// memoSize is how many sets each generation of a memo keeps, and memoBytes
// how long the form of one may be.
const (
	memoSize  = 64
	memoBytes = 16 << 10
)

// memo keeps sets that were read, by their form. It is bounded: when the young
// generation is full it becomes the old one, and the old one is dropped.
type memo struct {
	mu         sync.Mutex
	young, old map[string]*known // guarded by mu
}

// known is a set that was read.
type known struct {
	set    set
	sorted bool // as the library writes it
	fits   bool // the kind's schema
}

// get returns what is known of raw, which read makes when nothing is.
// The result is nil when read says so.
func (m *memo) get(raw []byte, read func(raw string) *known) *known {
	m.mu.Lock()
	k, ok := m.young[string(raw)]
	if !ok {
		k, ok = m.old[string(raw)]
	}
	m.mu.Unlock()
	if ok {
		return k
	}
	text := string(raw)
	if k = read(text); k == nil || len(text) > memoBytes {
		return k
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.young == nil || len(m.young) >= memoSize {
		m.young, m.old = make(map[string]*known, memoSize), m.young
	}
	m.young[text] = k
	return k
}
