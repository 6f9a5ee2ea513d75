package fairness

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestDeal: a hand is of distinct cards, and every card is dealt equally often.
func TestDeal(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const lines, size, rounds = 16, 4, 40000
	var counts [lines]int
	for range rounds {
		hand := deal(r.Uint64(), lines, size, nil)
		if len(hand) != size || !slices.IsSorted(hand) || len(slices.Compact(slices.Clone(hand))) != size || hand[size-1] >= lines || hand[0] < 0 {
			t.Fatalf("dealt %v", hand)
		}
		for _, c := range hand {
			counts[c]++
		}
	}
	for c, n := range counts {
		if want := float64(rounds*size) / lines; math.Abs(float64(n)-want) > 0.05*want {
			t.Errorf("card %d was dealt %d times, want about %v", c, n, want)
		}
	}
	if hand := deal(7, 1, 1, nil); !slices.Equal(hand, []int{0}) {
		t.Errorf("of one card: %v", hand)
	}
}

// simulated is a level in a test's own time: seats, what runs, and who got how
// much.
type simulated struct {
	q      *fairQueue
	seats  int
	used   int
	now    float64
	runs   []run
	served map[int]float64 // seat-seconds begun, by flow
}

type run struct {
	w    *waiter
	flow int
	end  float64
	took float64
}

// grant lets in whoever there are seats for.
func (s *simulated) grant(t *testing.T, flows map[*waiter]int, took func(flow int) float64) {
	for w := s.q.next(); w != nil && (s.used+w.seats <= s.seats || s.used == 0); w = s.q.next() {
		s.q.serve()
		s.used += w.seats
		d := took(flows[w])
		s.runs = append(s.runs, run{w, flows[w], s.now + d, d})
		s.served[flows[w]] += d * float64(w.seats)
	}
	if w := s.q.next(); w != nil && s.used+w.seats <= s.seats {
		t.Fatalf("somebody waits for %d seats while %d of %d are used", w.seats, s.used, s.seats)
	}
}

// finish ends the run that ends first.
func (s *simulated) finish() int {
	first := 0
	for i := range s.runs {
		if s.runs[i].end < s.runs[first].end {
			first = i
		}
	}
	r := s.runs[first]
	s.runs = slices.Delete(s.runs, first, first+1)
	s.now = r.end
	s.used -= r.w.seats
	s.q.finish(r.w.line, r.w.seats, r.w.cost, r.took*float64(r.w.seats))
	return r.flow
}

// TestFlowsAreServedFairly: flows that always want more get equal seat-seconds,
// however long or wide their requests are, and nothing is left idle meanwhile.
func TestFlowsAreServedFairly(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 5))
		flows := 2 + r.IntN(3)
		s := &simulated{q: newFairQueue(64, 1, 1000), seats: 4 + r.IntN(12), served: map[int]float64{}}
		hashes, width, length := make([]uint64, flows), make([]int, flows), make([]float64, flows)
		for i := range flows {
			hashes[i] = uint64(i) // hands of one card: each flow its own line
			width[i] = 1 + r.IntN(4)
			length[i] = 0.001 * float64(1+r.IntN(50))
		}
		owner := map[*waiter]int{}
		took := func(flow int) float64 { return length[flow] * (0.5 + r.Float64()) }
		push := func(flow int) {
			w := &waiter{seats: width[flow], cost: Work{Seats: width[flow]}.cost(), granted: make(chan struct{})}
			owner[w] = flow
			if !s.q.push(hashes[flow], w) {
				t.Fatal("the line is full")
			}
		}
		for range 200 {
			for i := range flows {
				push(i)
			}
		}
		for s.now < 20 {
			s.grant(t, owner, took)
			push(s.finish()) // who was served comes back
		}
		var most, least float64 = 0, math.Inf(1)
		for i := range flows {
			most, least = max(most, s.served[i]), min(least, s.served[i])
		}
		// What is under way is paid for when it is over: up to all seats for as
		// long as a request lasts, for each of two flows.
		if bound := 2 * float64(s.seats) * 0.075 * 4; most-least > bound {
			t.Errorf("seed %d: %v served with widths %v, lengths %v: more than %v apart", seed, s.served, width, length, bound)
		}
	}
}

// TestQueueForgets: lines that are not needed go, whatever came and went.
func TestQueueForgets(t *testing.T) {
	q := newFairQueue(512, 3, 5)
	r := rand.New(rand.NewPCG(8, 9))
	var waiting []*waiter
	running := map[*waiter]bool{}
	for step := range 50000 {
		switch r.IntN(4) {
		case 0, 1:
			w := &waiter{seats: 1 + r.IntN(3), granted: make(chan struct{})}
			w.cost = Work{Seats: w.seats}.cost()
			if q.push(r.Uint64(), w) {
				waiting = append(waiting, w)
			}
		case 2:
			if w := q.next(); w != nil {
				q.serve()
				running[w] = true
				waiting = slices.DeleteFunc(waiting, func(o *waiter) bool { return o == w })
			}
		case 3:
			if len(waiting) > 0 && r.IntN(2) == 0 {
				i := r.IntN(len(waiting))
				q.drop(waiting[i])
				waiting = slices.Delete(waiting, i, i+1)
			}
			for w := range running {
				q.finish(w.line, w.seats, w.cost, w.cost*r.Float64()*2)
				delete(running, w)
				break
			}
		}
		if q.waiting != len(waiting) || (q.next() == nil) != (len(waiting) == 0) {
			t.Fatalf("step %d: the queue has %d, want %d", step, q.waiting, len(waiting))
		}
		for len(waiting) > 300 {
			q.drop(waiting[0])
			waiting = waiting[1:]
		}
	}
	if q.virtual == 0 {
		t.Error("who was served once is never due again")
	}
	for _, w := range waiting {
		q.drop(w)
	}
	if len(q.used) != 0 || len(q.heads) != 0 {
		t.Errorf("%d lines are left", len(q.used))
	}
}
