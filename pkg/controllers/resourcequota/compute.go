package resourcequota

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"coracle/pkg/quota"
)

// settleTime is how long after a charge its object may still come. Admission
// charges a quota immediately before it stores the object, so that this is
// many times what it takes.
const settleTime = 5 * time.Second

// creditTime is how much earlier than the charge its object may be seen, since
// both come through watches of their own.
const creditTime = 2 * time.Second

// observed is what is known of one quota.
type observed struct {
	hard   corev1.ResourceList // as its spec says
	status corev1.ResourceQuotaStatus
	// counted is what the objects that are there take; names that could not be
	// counted are missing.
	counted corev1.ResourceList
	// pending is what was charged for objects that have not been seen yet.
	pending corev1.ResourceList
	// blind says that charges may be pending that nobody has seen.
	blind bool
}

// decision is the status that a quota should have.
type decision struct {
	status corev1.ResourceQuotaStatus
	write  bool
	// held says that usage could not be lowered yet by all that was counted
	// less.
	held bool
}

// compute brings a quota's status up to date. Usage is never lowered below
// what the objects take that are there and those that are about to come.
func compute(o observed) decision {
	d := decision{status: corev1.ResourceQuotaStatus{Hard: corev1.ResourceList{}, Used: corev1.ResourceList{}}}
	for name, hard := range o.hard {
		d.status.Hard[name] = hard
		used, had := o.status.Used[name]
		counted, ok := o.counted[name]
		switch {
		case !ok && had:
			d.status.Used[name] = used
		case !ok:
		case !had || counted.Cmp(used) >= 0:
			d.status.Used[name] = counted
		case o.blind:
			d.status.Used[name], d.held = used, true
		default:
			lowest := counted.DeepCopy()
			lowest.Add(o.pending[name])
			if lowest.Cmp(used) > 0 {
				lowest = used
			}
			d.status.Used[name] = lowest
			d.held = d.held || lowest.Cmp(counted) != 0
		}
	}
	d.write = !quota.Equal(d.status.Hard, o.status.Hard) || !quota.Equal(d.status.Used, o.status.Used)
	return d
}

// ledger knows which charges of one quota have no object yet. Charges and
// objects are matched by amounts, the oldest first.
type ledger struct {
	since   time.Time // when the quota was first seen
	fresh   bool      // it had no usage then, so that nothing was charged
	charges map[corev1.ResourceName][]entry
	credits map[corev1.ResourceName][]entry // objects that came before their charge
}

// entry is an amount that was seen at a time.
type entry struct {
	at     time.Time
	amount resource.Quantity
}

func newLedger(now time.Time, fresh bool) *ledger {
	return &ledger{since: now, fresh: fresh, charges: map[corev1.ResourceName][]entry{}, credits: map[corev1.ResourceName][]entry{}}
}

// charged notes that usage was raised.
func (l *ledger) charged(now time.Time, amounts corev1.ResourceList) {
	match(now, amounts, l.credits, l.charges, creditTime)
}

// settled notes that objects came.
func (l *ledger) settled(now time.Time, amounts corev1.ResourceList) {
	match(now, amounts, l.charges, l.credits, settleTime)
}

// match takes amounts out of from, and puts into to what is left of them.
func match(now time.Time, amounts corev1.ResourceList, from, to map[corev1.ResourceName][]entry, life time.Duration) {
	for name, amount := range amounts {
		rest := amount.DeepCopy()
		open := recent(from[name], now, life)
		for len(open) > 0 && rest.Sign() > 0 {
			if open[0].amount.Cmp(rest) > 0 {
				open[0].amount.Sub(rest)
				rest = resource.Quantity{}
				break
			}
			rest.Sub(open[0].amount)
			open = open[1:]
		}
		keep(from, name, open)
		if rest.Sign() > 0 {
			keep(to, name, append(to[name], entry{now, rest}))
		}
	}
}

func keep(in map[corev1.ResourceName][]entry, name corev1.ResourceName, entries []entry) {
	if len(entries) == 0 {
		delete(in, name)
		return
	}
	in[name] = entries
}

// recent drops the entries that are older than life.
func recent(entries []entry, now time.Time, life time.Duration) []entry {
	for len(entries) > 0 && now.Sub(entries[0].at) >= life {
		entries = entries[1:]
	}
	return entries
}

// pending is what was charged and is still to come.
func (l *ledger) pending(now time.Time) corev1.ResourceList {
	out := corev1.ResourceList{}
	for name, entries := range l.charges {
		entries = recent(entries, now, settleTime)
		keep(l.charges, name, entries)
		var sum resource.Quantity
		for _, e := range entries {
			sum.Add(e.amount)
		}
		if sum.Sign() > 0 {
			out[name] = sum
		}
	}
	for name, entries := range l.credits {
		keep(l.credits, name, recent(entries, now, creditTime))
	}
	return out
}

// blind says that charges may have been made shortly before the quota was
// first seen.
func (l *ledger) blind(now time.Time) bool { return !l.fresh && now.Sub(l.since) < settleTime }
