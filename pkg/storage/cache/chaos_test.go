package cache

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"coracle/pkg/storage"
)

// chaos is a backend whose answers and watches come at bad moments.
type chaos struct {
	storage.Backend
	// delay is the longest pause before the answer of a write and before each
	// batch of a watch; each pause is random.
	answerDelay, watchDelay time.Duration
	// breakOneIn breaks a watch before one of so many batches; 0 never does.
	breakOneIn int

	mu        sync.Mutex // guards all below
	rnd       *rand.Rand
	frozen    chan struct{} // while not nil, watches deliver nothing until it is closed
	refreshed int           // how many times Current was asked
	watches   int           // how many watches were opened
}

func newChaos(b storage.Backend, seed uint64) *chaos {
	return &chaos{Backend: b, rnd: rand.New(rand.NewPCG(seed, 1))}
}

func (b *chaos) pause(longest time.Duration) {
	if longest == 0 {
		return
	}
	b.mu.Lock()
	d := time.Duration(b.rnd.Int64N(int64(longest)))
	b.mu.Unlock()
	time.Sleep(d)
}

// freeze stops all watches until thaw.
func (b *chaos) freeze() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.frozen = make(chan struct{})
}

func (b *chaos) thaw() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.frozen)
	b.frozen = nil
}

func (b *chaos) Put(ctx context.Context, key string, value []byte, expect storage.Revision, ttl time.Duration) (storage.Revision, error) {
	rev, err := b.Backend.Put(ctx, key, value, expect, ttl)
	b.pause(b.answerDelay)
	return rev, err
}

func (b *chaos) Delete(ctx context.Context, key string, expect storage.Revision) (storage.Revision, error) {
	rev, err := b.Backend.Delete(ctx, key, expect)
	b.pause(b.answerDelay)
	return rev, err
}

func (b *chaos) Current(ctx context.Context) (storage.Revision, error) {
	b.mu.Lock()
	b.refreshed++
	b.mu.Unlock()
	return b.Backend.Current(ctx)
}

func (b *chaos) Watch(ctx context.Context, prefix string, opts storage.WatchOptions) (storage.Watch, error) {
	b.mu.Lock()
	b.watches++
	b.mu.Unlock()
	w, err := b.Backend.Watch(ctx, prefix, opts)
	if err != nil {
		return nil, err
	}
	return &chaosWatch{Watch: w, b: b}, nil
}

type chaosWatch struct {
	storage.Watch
	b *chaos
}

var errChaos = errors.New("the watch was cut")

func (w *chaosWatch) Next(ctx context.Context) (storage.Batch, error) {
	w.b.mu.Lock()
	cut := w.b.breakOneIn > 0 && w.b.rnd.IntN(w.b.breakOneIn) == 0
	w.b.mu.Unlock()
	if cut {
		return storage.Batch{}, errChaos
	}
	w.b.pause(w.b.watchDelay)
	batch, err := w.Watch.Next(ctx)
	w.b.mu.Lock()
	frozen := w.b.frozen
	w.b.mu.Unlock()
	if frozen == nil {
		return batch, err
	}
	// What came during the freeze is lost, as with a connection that hangs.
	select {
	case <-frozen:
		return storage.Batch{}, errChaos
	case <-ctx.Done():
		return storage.Batch{}, ctx.Err()
	}
}
