package plugin

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

func node(change func(*Node)) *Node {
	n := &Node{
		Name:        "n",
		Object:      &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"disk": "ssd"}}},
		Allocatable: Resources{MilliCPU: 1000, Memory: 1 << 30, Ephemeral: 1 << 30, Others: map[corev1.ResourceName]int64{"example.com/gpu": 1}},
		MaxPods:     2, Pods: 1,
		Ports:  map[Port]int{{IP: "192.0.2.1", Protocol: corev1.ProtocolTCP, Port: 80}: 1},
		Owners: map[types.UID]int{}, Images: map[string]int64{},
	}
	if change != nil {
		change(n)
	}
	return n
}

// TestFilters gives each filter a pod that fits and one for each reason that
// it does not.
func TestFilters(t *testing.T) {
	taint := func(effect corev1.TaintEffect) func(*Node) {
		return func(n *Node) { n.Object.Spec.Taints = []corev1.Taint{{Key: "k", Value: "v", Effect: effect}} }
	}
	for _, c := range []struct {
		name   string
		filter Filter
		pod    Pod
		node   func(*Node)
		want   string
	}{
		{"any node", NodeName{}, Pod{}, nil, ""},
		{"its node", NodeName{}, Pod{NodeName: "n"}, nil, ""},
		{"another node", NodeName{}, Pod{NodeName: "m"}, nil, "node(s) didn't match the requested node name"},
		{"cordoned", NodeUnschedulable{}, Pod{}, func(n *Node) { n.Object.Spec.Unschedulable = true }, "node(s) were unschedulable"},
		{"cordoned, tolerated", NodeUnschedulable{}, Pod{Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}}},
			func(n *Node) { n.Object.Spec.Unschedulable = true }, ""},
		{"NoSchedule", TaintToleration{}, Pod{}, taint(corev1.TaintEffectNoSchedule), "node(s) had untolerated taint {k: v}"},
		{"NoExecute", TaintToleration{}, Pod{}, taint(corev1.TaintEffectNoExecute), "node(s) had untolerated taint {k: v}"},
		{"PreferNoSchedule", TaintToleration{}, Pod{}, taint(corev1.TaintEffectPreferNoSchedule), ""},
		{"tolerated", TaintToleration{}, Pod{Tolerations: []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpEqual, Value: "v"}}},
			taint(corev1.TaintEffectNoSchedule), ""},
		{"other value", TaintToleration{}, Pod{Tolerations: []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpEqual, Value: "w"}}},
			taint(corev1.TaintEffectNoSchedule), "node(s) had untolerated taint {k: v}"},
		{"selected", NodeAffinity{}, Pod{Required: nodeaffinity.NewRequiredNodeAffinity(map[string]string{"disk": "ssd"}, nil)}, nil, ""},
		{"not selected", NodeAffinity{}, Pod{Required: nodeaffinity.NewRequiredNodeAffinity(map[string]string{"disk": "hdd"}, nil)}, nil,
			"node(s) didn't match Pod's node affinity/selector"},
		{"free port", NodePorts{}, Pod{Ports: []Port{{Protocol: corev1.ProtocolTCP, Port: 81}}}, nil, ""},
		{"same port, other address", NodePorts{}, Pod{Ports: []Port{{IP: "192.0.2.2", Protocol: corev1.ProtocolTCP, Port: 80}}}, nil, ""},
		{"same port, other protocol", NodePorts{}, Pod{Ports: []Port{{Protocol: corev1.ProtocolUDP, Port: 80}}}, nil, ""},
		{"same port on all addresses", NodePorts{}, Pod{Ports: []Port{{IP: "0.0.0.0", Protocol: corev1.ProtocolTCP, Port: 80}}}, nil,
			"node(s) didn't have free ports for the requested pod ports"},
		{"room", NodeResourcesFit{}, Pod{Requests: Resources{MilliCPU: 1000, Memory: 1 << 30}}, nil, ""},
		{"no cpu", NodeResourcesFit{}, Pod{Requests: Resources{MilliCPU: 1001}}, nil, "Insufficient cpu"},
		{"nothing left", NodeResourcesFit{}, Pod{Requests: Resources{MilliCPU: 1001, Memory: 2 << 30, Ephemeral: 2 << 30}}, nil,
			"Insufficient cpu, Insufficient memory, Insufficient ephemeral-storage"},
		{"no device", NodeResourcesFit{}, Pod{Requests: Resources{Others: map[corev1.ResourceName]int64{"example.com/gpu": 2}}}, nil, "Insufficient example.com/gpu"},
		{"unknown device", NodeResourcesFit{}, Pod{Requests: Resources{Others: map[corev1.ResourceName]int64{"example.com/fpga": 1}}}, nil, "Insufficient example.com/fpga"},
		{"too many pods", NodeResourcesFit{}, Pod{}, func(n *Node) { n.Pods = 2 }, "Too many pods"},
		{"overcommitted, nothing asked", NodeResourcesFit{}, Pod{}, func(n *Node) { n.Used.MilliCPU = 5000 }, ""},
	} {
		t.Run(c.filter.Name()+"/"+c.name, func(t *testing.T) {
			if got := c.filter.Check(&c.pod, node(c.node)); got != c.want {
				t.Errorf("reason %q, want %q", got, c.want)
			}
		})
	}
}

// TestScores says which of two nodes each score prefers.
func TestScores(t *testing.T) {
	pod := &Pod{Owner: "o", Images: []string{"i"}, Weight: Resources{MilliCPU: 100, Memory: 200 << 20}, Requests: Resources{MilliCPU: 100}}
	for _, c := range []struct {
		score         Score
		better, worse func(*Node)
	}{
		{LeastAllocated{}, nil, func(n *Node) { n.Weight.MilliCPU = 500 }},
		{BalancedAllocation{}, func(n *Node) { n.Used = Resources{MilliCPU: 400, Memory: 1 << 29} }, func(n *Node) { n.Used = Resources{MilliCPU: 800} }},
		{OwnerSpread{}, nil, func(n *Node) { n.Owners["o"] = 1 }},
		{PreferNoTaints{}, nil, func(n *Node) {
			n.Object.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectPreferNoSchedule}}
		}},
		{ImageLocality{}, func(n *Node) { n.Images["i"] = 500 << 20 }, nil},
	} {
		t.Run(c.score.Name(), func(t *testing.T) {
			scores := []int64{c.score.Score(pod, node(c.better)), c.score.Score(pod, node(c.worse))}
			if norm, ok := c.score.(Normalizer); ok {
				norm.Normalize(scores)
			}
			if scores[0] <= scores[1] || scores[0] > MaxScore || scores[1] < 0 {
				t.Errorf("scores %v, want the first one higher, both within 0 and %d", scores, MaxScore)
			}
		})
	}
}

func TestPreferredNodeAffinity(t *testing.T) {
	terms, err := nodeaffinity.NewPreferredSchedulingTerms([]corev1.PreferredSchedulingTerm{{Weight: 7, Preference: corev1.NodeSelectorTerm{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{"ssd"}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := (PreferredNodeAffinity{}).Score(&Pod{Preferred: terms}, node(nil)); got != 7 {
		t.Errorf("raw score %d, want the term's weight 7", got)
	}
	if got := (PreferredNodeAffinity{}).Score(&Pod{}, node(nil)); got != 0 {
		t.Errorf("raw score %d without preferences", got)
	}
}
