package admission

import (
	"context"
	"errors"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/quota"
)

// reservations charges quotas for many writers at once: those that come while
// a quota is being written wait and are charged together by the next write.
type reservations struct {
	quotas Quotas

	mu     sync.Mutex
	queues map[types.NamespacedName][]*reservation // guarded by mu; an entry is there while somebody writes
}

// reservation is one writer's wish.
type reservation struct {
	write quota.Write
	// turn is closed when it is for this writer to charge all that wait; done
	// when somebody else did.
	turn, done chan struct{}

	// Set by who charges, before done is closed.
	delta corev1.ResourceList
	err   error
}

// refusal is an error that says that a quota has not enough left.
type refusal struct{ error }

func newReservations(quotas Quotas) *reservations {
	return &reservations{quotas: quotas, queues: map[types.NamespacedName][]*reservation{}}
}

// reserve charges a quota and returns by how much. The error is a refusal, or
// says that the quota could not be written.
func (r *reservations) reserve(ctx context.Context, namespace, name string, w quota.Write) (corev1.ResourceList, error) {
	key := types.NamespacedName{Namespace: namespace, Name: name}
	mine := &reservation{write: w, turn: make(chan struct{}), done: make(chan struct{})}
	r.mu.Lock()
	waiting, busy := r.queues[key]
	r.queues[key] = append(waiting, mine)
	r.mu.Unlock()
	if busy {
		// Each turn is bounded in time and takes all that wait, so at most two
		// are ahead.
		select {
		case <-mine.done:
			return mine.delta, mine.err
		case <-mine.turn:
		}
	}
	r.takeTurn(ctx, key)
	return mine.delta, mine.err
}

// takeTurn charges for everybody who waits, the caller among them, and hands
// on to the first who has come meanwhile.
func (r *reservations) takeTurn(ctx context.Context, key types.NamespacedName) {
	r.mu.Lock()
	batch := r.queues[key]
	r.queues[key] = nil // still there: busy
	r.mu.Unlock()
	r.charge(ctx, key, batch)
	for _, one := range batch {
		close(one.done)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if next := r.queues[key]; len(next) > 0 {
		close(next[0].turn)
		return
	}
	delete(r.queues, key)
}

// charge writes the quota once for the whole batch.
func (r *reservations) charge(ctx context.Context, key types.NamespacedName, batch []*reservation) {
	// The writer whose turn it is may go; the others wait for the outcome.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reserveTime)
	defer cancel()
	err := r.quotas.Charge(ctx, key.Namespace, key.Name, func(q *corev1.ResourceQuota) (corev1.ResourceList, error) {
		return settle(q, batch)
	})
	switch {
	case err == nil, errors.Is(err, errNothingCharged):
	case apierrors.IsNotFound(err):
		for _, one := range batch {
			one.delta, one.err = nil, nil // the quota went: it bounds nobody
		}
	default:
		for _, one := range batch {
			one.delta, one.err = nil, err // what was decided rests on nothing
		}
	}
}

// errNothingCharged: nobody of a batch changes the quota.
var errNothingCharged = errors.New("nothing is charged")

// settle decides on each reservation of a batch by what q has left after
// those before it, and returns the usage after all that fit.
func settle(q *corev1.ResourceQuota, batch []*reservation) (corev1.ResourceList, error) {
	used, charged := q.Status.Used, false
	for _, one := range batch {
		one.delta, one.err = nil, nil
		delta, err := one.write.Charge(q)
		if err == nil && len(delta) > 0 {
			var after corev1.ResourceList
			if after, err = one.write.Reserve(q, used, delta); err == nil {
				used, one.delta, charged = after, delta, true
			}
		}
		if err != nil {
			one.err = refusal{err}
		}
	}
	if !charged {
		return nil, errNothingCharged
	}
	return used, nil
}
