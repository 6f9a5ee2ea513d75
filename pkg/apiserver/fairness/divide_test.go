package fairness

import (
	"math"
	"math/rand/v2"
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
)

// TestDivide: the nominal limits of the default levels at the default total, as
// kube-apiserver has them.
func TestDivide(t *testing.T) {
	_, levels := complete(nil, DefaultPriorityLevels())
	want := map[string]bounds{
		"exempt": {0, 0, 600}, "catch-all": {13, 13, 613}, "system": {74, 50, 674}, "node-high": {98, 73, 698}, "leader-election": {25, 25, 625},
		"workload-high": {98, 49, 698}, "workload-low": {245, 24, 845}, "global-default": {49, 24, 649},
	}
	for i, b := range divide(600, levels) {
		if want[levels[i].Name] != b {
			t.Errorf("%s: %+v, want %+v", levels[i].Name, b, want[levels[i].Name])
		}
	}
	none := queued("none", 0, 0, 1, 1)
	ten := int32(10)
	some := queued("some", 5, 50, 1, 1)
	some.Spec.Limited.BorrowingLimitPercent = &ten
	got := divide(100, []*flowcontrolv1.PriorityLevelConfiguration{none, some})
	if got[0] != (bounds{0, 0, 100}) || got[1] != (bounds{100, 50, 110}) {
		t.Errorf("%+v", got)
	}
}

// TestShare: each claim gets its part of one fraction, or the bound that keeps
// it from that, and together they get all there is.
func TestShare(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		claims := make([]claim, 1+r.IntN(8))
		var low, high float64
		for i := range claims {
			c := claim{low: float64(r.IntN(20))}
			c.target = c.low + float64(r.IntN(50))
			c.high = c.low + float64(r.IntN(100))
			low, high = low+c.low, high+c.high
			claims[i] = c
		}
		total := r.Float64() * 1.2 * high
		fraction, out := share(total, claims)
		var sum float64
		for i, c := range claims {
			sum += out[i]
			if out[i] < c.low-1e-9 || out[i] > c.high+1e-9 {
				t.Fatalf("%v of %+v", out[i], c)
			}
			if fair := fraction * max(c.target, minTarget); out[i] > c.low+1e-6 && out[i] < c.high-1e-6 && math.Abs(out[i]-fair) > 1e-6 {
				t.Fatalf("%v of %+v at %v", out[i], c, fraction)
			}
		}
		if want := min(max(total, low), high); math.Abs(sum-want) > 1e-6 {
			t.Fatalf("%v were given of %v, bounds %v to %v: %+v", sum, total, low, high, claims)
		}
	}
}

// TestLend: seats go where they are wanted, within what levels lend and may
// borrow, and come back.
func TestLend(t *testing.T) {
	levels := []lender{
		{bounds: bounds{nominal: 100, low: 10, high: 200}},
		{bounds: bounds{nominal: 100, low: 50, high: 110}},
		{bounds: bounds{nominal: 0, low: 0, high: 200}, exempt: true},
	}
	levels[0].step(180, 170)
	limits, _, _ := lend(levels)
	if limits[0] != 150 || limits[1] != 50 {
		t.Errorf("the busy level got %v", limits)
	}
	// Its own part is the other's again as soon as it was seen to need it.
	levels[1].step(100, 100)
	if limits, _, _ = lend(levels); limits[1] < 100 || limits[0]+limits[1] > 201 {
		t.Errorf("after both were busy: %v", limits)
	}
	// Borrowing has its bound.
	levels[0].demand = demand{}
	levels[1].step(500, 500)
	if limits, _, _ = lend(levels); limits[1] != 110 {
		t.Errorf("the bounded borrower got %v", limits)
	}
	// Exempt requests take theirs from what the others lend.
	levels[0].step(100, 100)
	levels[2].step(120, 120)
	if limits, _, _ = lend(levels); limits[0]+limits[1] > 80+1 || limits[0] < 10 || limits[1] < 50 || limits[2] != 120 {
		t.Errorf("under exempt load: %v", limits)
	}
}

// TestDemandFalls: half of a demand that is gone is gone after about five
// minutes.
func TestDemandFalls(t *testing.T) {
	var d demand
	d.step(100, 100)
	for range 30 {
		d.step(0, 0)
	}
	if d.smoothed < 45 || d.smoothed > 55 {
		t.Errorf("%v of 100 after five minutes", d.smoothed)
	}
}

// TestWork: what lists and writes cost.
func TestWork(t *testing.T) {
	for objects, want := range map[int]int{0: 1, 1: 1, 100: 1, 101: 2, 950: 10, 1 << 30: 10} {
		if got := listWork(objects, 10).Seats; got != want {
			t.Errorf("a list of %d: %d seats", objects, got)
		}
	}
	if got := listWork(1000, 3).Seats; got != 3 {
		t.Errorf("in a small level: %d seats", got)
	}
	if w := writeWork(99, 10); w.Seats != 1 || w.After != 0 {
		t.Errorf("few watchers: %+v", w)
	}
	if w := writeWork(950, 10); w.Seats != 10 || w.After != perWatchers {
		t.Errorf("many watchers: %+v", w)
	}
	if w := writeWork(10_000, 10); w.Seats != 10 || w.After != 10*perWatchers {
		t.Errorf("very many watchers: %+v", w)
	}
	for _, c := range []struct{ nominal, hand, want int }{{245, 6, 10}, {20, 6, 3}, {1, 8, 1}, {100, 0, 10}} {
		if got := widest(c.nominal, c.hand, c.hand > 0); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// TestRetryAfter: the time told doubles while many are refused and shrinks when
// few are.
func TestRetryAfter(t *testing.T) {
	var r retryAfter
	if got := r.refused(1000); got != 1 {
		t.Errorf("the first is told %d", got)
	}
	last := int64(0)
	for second := int64(1001); second < 1200; second++ {
		for range 100 {
			last = r.refused(second)
		}
	}
	if last != maxRetryAfter {
		t.Errorf("under flood: %d", last)
	}
	for second := int64(5000); second < 10000; second += 100 {
		last = r.refused(second)
	}
	if last != 1 {
		t.Errorf("long after: %d", last)
	}
}
