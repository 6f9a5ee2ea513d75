package expression

import (
	"sync"
	"sync/atomic"
)

// defaultLimit is how many owners keep their compiled expressions. One of some
// expressions takes about 100 KB.
const defaultLimit = 256

// Lazy holds what one owner compiles, from its first use until others are used
// more. Use NewLazy.
type Lazy[T any] struct {
	c    *Compiler
	make func() *T
	held atomic.Pointer[T]
	used atomic.Uint64 // the compiler's clock at the last use
	mu   sync.Mutex    // one goroutine compiles
}

// evictable is a Lazy of any kind.
type evictable interface {
	lastUsed() uint64
	empty()
}

// NewLazy returns a Lazy that calls compile, which has to give the same result
// every time.
func NewLazy[T any](c *Compiler, compile func() *T) *Lazy[T] { return &Lazy[T]{c: c, make: compile} }

// Get returns the compiled expressions.
func (l *Lazy[T]) Get() *T {
	l.used.Store(l.c.clock.Add(1))
	if v := l.held.Load(); v != nil {
		return v
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if v := l.held.Load(); v != nil {
		return v
	}
	v := l.make()
	l.held.Store(v)
	l.c.keep(l)
	return v
}

// Drop forgets the compiled expressions of an owner that is gone.
func (l *Lazy[T]) Drop() {
	l.c.lazyMu.Lock()
	defer l.c.lazyMu.Unlock()
	delete(l.c.lazies, l)
	l.empty()
}

func (l *Lazy[T]) lastUsed() uint64 { return l.used.Load() }
func (l *Lazy[T]) empty()           { l.held.Store(nil) }

// keep counts l among those that hold something, and empties the one that was
// not used for longest if they are too many.
func (c *Compiler) keep(l evictable) {
	c.lazyMu.Lock()
	defer c.lazyMu.Unlock()
	c.lazies[l] = struct{}{}
	for len(c.lazies) > c.limit {
		var oldest evictable
		for other := range c.lazies {
			if other != l && (oldest == nil || other.lastUsed() < oldest.lastUsed()) {
				oldest = other
			}
		}
		if oldest == nil {
			return
		}
		delete(c.lazies, oldest)
		oldest.empty()
	}
}
