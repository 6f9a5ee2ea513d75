package queue

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// event frees a place for pods of the class that is its value.
type event string

func newTestQueue() *Queue[string, event] {
	return New(Config[string, event]{
		InitialBackoff: time.Second, MaxBackoff: 10 * time.Second,
		MayHelp:  func(_ string, pod string, e *event) bool { return pod == string(*e) },
		Concerns: func(plugin string, e *event) bool { return plugin == "Room" && *e != "noise" },
	})
}

func item(uid, class string, priority int32) Item[string] {
	return Item[string]{UID: types.UID(uid), Class: class, Pod: class, Priority: priority}
}

var (
	start  = time.Unix(1000, 0)
	noRoom = Refusal{Plugins: []string{"Room"}}
)

// expect pops and wants these pods, in this order, and no more.
func expect(t *testing.T, q *Queue[string, event], now time.Time, want ...string) []*Entry[string] {
	t.Helper()
	var got []*Entry[string]
	for e := q.Pop(now); e != nil; e = q.Pop(now) {
		got = append(got, e)
	}
	var names []string
	for _, e := range got {
		names = append(names, string(e.UID))
	}
	if fmt.Sprint(names) != fmt.Sprint(want) {
		t.Fatalf("popped %v, want %v", names, want)
	}
	return got
}

func TestOrder(t *testing.T) {
	q := newTestQueue()
	q.Add(item("old", "a", 0), start)
	q.Add(item("new", "a", 0), start.Add(time.Second))
	q.Add(item("newest", "b", 0), start.Add(time.Second))
	q.Add(item("urgent", "a", 10), start.Add(2*time.Second))
	expect(t, q, start, "urgent", "old", "new", "newest")
}

func TestWaitsForAnEventThatMayHelp(t *testing.T) {
	q := newTestQueue()
	q.Add(item("p", "a", 0), start)
	q.Fail(q.Pop(start), noRoom, start)
	later := start.Add(time.Minute)
	for _, e := range []event{"b", "noise"} {
		q.Event(e, later)
		expect(t, q, later)
	}
	q.Event("a", later)
	expect(t, q, later, "p")
}

func TestAnythingHelpsWhereNobodyRefused(t *testing.T) {
	q := newTestQueue()
	q.Add(item("p", "a", 0), start)
	q.Fail(q.Pop(start), Refusal{}, start)
	expect(t, q, start)
	q.Event("noise", start)
	expect(t, q, start, "p")
}

func TestAnEventWakesOneOfAClass(t *testing.T) {
	q := newTestQueue()
	for i := range 3 {
		q.Add(item(fmt.Sprint("p", i), "a", 0), start.Add(time.Duration(i)))
	}
	for range 3 {
		q.Fail(q.Pop(start), noRoom, start)
	}
	later := start.Add(time.Minute)
	q.Event("a", later)
	q.Event("a", later)
	probe := expect(t, q, later, "p0")[0]
	q.Fail(probe, noRoom, later)
	expect(t, q, later) // what refused it refuses the others
	q.Event("a", later)
	probe = expect(t, q, later, "p1")[0]
	q.Done(probe, later)
	next := expect(t, q, later, "p2")[0]
	q.Remove("p2", later)
	if q.Get(next.UID) != nil {
		t.Error("a removed pod is still known")
	}
	expect(t, q, later, "p0") // nobody knows how p2 would have fared
}

// TestTheProbesRefusalIsThatOfItsClass: pods that wait for room would never
// hear that a taint was removed, had they not learnt of it from their probe.
func TestTheProbesRefusalIsThatOfItsClass(t *testing.T) {
	q := newTestQueue()
	for i := range 2 {
		q.Add(item(fmt.Sprint("p", i), "a", 0), start.Add(time.Duration(i)))
		q.Fail(q.Pop(start), Refusal{Plugins: []string{"Taints"}}, start)
	}
	later := start.Add(time.Minute)
	q.Event("a", later)
	expect(t, q, later)
	q.Add(item("p2", "a", 0), later)
	q.Fail(expect(t, q, later, "p2")[0], noRoom, later)
	q.Event("a", later)
	expect(t, q, later, "p0")
}

func TestEventDuringTheAttempt(t *testing.T) {
	q := newTestQueue()
	q.Add(item("p", "a", 0), start)
	e := q.Pop(start)
	q.Event("b", start)
	q.Event("a", start)
	if len(q.recent) != 2 {
		t.Fatalf("%d events are remembered during an attempt, want 2", len(q.recent))
	}
	q.Add(item("q", "b", 0), start)
	q.Fail(e, noRoom, start)
	expect(t, q, start, "q", "p") // p backs off as long as there are others
	if len(q.recent) != 0 {
		t.Errorf("%d events are remembered for nobody", len(q.recent))
	}
}

func TestTooManyEventsDuringAnAttempt(t *testing.T) {
	q := newTestQueue()
	q.Add(item("p", "a", 0), start)
	e := q.Pop(start)
	q.Event("a", start)
	for range 3 * maxRecent {
		q.Event("b", start)
	}
	if len(q.recent) > maxRecent {
		t.Errorf("%d events are remembered, want at most %d", len(q.recent), maxRecent)
	}
	q.Fail(e, noRoom, start)
	expect(t, q, start, "p")
}

func TestErrorsBackOff(t *testing.T) {
	q := newTestQueue()
	q.Add(item("p", "a", 0), start)
	now := start
	for i, d := range []time.Duration{1, 2, 4, 8, 10, 10} {
		e := q.Pop(now)
		if e == nil {
			t.Fatalf("attempt %d: nothing to try at %v", i, now.Sub(start))
		}
		q.Fail(e, Refusal{Error: true}, now)
		ready := now.Add(d * time.Second)
		if got := q.Next(); !got.Equal(ready) {
			t.Fatalf("attempt %d: next at %v, want %v", i, got.Sub(start), ready.Sub(start))
		}
		expect(t, q, ready.Add(-1))
		now = ready
	}
}

func TestFlush(t *testing.T) {
	q := newTestQueue()
	for i := range 3 {
		q.Add(item(fmt.Sprint("p", i), "a", 0), start)
		q.Fail(q.Pop(start), noRoom, start.Add(time.Duration(i)*time.Minute))
	}
	if got, want := q.Next(), start.Add(FlushAfter); !got.Equal(want) {
		t.Errorf("next at %v, want %v", got, want)
	}
	expect(t, q, start.Add(FlushAfter-1))
	expect(t, q, start.Add(FlushAfter), "p0")
	expect(t, q, start.Add(FlushAfter+time.Hour), "p1", "p2")
}

func TestGates(t *testing.T) {
	q := newTestQueue()
	p := item("p", "a", 0)
	p.Gated = true
	q.Add(p, start)
	q.Event("a", start)
	q.Wake(start)
	expect(t, q, start.Add(time.Hour))
	p.Gated = false
	q.Add(p, start)
	e := expect(t, q, start, "p")[0]
	p.Gated = true
	q.Add(p, start)
	q.Fail(e, noRoom, start)
	expect(t, q, start.Add(time.Hour))
}

func TestChangedPodIsTriedAgain(t *testing.T) {
	q := newTestQueue()
	q.Add(item("p", "a", 0), start)
	q.Fail(q.Pop(start), noRoom, start)
	q.Add(item("p", "a", 0), start)
	expect(t, q, start)
	q.Add(item("p", "b", 0), start)
	e := expect(t, q, start, "p")[0]
	q.Add(item("p", "c", 0), start)
	q.Fail(e, noRoom, start)
	expect(t, q, start, "p")
}

// TestNominatedWaitsAlone: the place that was made for it is for it, and no
// other of its class may be woken in its stead.
func TestNominatedWaitsAlone(t *testing.T) {
	q := newTestQueue()
	for i := range 3 {
		q.Add(item(fmt.Sprint("p", i), "a", 0), start.Add(time.Duration(i)))
	}
	for range 3 {
		q.Fail(q.Pop(start), noRoom, start)
	}
	later := start.Add(time.Minute)
	q.Event("a", later)
	probe := expect(t, q, later, "p0")[0]
	q.Fail(probe, Refusal{Plugins: noRoom.Plugins, Alone: true}, later)
	next := expect(t, q, later, "p1")[0] // it may be nominated as well
	q.Fail(next, noRoom, later)
	q.Event("a", later)
	got := map[types.UID]bool{}
	for e := q.Pop(later); e != nil; e = q.Pop(later) {
		got[e.UID] = true
	}
	if !got["p0"] || len(got) != 2 {
		t.Errorf("woken %v, want p0 and one other", got)
	}
}

// world is a cluster with places for classes of pods.
type world struct {
	t      *testing.T
	r      *rand.Rand
	q      *Queue[string, event]
	now    time.Time
	room   map[string]int
	class  map[types.UID]string
	under  []*attempt
	serial int
}

// attempt is one under way; its decision may be older than its end.
type attempt struct {
	e       *Entry[string]
	decided bool
	refusal Refusal
}

func (w *world) step() {
	switch w.r.IntN(8) {
	case 0, 1:
		w.serial++
		class := string(rune('a' + w.r.IntN(3)))
		p := item(fmt.Sprint(w.serial), class, int32(w.r.IntN(2)))
		w.class[p.UID] = class
		w.q.Add(p, w.now)
	case 2:
		for uid := range w.class {
			w.q.Remove(uid, w.now)
			delete(w.class, uid)
			break
		}
	case 3:
		class := string(rune('a' + w.r.IntN(3)))
		w.room[class]++
		w.q.Event(event(class), w.now)
	case 4:
		w.q.Event("noise", w.now)
	case 5:
		w.now = w.now.Add(time.Duration(w.r.IntN(3000)) * time.Millisecond)
	case 6:
		if e := w.q.Pop(w.now); e != nil {
			a := &attempt{e: e}
			w.under = append(w.under, a)
			w.decide(a)
		}
	case 7:
		if len(w.under) > 0 {
			i := w.r.IntN(len(w.under))
			w.finish(w.under[i])
			w.under = append(w.under[:i], w.under[i+1:]...)
		}
	}
}

// decide takes a place when there is one, as a scheduler assumes its decision.
func (w *world) decide(a *attempt) {
	if w.room[a.e.Pod] > 0 {
		w.room[a.e.Pod]--
		a.decided = true
		w.q.Done(a.e, w.now)
		return
	}
	a.refusal = noRoom
	a.refusal.Alone = w.r.IntN(5) == 0
}

// finish ends an attempt; a binding in ten fails and gives its place back.
func (w *world) finish(a *attempt) {
	switch {
	case !a.decided:
		w.q.Fail(a.e, a.refusal, w.now)
	case w.class[a.e.UID] == "": // removed: its place is free again
		w.room[a.e.Pod]++
		w.q.Event(event(a.e.Pod), w.now)
	case w.r.IntN(10) == 0:
		w.room[a.e.Pod]++
		w.q.Event(event(a.e.Pod), w.now)
		w.q.Fail(a.e, Refusal{Error: true}, w.now)
	default:
		delete(w.class, a.e.UID)
		w.q.Remove(a.e.UID, w.now)
	}
}

// settle finishes all attempts and lets back-offs pass, but no flush.
func (w *world) settle() {
	for range 10000 {
		for _, a := range w.under {
			w.finish(a)
		}
		w.under = nil
		e := w.q.Pop(w.now)
		if e == nil && w.q.errors.Len() == 0 {
			return
		}
		if e == nil {
			w.now = w.q.errors.list[0].ready
			continue
		}
		a := &attempt{e: e}
		w.under = append(w.under, a)
		w.decide(a)
	}
	w.t.Fatal("the queue does not come to rest")
}

// check finds pods that wait although there is a place, or that are lost.
func (w *world) check() {
	waiting := map[types.UID]bool{}
	for e := w.q.oldest; e != nil; e = e.next {
		waiting[e.UID] = true
		if w.room[e.Pod] > 0 {
			w.t.Fatalf("pod %s of class %s waits and there are %d places", e.UID, e.Pod, w.room[e.Pod])
		}
	}
	if len(waiting) != len(w.class) || w.q.Len() != len(w.class) {
		w.t.Fatalf("%d pods wait, %d are in the queue, %d are known", len(waiting), w.q.Len(), len(w.class))
	}
	members := 0
	for _, b := range w.q.buckets {
		members += b.members.Len()
		if b.probe != nil || b.group == nil {
			w.t.Fatalf("at rest, bucket %v has probe %v and group %v", b.key, b.probe, b.group)
		}
	}
	if members != len(waiting) || w.q.attempts != 0 || len(w.q.recent) != 0 {
		w.t.Fatalf("%d in buckets, %d wait, %d attempts, %d events", members, len(waiting), w.q.attempts, len(w.q.recent))
	}
}

// TestNobodyWaitsBesideAPlace runs random operations: at rest every pod is in
// exactly one place, and no pod waits for what is there.
func TestNobodyWaitsBesideAPlace(t *testing.T) {
	for seed := range uint64(300) {
		w := &world{t: t, r: rand.New(rand.NewPCG(seed, 0)), q: newTestQueue(), now: start, room: map[string]int{}, class: map[types.UID]string{}}
		for range 5 {
			for range 60 {
				w.step()
			}
			w.settle()
			w.check()
		}
	}
}

// BenchmarkWaiting is a new pod's way through the queue beside many that wait
// for something else.
func BenchmarkWaiting(b *testing.B) {
	for _, waiting := range []int{0, 10000} {
		b.Run(fmt.Sprint(waiting), func(b *testing.B) {
			q := newTestQueue()
			for i := range waiting {
				q.Add(item(fmt.Sprint("w", i), "w", 0), start)
				q.Fail(q.Pop(start), noRoom, start)
			}
			i := 0
			for b.Loop() {
				i++
				uid := fmt.Sprint(i)
				q.Add(item(uid, "a", 0), start)
				q.Done(q.Pop(start), start)
				q.Event("a", start)
				q.Remove(types.UID(uid), start)
			}
		})
	}
}
