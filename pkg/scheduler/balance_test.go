package scheduler

import (
	"fmt"
	"math"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/scheduler/plugin"
)

// unevenness is the standard deviation of how much of each node's cpu is asked
// for.
func unevenness(nodes []*corev1.Node, used map[string]int64) float64 {
	var sum, squares float64
	for _, n := range nodes {
		share := float64(used[n.Name]) / float64(n.Status.Allocatable.Cpu().MilliValue())
		sum += share
		squares += share * share
	}
	mean := sum / float64(len(nodes))
	return math.Sqrt(max(0, squares/float64(len(nodes))-mean*mean))
}

// TestBalance: nodes of different sizes fill as evenly as when each pod, one
// after the other, is given the best of all nodes by a scorer that looks at each
// anew. Ties fall at random, so it is the sum over several runs that is compared.
func TestBalance(t *testing.T) {
	var got, exhaustive float64
	for seed := range uint64(10) {
		w := newWorld(t, seed, 64)
		other := naive{namespaces: w.namespaces}
		for i := range 16 {
			n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i)}}
			n.Status.Allocatable = corev1.ResourceList{"cpu": resource.MustParse(w.one("4", "8", "16")), "memory": resource.MustParse(w.one("16Gi", "32Gi")), "pods": resource.MustParse("110")}
			other.nodes = append(other.nodes, n)
			w.records.SetNode(plugin.FactsOf(n))
		}
		used, usedByOther := map[string]int64{}, map[string]int64{}
		for i := range 150 {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%d", i), Namespace: "a", UID: types.UID(fmt.Sprintf("p%d", i))}}
			p.Spec.Containers = []corev1.Container{{Name: "c", Image: "small", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				"cpu": resource.MustParse(w.one("50m", "250m", "500m")), "memory": resource.MustParse(w.one("100Mi", "500Mi")),
			}}}}
			cpu := p.Spec.Containers[0].Resources.Requests.Cpu().MilliValue()
			record := w.interner.Pod(p)
			node := w.decider.decide(record)
			if node == nil {
				t.Fatalf("seed %d: pod %d has no node: %s", seed, i, w.decider.explain(record).message())
			}
			w.records.Place(record, node.Name)
			used[node.Name] += cpu
			scores := other.scores(p, other.nodes)
			var best []string
			for j, score := range scores {
				if score == slices.Max(scores) {
					best = append(best, other.nodes[j].Name)
				}
			}
			p.Spec.NodeName = w.one(best...)
			other.pods = append(other.pods, p)
			usedByOther[p.Spec.NodeName] += cpu
		}
		got += unevenness(other.nodes, used)
		exhaustive += unevenness(other.nodes, usedByOther)
	}
	if exhaustive == 0 {
		t.Fatal("the exhaustive scorer leaves no unevenness to compare with")
	}
	if got > 1.05*exhaustive {
		t.Errorf("unevenness %.4f, an exhaustive scorer's is %.4f: more than 5 %% worse", got, exhaustive)
	}
	t.Logf("unevenness %.4f, an exhaustive scorer's %.4f", got, exhaustive)
}
