package queue

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// maxRecent bounds the events that are kept for the attempts under way. An
// attempt that outlasts them counts as helped.
const maxRecent = 4096

// Event wakes those that it may help.
func (q *Queue[P, E]) Event(event E, now time.Time) {
	if q.attempts > 0 {
		q.remember(event)
	}
	for _, g := range q.groups {
		concerned := q.concerned(g.plugins, &event)
		if len(concerned) == 0 && len(g.plugins) > 0 {
			continue
		}
		for b := range g.buckets {
			if b.probe == nil && b.members.Len() > 0 && q.helps(concerned, b.members.list[0].Pod, &event) {
				q.probe(b, now)
			}
		}
	}
}

// Activate tries a pod that waits, whatever refused it.
func (q *Queue[P, E]) Activate(uid types.UID, now time.Time) {
	if e := q.entries[uid]; e != nil && e.state == waiting {
		q.wakeAlone(e, now)
	}
}

// Wake tries all that wait, whatever refused them.
func (q *Queue[P, E]) Wake(now time.Time) {
	for q.oldest != nil {
		q.wakeAlone(q.oldest, now)
	}
}

func (q *Queue[P, E]) concerned(plugins []string, event *E) []string {
	var out []string
	for _, p := range plugins {
		if q.cfg.Concerns(p, event) {
			out = append(out, p)
		}
	}
	return out
}

// helps says that one of the plugins, or in their absence anything, is helped.
func (q *Queue[P, E]) helps(plugins []string, pod P, event *E) bool {
	for _, p := range plugins {
		if q.cfg.MayHelp(p, pod, event) {
			return true
		}
	}
	return len(plugins) == 0
}

// helpedSince says that an event during an attempt may have helped it.
func (q *Queue[P, E]) helpedSince(e *Entry[P], r Refusal) bool {
	if e.began < q.first {
		return true // what happened since is not known any more
	}
	for i := e.began - q.first; i < len(q.recent); i++ {
		concerned := q.concerned(r.Plugins, &q.recent[i])
		if (len(concerned) > 0 || len(r.Plugins) == 0) && q.helps(concerned, e.Pod, &q.recent[i]) {
			return true
		}
	}
	return false
}

func (q *Queue[P, E]) remember(event E) {
	if len(q.recent) == maxRecent {
		q.forget(maxRecent / 2)
	}
	q.recent = append(q.recent, event)
}

func (q *Queue[P, E]) forget(n int) {
	q.first += n
	rest := copy(q.recent, q.recent[n:])
	clear(q.recent[rest:])
	q.recent = q.recent[:rest]
}

// ended forgets the events when no attempt is under way.
func (q *Queue[P, E]) ended() {
	if q.attempts--; q.attempts == 0 {
		q.forget(len(q.recent))
	}
}
