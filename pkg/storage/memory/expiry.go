package memory

import (
	"container/heap"
	"time"
)

// expiryQueue holds records that have a time to live, the first to expire
// first. A record that has been replaced or deleted since is still in it and is
// passed over when its time comes.
type expiryQueue []*record

func (q expiryQueue) Len() int           { return len(q) }
func (q expiryQueue) Less(i, j int) bool { return q[i].expires.Before(q[j].expires) }
func (q expiryQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *expiryQueue) Push(x any)        { *q = append(*q, x.(*record)) }
func (q *expiryQueue) Pop() any {
	last := len(*q) - 1
	rec := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return rec
}

// expireLater queues a record and makes sure that the loop knows. s.mu is held
// for writing.
func (s *Store) expireLater(rec *record) {
	heap.Push(&s.expiry, rec)
	if !s.expiring {
		s.expiring = true
		s.wg.Go(s.expireLoop)
		return
	}
	if s.expiry[0] == rec {
		select {
		case s.sooner <- struct{}{}:
		default:
		}
	}
}

// expireLoop deletes what has expired until nothing is left that could.
func (s *Store) expireLoop() {
	for {
		wait, more := s.expireDue()
		if !more {
			return
		}
		timer := s.clock.NewTimer(wait)
		select {
		case <-timer.C():
		case <-s.sooner:
		case <-s.done:
		}
		timer.Stop()
	}
}

// expireDue deletes every record whose time has come, each in a revision of
// its own, and returns how long the next one has.
func (s *Store) expireDue() (wait time.Duration, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.Now()
	for len(s.expiry) > 0 && !s.closed {
		first := s.expiry[0]
		if wait := first.expires.Sub(now); wait > 0 {
			return wait, true
		}
		heap.Pop(&s.expiry)
		if rec, ok := s.now.keys.Get(first.Key); ok && rec == first {
			s.remove(rec)
		}
	}
	s.expiring = false
	return 0, false
}
