package scheduler

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/scheduler/plugin"
)

func queued(name string, priority int32) *plugin.Pod {
	return &plugin.Pod{UID: types.UID(name), Name: name, Priority: priority}
}

func TestQueueOrder(t *testing.T) {
	q, now := newQueue(), time.Unix(0, 0)
	q.add(queued("old", 0), now)
	q.add(queued("new", 0), now.Add(time.Second))
	q.add(queued("urgent", 10), now.Add(2*time.Second))
	for _, want := range []string{"urgent", "old", "new"} {
		if e := q.pop(now.Add(3 * time.Second)); e == nil || e.pod.Name != want {
			t.Fatalf("popped %v, want %s", e, want)
		}
	}
	if e := q.pop(now); e != nil {
		t.Errorf("popped %s from an empty queue", e.pod.Name)
	}
}

func TestHopelessWaitsForAChange(t *testing.T) {
	q, now := newQueue(), time.Unix(0, 0)
	q.add(queued("p", 0), now)
	e := q.pop(now)
	q.fail(e, q.moves, false, now)
	if got := q.pop(now.Add(time.Hour)); got != nil {
		t.Fatal("a pod that no node can take was tried again although nothing changed")
	}
	if !q.next().IsZero() {
		t.Error("a hopeless pod must not set a timer")
	}
	q.wake(now.Add(time.Hour))
	if got := q.pop(now.Add(time.Hour)); got != e {
		t.Fatal("a change did not wake the pod")
	}
}

// TestChangeDuringTheTry is the race that loses a wake-up: the change comes
// between the decision and the report.
func TestChangeDuringTheTry(t *testing.T) {
	q, now := newQueue(), time.Unix(0, 0)
	q.add(queued("p", 0), now)
	e, began := q.pop(now), q.moves
	q.wake(now)
	q.fail(e, began, false, now)
	if got := q.pop(now); got != nil {
		t.Fatal("a failed pod was tried again without back-off")
	}
	if want := now.Add(firstBackoff); !q.next().Equal(want) {
		t.Errorf("next try at %v, want %v", q.next(), want)
	}
	if got := q.pop(now.Add(firstBackoff)); got != e {
		t.Error("the change during the try was forgotten")
	}
}

func TestBackoffGrows(t *testing.T) {
	want := []time.Duration{1e9, 2e9, 4e9, 8e9, 10e9, 10e9}
	for i, d := range want {
		if got := backoffOf(i + 1); got != d {
			t.Errorf("after %d attempts %v, want %v", i+1, got, d)
		}
	}
}

// TestQueueNeverLosesAPod runs random operations: every pod that was added and
// not removed is in exactly one place, and can be popped once it is woken.
func TestQueueNeverLosesAPod(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		q, now := newQueue(), time.Unix(0, 0)
		known := map[types.UID]bool{}
		var trying []*entry
		for range 300 {
			now = now.Add(time.Duration(r.IntN(2000)) * time.Millisecond)
			uid := types.UID(fmt.Sprint(r.IntN(10)))
			switch r.IntN(5) {
			case 0:
				q.add(&plugin.Pod{UID: uid, Priority: int32(r.IntN(3))}, now)
				known[uid] = true
			case 1:
				q.remove(uid)
				delete(known, uid)
			case 2:
				if e := q.pop(now); e != nil {
					trying = append(trying, e)
				}
			case 3:
				if len(trying) > 0 {
					q.fail(trying[0], r.IntN(q.moves+1), r.IntN(2) == 0, now)
					trying = trying[1:]
				}
			case 4:
				q.wake(now)
			}
		}
		for _, e := range trying {
			q.fail(e, q.moves, false, now)
		}
		q.wake(now)
		now = now.Add(time.Minute)
		popped := map[types.UID]bool{}
		for e := q.pop(now); e != nil; e = q.pop(now) {
			if popped[e.pod.UID] {
				t.Fatalf("seed %d: pod %s was popped twice", seed, e.pod.UID)
			}
			popped[e.pod.UID] = true
		}
		for uid := range known {
			if !popped[uid] {
				t.Fatalf("seed %d: pod %s is lost", seed, uid)
			}
		}
		if len(popped) != len(known) {
			t.Fatalf("seed %d: popped %v, known %v", seed, popped, known)
		}
	}
}
