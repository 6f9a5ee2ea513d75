package fairness

import (
	"math"
	"slices"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
)

// bounds are how many seats a level is worth, and between which numbers
// lending and borrowing move it.
type bounds struct{ nominal, low, high int }

// shares are what a level's configuration says about its part of the seats.
func shares(p *flowcontrolv1.PriorityLevelConfiguration) (nominal, lendable int32, borrowing *int32) {
	switch l, e := p.Spec.Limited, p.Spec.Exempt; {
	case l != nil:
		return value(l.NominalConcurrencyShares, defaultShares), value(l.LendablePercent, 0), l.BorrowingLimitPercent
	case e != nil:
		return value(e.NominalConcurrencyShares, 0), value(e.LendablePercent, 0), nil
	}
	return 0, 0, nil
}

// defaultShares is what the API defines for a level that says nothing.
const defaultShares = 30

func value(p *int32, otherwise int32) int32 {
	if p == nil {
		return otherwise
	}
	return *p
}

// divide gives each level its bounds. Rounding up may give out a few seats more
// than there are: a level of few shares has one all the same.
func divide(total int, levels []*flowcontrolv1.PriorityLevelConfiguration) []bounds {
	var sum float64
	for _, p := range levels {
		n, _, _ := shares(p)
		sum += float64(n)
	}
	out := make([]bounds, len(levels))
	for i, p := range levels {
		n, lendable, borrowing := shares(p)
		b := &out[i]
		if sum > 0 {
			b.nominal = int(math.Ceil(float64(total) * float64(n) / sum))
		}
		b.low = b.nominal - percent(b.nominal, lendable)
		b.high = b.nominal + total
		if borrowing != nil {
			b.high = b.nominal + percent(b.nominal, *borrowing)
		}
	}
	return out
}

func percent(of int, n int32) int { return int(math.Round(float64(of) * float64(n) / 100)) }

// claim is what a level asks for when seats are lent: target seats, but no less
// than low and no more than high.
type claim struct{ target, low, high float64 }

// minTarget stands for targets near zero, so that these get a part as well.
const minTarget = 0.001

// share finds the fraction of its target that every level gets, within its
// bounds, when total is given out: the fraction, and what that makes for each.
// Where the bounds do not allow total, all are at the nearer ones.
func share(total float64, claims []claim) (fraction float64, out []float64) {
	turns := make([]float64, 0, 2*len(claims))
	for _, c := range claims {
		t := max(c.target, minTarget)
		turns = append(turns, c.low/t, c.high/t)
	}
	slices.Sort(turns)
	sum := func(f float64) (s float64) {
		for _, c := range claims {
			s += c.at(f)
		}
		return s
	}
	// Between two turns the sum grows evenly.
	for i, turn := range turns {
		have := sum(turn)
		if have < total && i < len(turns)-1 {
			continue
		}
		fraction = turn
		if i > 0 && have > total {
			before, at := sum(turns[i-1]), turns[i-1]
			fraction = at + (turn-at)*(total-before)/(have-before)
		}
		break
	}
	out = make([]float64, len(claims))
	for i, c := range claims {
		out[i] = c.at(fraction)
	}
	return fraction, out
}

func (c claim) at(fraction float64) float64 {
	return min(max(fraction*max(c.target, minTarget), c.low), c.high)
}

// demand is how many seats a level could have used lately.
type demand struct {
	high     int // at the most
	average  float64
	smoothed float64
}

// smoothing is how much of the smoothed demand stays at each step of
// borrowEvery: half of it is gone after five minutes.
const smoothing = 0.977

// deviation of the seats in use: arrivals at random make them Poisson.
func (d *demand) deviation() float64 {
	return min(math.Sqrt(max(d.average, 0)), max(0, float64(d.high)-d.average))
}

// step takes in what was seen since the last one. Rises count at once, falls
// slowly.
func (d *demand) step(high int, average float64) {
	d.high, d.average = high, min(max(average, 0), float64(high))
	envelope := d.average + d.deviation()
	d.smoothed = max(envelope, smoothing*d.smoothed+(1-smoothing)*envelope)
}

// lender is a level when seats are lent: exempt ones take what they take.
type lender struct {
	bounds
	demand
	exempt bool
}

// lend says how many seats each level has until the next time, the target of
// each, and the fraction of its target that each gets.
func lend(levels []lender) (limits []int, targets []float64, fraction float64) {
	limits, targets = make([]int, len(levels)), make([]float64, len(levels))
	var total, low, floor int
	for _, l := range levels {
		total += l.nominal
	}
	remaining := total
	claims := make([]claim, 0, len(levels))
	for i := range levels {
		l := &levels[i]
		if l.exempt {
			limits[i] = max(l.low, l.demand.high)
			remaining -= limits[i]
			continue
		}
		least := l.least()
		targets[i] = max(float64(least), l.smoothed)
		claims = append(claims, claim{target: targets[i], low: float64(least), high: float64(max(l.bounds.high, least))})
		low += l.low
		floor += least
	}
	var given []float64
	if remaining > floor {
		fraction, given = share(float64(total), claims)
	}
	next := 0
	for i := range levels {
		l := &levels[i]
		switch {
		case l.exempt:
			continue
		case remaining <= low:
			limits[i] = l.low
		case remaining <= floor:
			part := float64(remaining-low) / float64(floor-low)
			limits[i] = l.low + int(math.Round(float64(l.least()-l.low)*part))
		default:
			limits[i] = int(math.Round(given[next]))
		}
		next++
	}
	return limits, targets, fraction
}

// least is what a level keeps whatever others want: what it used at the most,
// within its own part.
func (l *lender) least() int { return max(l.low, min(l.nominal, l.demand.high)) }
