package plugin

import (
	"fmt"
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestOutranks compares with a look at every pod, through placements, moves,
// changes and removals.
func TestOutranks(t *testing.T) {
	c, in, r := NewCluster(), NewInterner(), rand.New(rand.NewPCG(1, 3))
	there := map[types.UID]int32{}
	for range 5000 {
		p := in.Pod(podObject(fmt.Sprint(r.IntN(6)), func(p *corev1.Pod) { p.Spec.Priority = new(r.Int32N(5)) }))
		if r.IntN(2) == 0 {
			c.Remove(p.UID)
			delete(there, p.UID)
		} else {
			c.Place(p, fmt.Sprint("n", r.IntN(2)))
			there[p.UID] = p.Priority
		}
		for priority := range int32(6) {
			want := false
			for _, have := range there {
				want = want || have < priority
			}
			if got := c.Outranks(priority); got != want {
				t.Fatalf("Outranks(%d) is %v among %v", priority, got, there)
			}
		}
	}
}
