package cluster

import (
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestNumbersOfNodes(t *testing.T) {
	for _, tt := range []struct {
		nodes, simulated, wantNodes int
		ok                          bool
	}{
		{0, 0, 3, true}, {1, 0, 1, true}, {0, 5000, 0, true}, {3, 5000, 3, true},
		{101, 0, 0, false}, {-1, 0, 0, false}, {0, -1, 0, false}, {0, 30_001, 0, false},
	} {
		o := CreateOptions{Nodes: tt.nodes, SimulatedNodes: tt.simulated}
		if err := o.completeNodes(); (err == nil) != tt.ok || tt.ok && o.Nodes != tt.wantNodes {
			t.Errorf("%d and %d simulated: %d nodes, %v", tt.nodes, tt.simulated, o.Nodes, err)
		}
	}
}

// TestSimulatedSteps: nothing is done for nodes that are not there, and the
// network has a part for each.
func TestSimulatedSteps(t *testing.T) {
	for _, tt := range []struct {
		nodes, simulated int
		want             []string
		not              []string
		pods             string
		taint            bool
	}{
		{3, 0, []string{"Start 3 nodes", "Load images", "Wait for 3 nodes to be ready"}, []string{"simulated"}, "10.244.0.0/16", true},
		{0, 5000, []string{"Start 5000 simulated", "Wait for the API server"}, []string{"Load images", "0 nodes"}, "10.128.0.0/9", false},
		{1, 10, []string{"Start 1 node", "Load images", "Wait for 10 simulated to be ready"}, nil, "10.244.0.0/16", true},
	} {
		s, err := newSpec(CreateOptions{Name: "c", Nodes: tt.nodes, SimulatedNodes: tt.simulated, Port: 45999}, Programs{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, step := range (&boot{s: s}).steps() {
			names = append(names, step.name)
		}
		all := strings.Join(names, "\n")
		for _, name := range tt.want {
			if !slices.Contains(names, name) {
				t.Errorf("%+v: no step %q in\n%s", tt, name, all)
			}
		}
		for _, name := range tt.not {
			if strings.Contains(all, name) {
				t.Errorf("%+v: %q among\n%s", tt, name, all)
			}
		}
		if s.PodCIDR.String() != tt.pods || s.PodCIDR.Overlaps(s.ServiceCIDR) || s.PodCIDR.Overlaps(s.Subnet) {
			t.Errorf("%+v: pods are in %s", tt, s.PodCIDR)
		}
		if taint := strings.Contains(strings.Join(simulatedArgs("/f", s), " "), "register-with-taints"); taint != tt.taint {
			t.Errorf("%+v: simulated nodes are tainted: %v", tt, taint)
		}
	}
}

func TestCountSimulated(t *testing.T) {
	start := time.Unix(1000, 0)
	b := &boot{s: &Spec{Name: "c"}, simulatedSince: start}
	nodes := make([]corev1.Node, 3)
	leases := make([]coordinationv1.Lease, 3)
	for i, name := range []string{"ready", "silent", "broken"} {
		renewed := metav1.NewMicroTime(start.Add(time.Second))
		nodes[i].Name, leases[i].Name, leases[i].Spec.RenewTime = name, name, &renewed
		nodes[i].Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	}
	before := metav1.NewMicroTime(start.Add(-time.Second))
	leases[1].Spec.RenewTime = &before
	nodes[2].Status.Conditions[0].Status = corev1.ConditionUnknown
	for n, want := range []int{0, 1, 1, 1} {
		if got := b.countSimulated(nodes[:n], leases); got != want {
			t.Errorf("of the first %d, %d are there, want %d", n, got, want)
		}
	}
}
