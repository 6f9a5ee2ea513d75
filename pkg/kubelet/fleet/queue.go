package fleet

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// task is something that is done when it is due.
type task interface {
	// act does it and says when it is due again; zero means when it is asked for.
	act(ctx context.Context) time.Time
	slot() *slot
}

// slot is a task's place in its queue. It belongs to the queue, which guards it.
type slot struct {
	due   int64 // nanoseconds of the wall clock; 0 when nothing is due
	index int32 // in the heap, from 1 on; 0 when it is not there
	busy  bool  // being done
}

// queue does tasks when they are due, the longest overdue first, each by one
// worker at a time.
type queue struct {
	clock   clock.WithTicker
	workers int
	wake    chan struct{}
	ready   chan task

	mu    sync.Mutex
	tasks taskHeap // guarded by mu, as are the slots of all tasks
}

func newQueue(c clock.WithTicker, workers int) *queue {
	return &queue{clock: c, workers: workers, wake: make(chan struct{}, 1), ready: make(chan task)}
}

// at has t done at due, or earlier when it is due earlier already.
func (q *queue) at(t task, due time.Time) {
	q.mu.Lock()
	first := q.set(t, due.UnixNano())
	q.mu.Unlock()
	if first {
		q.poke()
	}
}

// set needs mu. It tells whether t is the first that is due now.
func (q *queue) set(t task, due int64) bool {
	s := t.slot()
	if s.due != 0 && s.due <= due {
		return false
	}
	s.due = due
	switch {
	case s.busy: // taken up when it is done
		return false
	case s.index > 0:
		heap.Fix(&q.tasks, int(s.index)-1)
	default:
		heap.Push(&q.tasks, t)
	}
	return s.index == 1
}

// drop forgets that t is due.
func (q *queue) drop(t task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := t.slot()
	s.due = 0
	if s.index > 0 {
		heap.Remove(&q.tasks, int(s.index)-1)
	}
}

func (q *queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// run does tasks until ctx ends.
func (q *queue) run(ctx context.Context) {
	var workers sync.WaitGroup
	for range q.workers {
		workers.Go(func() { q.serve(ctx) })
	}
	for ctx.Err() == nil {
		t, wait := q.next()
		if t != nil {
			select {
			case q.ready <- t:
			case <-ctx.Done():
			}
			continue
		}
		q.rest(ctx, wait)
	}
	workers.Wait()
}

// rest waits until something may be due: for wait, or without end if negative.
func (q *queue) rest(ctx context.Context, wait time.Duration) {
	var due <-chan time.Time
	if wait >= 0 {
		timer := q.clock.NewTimer(wait)
		defer timer.Stop()
		due = timer.C()
	}
	select {
	case <-ctx.Done():
	case <-q.wake:
	case <-due:
	}
}

// next takes the first task if it is due, else says how long that takes.
func (q *queue) next() (task, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.tasks) == 0 {
		return nil, -1
	}
	s := q.tasks[0].slot()
	if wait := time.Duration(s.due - q.clock.Now().UnixNano()); wait > 0 {
		return nil, wait
	}
	t := heap.Pop(&q.tasks).(task)
	s.due, s.busy = 0, true
	return t, 0
}

func (q *queue) serve(ctx context.Context) {
	for {
		var t task
		select {
		case t = <-q.ready:
		case <-ctx.Done():
			return
		}
		q.done(t, t.act(ctx))
	}
}

// done notes the end of what was done. A time set meanwhile counts if it is
// earlier.
func (q *queue) done(t task, again time.Time) {
	q.mu.Lock()
	s := t.slot()
	s.busy = false
	due := s.due
	if s.due = 0; !again.IsZero() && (due == 0 || again.UnixNano() < due) {
		due = again.UnixNano()
	}
	first := due != 0 && q.set(t, due)
	q.mu.Unlock()
	if first {
		q.poke()
	}
}

// taskHeap orders tasks by when they are due.
type taskHeap []task

func (h taskHeap) Len() int           { return len(h) }
func (h taskHeap) Less(i, j int) bool { return h[i].slot().due < h[j].slot().due }

func (h taskHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].slot().index, h[j].slot().index = int32(i)+1, int32(j)+1
}

func (h *taskHeap) Push(x any) {
	t := x.(task)
	*h = append(*h, t)
	t.slot().index = int32(len(*h))
}

func (h *taskHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.slot().index = 0
	return t
}
