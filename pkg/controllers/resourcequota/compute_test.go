package resourcequota

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"coracle/pkg/quota"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// list makes a list of "name", "quantity", ...
func list(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func TestCompute(t *testing.T) {
	status := func(hard, used corev1.ResourceList) corev1.ResourceQuotaStatus {
		return corev1.ResourceQuotaStatus{Hard: hard, Used: used}
	}
	hard := list("pods", "5")
	tests := []struct {
		name        string
		o           observed
		want        corev1.ResourceQuotaStatus
		write, held bool
	}{
		{"new", observed{hard: hard, counted: list("pods", "2")}, status(hard, list("pods", "2")), true, false},
		{"new, and the cache has nothing to say", observed{hard: hard}, status(hard, nil), true, false},
		{"empty", observed{}, status(nil, nil), false, false},
		{"as it should be", observed{hard: hard, status: status(hard, list("pods", "2")), counted: list("pods", "2")}, status(hard, list("pods", "2")), false, false},
		{"as it should be in other words", observed{hard: hard, status: status(hard, list("pods", "2000m")), counted: list("pods", "2")}, status(hard, list("pods", "2")), false, false},
		{"more than was charged", observed{hard: hard, status: status(hard, list("pods", "2")), counted: list("pods", "3"), pending: list("pods", "1"), blind: true}, status(hard, list("pods", "3")), true, false},
		{"gone", observed{hard: hard, status: status(hard, list("pods", "4")), counted: list("pods", "1")}, status(hard, list("pods", "1")), true, false},
		{"some gone, one to come", observed{hard: hard, status: status(hard, list("pods", "4")), counted: list("pods", "1"), pending: list("pods", "1")}, status(hard, list("pods", "2")), true, true},
		{"all to come", observed{hard: hard, status: status(hard, list("pods", "2")), counted: list("pods", "1"), pending: list("pods", "3")}, status(hard, list("pods", "2")), false, true},
		{"who knows what is to come", observed{hard: hard, status: status(hard, list("pods", "4")), counted: list("pods", "1"), blind: true}, status(hard, list("pods", "4")), false, true},
		{"cannot be counted now", observed{hard: list("pods", "5", "cpu", "1"), status: status(hard, list("pods", "4"))}, status(list("pods", "5", "cpu", "1"), list("pods", "4")), true, false},
		{"other bounds", observed{hard: list("cpu", "1"), status: status(hard, list("pods", "4")), counted: list("cpu", "500m")}, status(list("cpu", "1"), list("cpu", "500m")), true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := compute(tt.o)
			if !quota.Equal(d.status.Hard, tt.want.Hard) || !quota.Equal(d.status.Used, tt.want.Used) || d.write != tt.write || d.held != tt.held {
				t.Errorf("decided %+v, want %+v, write %v, held %v", d, tt.want, tt.write, tt.held)
			}
		})
	}
}

func TestLedger(t *testing.T) {
	type step struct {
		after           time.Duration
		charge, arrives string
		pending         string
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"a charge and its object", []step{{0, "2", "", "2"}, {time.Millisecond, "", "1", "1"}, {time.Millisecond, "", "1", "0"}}},
		{"the object first", []step{{0, "", "1", "0"}, {time.Millisecond, "1", "", "0"}, {time.Millisecond, "1", "", "1"}}},
		{"an object that never comes", []step{{0, "1", "", "1"}, {settleTime - 1, "", "", "1"}, {1, "", "", "0"}}},
		{"an object that nobody charged hides no later charge", []step{{0, "", "1", "0"}, {creditTime, "1", "", "1"}}},
		{"the oldest goes first", []step{{0, "3", "", "3"}, {time.Second, "2", "", "5"}, {time.Second, "", "4", "1"}, {3 * time.Second, "", "", "1"}, {time.Second, "", "", "0"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, at := newLedger(now, true), now
			for i, s := range tt.steps {
				at = at.Add(s.after)
				if s.charge != "" {
					l.charged(at, list("pods", s.charge))
				}
				if s.arrives != "" {
					l.settled(at, list("pods", s.arrives))
				}
				if got := l.pending(at)["pods"]; got.String() != s.pending {
					t.Errorf("step %d: %s are pending, want %s", i, got.String(), s.pending)
				}
			}
		})
	}
	if newLedger(now, true).blind(now) || !newLedger(now, false).blind(now) || newLedger(now, false).blind(now.Add(settleTime)) {
		t.Error("a ledger is blind for a while, unless the quota was fresh")
	}
}

// TestUsageIsNeverTooLow plays writers, of which some fail, deletions and
// counts against each other: at no time does the quota say that less is used
// than there is and is about to be, and at the end it says what there is.
func TestUsageIsNeverTooLow(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		used, stored, coming := int64(0), int64(0), []int{} // coming: steps until each charged object is stored
		l, at := newLedger(now, true), now
		count := func() {
			d := compute(observed{hard: list("pods", "100"), pending: l.pending(at), blind: l.blind(at),
				status:  corev1.ResourceQuotaStatus{Hard: list("pods", "100"), Used: list("pods", fmt.Sprint(used))},
				counted: list("pods", fmt.Sprint(stored))})
			n := d.status.Used["pods"]
			used = n.Value()
		}
		for range 300 {
			at = at.Add(10 * time.Millisecond)
			switch r.IntN(4) {
			case 0: // a writer charges
				used++
				l.charged(at, list("pods", "1"))
				coming = append(coming, 1+r.IntN(20))
			case 1:
				if stored > 0 {
					stored--
				}
			case 2:
				count()
			}
			waiting := coming[:0]
			for _, left := range coming {
				if left--; left > 0 {
					waiting = append(waiting, left)
					continue
				}
				if r.IntN(10) > 0 { // the others fail, and nobody says so
					stored++
					l.settled(at, list("pods", "1"))
				}
			}
			coming = waiting
			if used < stored+int64(len(coming)) {
				t.Fatalf("seed %d: %d are used, %d are there and %d are about to be", seed, used, stored, len(coming))
			}
		}
		at = at.Add(settleTime)
		stored += int64(len(coming))
		count()
		if used != stored {
			t.Fatalf("seed %d: at the end %d are used and %d are there", seed, used, stored)
		}
	}
}
