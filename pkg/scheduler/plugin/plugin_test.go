package plugin

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// aNode is node n with a pod that takes port 80 of one address, changed.
func aNode(change func(*corev1.Node)) *Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"disk": "ssd"}}}
	n.Status.Allocatable = amounts("cpu", "1", "memory", "1Gi", "ephemeral-storage", "1Gi", "pods", "2", "example.com/gpu", "1")
	if change != nil {
		change(n)
	}
	c := NewCluster()
	c.SetNode(FactsOf(n))
	c.Place(aPod("there", func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostIP: "192.0.2.1", HostPort: 80, Protocol: corev1.ProtocolTCP}}
	}), "n")
	return c.Node("n")
}

func amounts(pairs ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		list[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return list
}

func aPod(name string, change func(*corev1.Pod)) *Pod {
	return NewInterner().Pod(podObject(name, change))
}

func podObject(name string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)}}
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
	if change != nil {
		change(p)
	}
	return p
}

func asks(pairs ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = amounts(pairs...) }
}

func tolerates(list ...corev1.Toleration) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Tolerations = list }
}

func takes(ip string, protocol corev1.Protocol, port int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostIP: ip, Protocol: protocol, HostPort: port}}
	}
}

func wantsNode(fields ...corev1.NodeSelectorRequirement) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: fields}}},
		}}
	}
}

func field(name string) corev1.NodeSelectorRequirement {
	return corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{name}}
}

// refusal is what a plugin makes of a pod and the node n: the code and the
// reasons, or that the node is not among those that can do.
func refusal(t *testing.T, f Filter, p *Pod, n *Node) (Code, []string) {
	t.Helper()
	plan := f.PreFilter(NewCluster(), p)
	if !plan.Refuse.OK() {
		return plan.Refuse.Code, plan.Refuse.Reasons
	}
	if plan.Nodes != nil {
		among := false
		for _, name := range plan.Nodes {
			among = among || name == n.Name
		}
		if !among {
			return Unresolvable, []string{"not among the nodes"}
		}
	}
	if plan.Check == nil {
		return Fits, nil
	}
	v := plan.Check.Check(ViewOf(n))
	return v.Code, v.Reasons
}

// TestFilters gives each filter a pod that fits and one for each reason that
// it does not.
func TestFilters(t *testing.T) {
	taint := func(effect corev1.TaintEffect) func(*corev1.Node) {
		return func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "k", Value: "v", Effect: effect}} }
	}
	full := func(n *corev1.Node) { n.Status.Allocatable["pods"] = resource.MustParse("1") }
	fit, err := newNodeResourcesFit(nil, Handles{})
	if err != nil {
		t.Fatal(err)
	}
	ignoring, err := newNodeResourcesFit(NodeResourcesFitArgs{IgnoredResources: []string{"example.com/gpu"}, IgnoredResourceGroups: []string{"example.org"}}, Handles{})
	if err != nil {
		t.Fatal(err)
	}
	delegating, err := newNodeResourcesFit(nil, Handles{DelegatedResource: func(name string) bool { return name == "example.com/fpga" }})
	if err != nil {
		t.Fatal(err)
	}
	affinity := &NodeAffinity{}
	selects := func(value string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": value} }
	}
	for _, c := range []struct {
		name   string
		filter Plugin
		pod    func(*corev1.Pod)
		node   func(*corev1.Node)
		code   Code
		want   []string
	}{
		{"any node", NodeName{}, nil, nil, Fits, nil},
		{"its node", NodeName{}, func(p *corev1.Pod) { p.Spec.NodeName = "n" }, nil, Fits, nil},
		{"another node", NodeName{}, func(p *corev1.Pod) { p.Spec.NodeName = "m" }, nil, Unresolvable, []string{"not among the nodes"}},
		{"cordoned", NodeUnschedulable{}, nil, func(n *corev1.Node) { n.Spec.Unschedulable = true }, Unresolvable, []string{"node(s) were unschedulable"}},
		{"cordoned, tolerated", NodeUnschedulable{}, tolerates(corev1.Toleration{Operator: corev1.TolerationOpExists}),
			func(n *corev1.Node) { n.Spec.Unschedulable = true }, Fits, nil},
		{"NoSchedule", TaintToleration{}, nil, taint(corev1.TaintEffectNoSchedule), Unresolvable, []string{"node(s) had untolerated taint(s)"}},
		{"NoExecute", TaintToleration{}, nil, taint(corev1.TaintEffectNoExecute), Unresolvable, []string{"node(s) had untolerated taint(s)"}},
		{"PreferNoSchedule", TaintToleration{}, nil, taint(corev1.TaintEffectPreferNoSchedule), Fits, nil},
		{"tolerated", TaintToleration{}, tolerates(corev1.Toleration{Key: "k", Operator: corev1.TolerationOpEqual, Value: "v"}),
			taint(corev1.TaintEffectNoSchedule), Fits, nil},
		{"other value", TaintToleration{}, tolerates(corev1.Toleration{Key: "k", Operator: corev1.TolerationOpEqual, Value: "w"}),
			taint(corev1.TaintEffectNoSchedule), Unresolvable, []string{"node(s) had untolerated taint(s)"}},
		{"selected", affinity, selects("ssd"), nil, Fits, nil},
		{"not selected", affinity, selects("hdd"), nil, Unresolvable, []string{"node(s) didn't match Pod's node affinity/selector"}},
		{"pinned", affinity, wantsNode(field("n")), nil, Fits, nil},
		{"pinned elsewhere", affinity, wantsNode(field("m")), nil, Unresolvable, []string{"not among the nodes"}},
		{"pinned to two", affinity, wantsNode(field("n"), field("m")), nil, Unresolvable, []string{"pod affinity terms conflict"}},
		{"free port", NodePorts{}, takes("", corev1.ProtocolTCP, 81), nil, Fits, nil},
		{"same port, other address", NodePorts{}, takes("192.0.2.2", corev1.ProtocolTCP, 80), nil, Fits, nil},
		{"same port, other protocol", NodePorts{}, takes("", corev1.ProtocolUDP, 80), nil, Fits, nil},
		{"same port on all addresses", NodePorts{}, takes("0.0.0.0", corev1.ProtocolTCP, 80), nil, Unschedulable,
			[]string{"node(s) didn't have free ports for the requested pod ports"}},
		{"room", fit, asks("cpu", "1", "memory", "1Gi"), nil, Fits, nil},
		{"never enough cpu", fit, asks("cpu", "1001m"), nil, Unresolvable, []string{"Insufficient cpu"}},
		{"nothing left", fit, asks("cpu", "2", "memory", "2Gi", "ephemeral-storage", "2Gi"), nil, Unresolvable,
			[]string{"Insufficient cpu", "Insufficient memory", "Insufficient ephemeral-storage"}},
		{"no device", fit, asks("example.com/gpu", "2"), nil, Unresolvable, []string{"Insufficient example.com/gpu"}},
		{"unknown device", fit, asks("example.com/fpga", "1"), nil, Unresolvable, []string{"Insufficient example.com/fpga"}},
		{"ignored device", ignoring, asks("example.com/gpu", "2"), nil, Fits, nil},
		{"ignored group of devices", ignoring, asks("example.org/gpu", "2"), nil, Fits, nil},
		{"device that is claimed", delegating, asks("example.com/fpga", "1"), nil, Fits, nil},
		{"device that the node has none left of", delegating, asks("example.com/gpu", "2"), nil, Unresolvable, []string{"Insufficient example.com/gpu"}},
		{"too many pods", fit, nil, full, Unschedulable, []string{"Too many pods"}},
		{"feature", NodeDeclaredFeatures{}, func(p *corev1.Pod) { p.Spec.HostNetwork, p.Spec.HostUsers = true, new(bool) }, nil, Unresolvable,
			[]string{"node(s) didn't match Pod's required features"}},
		{"feature declared", NodeDeclaredFeatures{}, func(p *corev1.Pod) { p.Spec.HostNetwork, p.Spec.HostUsers = true, new(bool) },
			func(n *corev1.Node) { n.Status.DeclaredFeatures = []string{"UserNamespacesHostNetworkSupport"} }, Fits, nil},
	} {
		t.Run(c.filter.Name()+"/"+c.name, func(t *testing.T) {
			code, got := refusal(t, c.filter.(Filter), aPod("p", c.pod), aNode(c.node))
			if code != c.code || len(got) != len(c.want) {
				t.Fatalf("code %d, reasons %q, want %d and %q", code, got, c.code, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("reasons %q, want %q", got, c.want)
				}
			}
		})
	}
}

// TestView says that a view sees pods come and go and the node does not.
func TestView(t *testing.T) {
	n := aNode(nil)
	p := aPod("p", asks("cpu", "600m", "example.com/gpu", "1"))
	v := ViewOf(n)
	v.Add(p)
	if v.Used.MilliCPU != 600 || v.Used.Others["example.com/gpu"] != 1 || len(v.Pods) != 2 || len(v.Added) != 1 {
		t.Errorf("view after Add: %+v, added %v", v.Node, v.Added)
	}
	there := n.Pods[0]
	v.Remove(there)
	if len(v.Ports) != 0 || len(v.Removed) != 1 || len(n.Ports) != 1 || len(n.Pods) != 1 || n.Used.MilliCPU != 0 || n.Used.Others["example.com/gpu"] != 0 {
		t.Errorf("view after Remove: %+v, node %+v", v.Node, n)
	}
	v.Remove(p)
	v.Add(there)
	if v.Changed() || v.Used.MilliCPU != 0 || len(v.Ports) != 1 {
		t.Errorf("view put back: %+v, added %v, removed %v", v.Node, v.Added, v.Removed)
	}
}
