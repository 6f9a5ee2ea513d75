package plugin

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
)

// NodeResourcesFitArgs are the arguments of NodeResourcesFit.
type NodeResourcesFitArgs struct {
	// IgnoredResources and IgnoredResourceGroups name extended resources, and
	// their domains, that are not checked.
	IgnoredResources, IgnoredResourceGroups []string
	// Strategy is how nodes are scored.
	Strategy Strategy
}

// NodeResourcesFit keeps pods off nodes that lack what they request, and
// prefers, by default, those with the most left.
type NodeResourcesFit struct {
	args   NodeResourcesFitArgs
	scorer scorer
	// delegated says that somebody else provides a resource that the node does
	// not list; nil when nobody does.
	delegated func(name string) bool
}

func newNodeResourcesFit(args Args, h Handles) (Plugin, error) {
	a := NodeResourcesFitArgs{}
	switch given := args.(type) {
	case nil:
	case NodeResourcesFitArgs:
		a = given
	default:
		return nil, wrongArgs("NodeResourcesFit", args)
	}
	s, err := a.Strategy.scorer()
	if err != nil {
		return nil, err
	}
	return &NodeResourcesFit{args: a, scorer: s, delegated: h.DelegatedResource}, nil
}

// Name implements Plugin.
func (*NodeResourcesFit) Name() string { return "NodeResourcesFit" }

// PreFilter implements Filter.
func (f *NodeResourcesFit) PreFilter(c *Cluster, p *Pod) FilterPlan {
	check := fitCheck{f, &p.Shape.Requests}
	plan := FilterPlan{Check: check}
	for name, want := range p.Shape.Requests.Others {
		if !check.counts(nil, name, want) {
			continue
		}
		if nodes := c.offering[name]; plan.Among == nil || len(nodes) < len(plan.Among) {
			plan.Among = nodes[:len(nodes):len(nodes)]
		}
		if plan.Among == nil {
			plan.Among = []int32{} // nobody offers it
		}
	}
	return plan
}

type fitCheck struct {
	fit *NodeResourcesFit
	r   *Resources
}

// Check implements Check.
func (c fitCheck) Check(v *View) Verdict {
	if c.fits(v.Node, int64(len(v.Pods))) {
		return Verdict{}
	}
	return c.lacks(v.Node, int64(len(v.Pods)))
}

// Fits implements QuickCheck.
func (c fitCheck) Fits(n *Node) bool { return c.fits(n, int64(len(n.Pods))) }

// fits is the hot path: no allocation.
func (c fitCheck) fits(n *Node, pods int64) bool {
	r, u, a := c.r, &n.Used, &n.Allocatable
	if pods+1 > n.MaxPods ||
		r.MilliCPU > 0 && r.MilliCPU > a.MilliCPU-u.MilliCPU ||
		r.Memory > 0 && r.Memory > a.Memory-u.Memory ||
		r.Ephemeral > 0 && r.Ephemeral > a.Ephemeral-u.Ephemeral {
		return false
	}
	for name, want := range r.Others {
		if want > a.Others[name]-u.Others[name] && c.counts(n, name, want) {
			return false
		}
	}
	return true
}

// counts says that a resource is asked for and checked by this plugin on a
// node, or, without one, on nodes that do not offer it.
func (c fitCheck) counts(n *Node, name corev1.ResourceName, want int64) bool {
	if want <= 0 {
		return false
	}
	if extended(name) {
		domain, _, _ := strings.Cut(string(name), "/")
		if slices.Contains(c.fit.args.IgnoredResources, string(name)) || slices.Contains(c.fit.args.IgnoredResourceGroups, domain) {
			return false
		}
	}
	return c.fit.delegated == nil || n != nil && n.Allocatable.Others[name] > 0 || !c.fit.delegated(string(name))
}

// Most nodes that are full lack one thing, and thousands may say so at once. None
// of these is ever changed.
var (
	lacksPods      = []string{"Too many pods"}
	lacksCPU       = []string{"Insufficient cpu"}
	lacksMemory    = []string{"Insufficient memory"}
	lacksEphemeral = []string{"Insufficient ephemeral-storage"}
)

// lacks says what is missing; no pods can go away to make room for more than
// the node has.
func (c fitCheck) lacks(n *Node, pods int64) Verdict {
	v := Verdict{Code: Unschedulable}
	lack := func(reason []string, want, have int64) {
		if v.Reasons == nil {
			v.Reasons = reason
		} else {
			v.Reasons = slices.Concat(v.Reasons, reason)
		}
		if want > have {
			v.Code = Unresolvable
		}
	}
	r, u, a := c.r, &n.Used, &n.Allocatable
	if pods+1 > n.MaxPods {
		lack(lacksPods, 0, 0)
	}
	if r.MilliCPU > 0 && r.MilliCPU > a.MilliCPU-u.MilliCPU {
		lack(lacksCPU, r.MilliCPU, a.MilliCPU)
	}
	if r.Memory > 0 && r.Memory > a.Memory-u.Memory {
		lack(lacksMemory, r.Memory, a.Memory)
	}
	if r.Ephemeral > 0 && r.Ephemeral > a.Ephemeral-u.Ephemeral {
		lack(lacksEphemeral, r.Ephemeral, a.Ephemeral)
	}
	for _, name := range sortedNames(r.Others) {
		if want := r.Others[name]; want > a.Others[name]-u.Others[name] && c.counts(n, name, want) {
			lack([]string{"Insufficient " + string(name)}, want, a.Others[name])
		}
	}
	return v
}

// MayHelp implements Hinter.
func (f *NodeResourcesFit) MayHelp(p *Pod, e *Event) bool {
	r := &p.Shape.Requests
	switch e.Kind {
	case PodDeleted, OwnPodUpdated:
		return true
	case ObjectChanged:
		return f.delegated != nil && len(r.Others) > 0 && providesAny(r, e)
	case PodScaledDown:
		return e.Pod.Shape.Requests.Less(&e.OldPod.Shape.Requests, r)
	case NodeAdded:
		return f.alone(p, e.Node)
	case NodeUpdated:
		grew := e.Node.MaxPods > e.OldNode.MaxPods || e.OldNode.Allocatable.Less(&e.Node.Allocatable, r)
		if !grew && f.delegated != nil {
			for name := range r.Others {
				grew = grew || f.delegated(string(name))
			}
		}
		return grew && f.alone(p, e.Node)
	}
	return false
}

// providesAny says that an event is about a class of devices that newly
// provides one of the resources.
func providesAny(r *Resources, e *Event) bool {
	if e.OldObject == nil && e.Object == nil {
		return true
	}
	class, ok := e.Object.(*resourcev1.DeviceClass)
	if !ok {
		return false
	}
	old, _ := e.OldObject.(*resourcev1.DeviceClass)
	if old == nil && r.Others[corev1.ResourceName(resourcev1.ResourceDeviceClassPrefix+class.Name)] > 0 {
		return true
	}
	name := class.Spec.ExtendedResourceName
	if name == nil || old != nil && old.Spec.ExtendedResourceName != nil && *old.Spec.ExtendedResourceName == *name {
		return false
	}
	return r.Others[corev1.ResourceName(*name)] > 0
}

// alone says that the pod would fit if the node had no others.
func (f *NodeResourcesFit) alone(p *Pod, facts *Facts) bool {
	return fitCheck{f, &p.Shape.Requests}.fits(&Node{Facts: facts}, 0)
}

// PreScore implements Score.
func (f *NodeResourcesFit) PreScore(_ *Cluster, p *Pod) ScorePlan {
	return ScorePlan{Node: strategyScore{f.scorer, p.Shape, true}}
}
