package plugin

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// NodeName keeps a pod that names its node to that node.
type NodeName struct{}

// Name implements Plugin.
func (NodeName) Name() string { return "NodeName" }

// PreFilter implements Filter.
func (NodeName) PreFilter(_ *Cluster, p *Pod) FilterPlan {
	if p.Node == "" {
		return FilterPlan{}
	}
	return FilterPlan{Check: nameCheck(p.Node), Nodes: []string{p.Node}, PerPod: true}
}

type nameCheck string

// Check implements Check.
func (name nameCheck) Check(v *View) Verdict {
	if string(name) != v.Name {
		return refuse(Unresolvable, []string{"node(s) didn't match the requested node name"})
	}
	return Verdict{}
}

// MayHelp implements Hinter.
func (NodeName) MayHelp(p *Pod, e *Event) bool { return e.Kind == NodeAdded && e.Node.Name == p.Node }

// NodeAffinityArgs are the arguments of NodeAffinity.
type NodeAffinityArgs struct {
	// AddedAffinity is asked of every pod beside its own.
	AddedAffinity *corev1.NodeAffinity
}

// NodeAffinity keeps pods to the nodes that their node selector and required
// node affinity name, and prefers those that their preferences name.
type NodeAffinity struct {
	added          *nodeaffinity.NodeSelector
	addedPreferred *nodeaffinity.PreferredSchedulingTerms
}

func newNodeAffinity(args Args, _ Handles) (Plugin, error) {
	var a NodeAffinityArgs
	switch given := args.(type) {
	case nil:
	case NodeAffinityArgs:
		a = given
	default:
		return nil, wrongArgs("NodeAffinity", args)
	}
	pl := &NodeAffinity{}
	if a.AddedAffinity == nil {
		return pl, nil
	}
	var err error
	if ns := a.AddedAffinity.RequiredDuringSchedulingIgnoredDuringExecution; ns != nil {
		if pl.added, err = nodeaffinity.NewNodeSelector(ns); err != nil {
			return nil, fmt.Errorf("addedAffinity.requiredDuringSchedulingIgnoredDuringExecution of NodeAffinity: %w", err)
		}
	}
	if terms := a.AddedAffinity.PreferredDuringSchedulingIgnoredDuringExecution; len(terms) > 0 {
		if pl.addedPreferred, err = nodeaffinity.NewPreferredSchedulingTerms(terms); err != nil {
			return nil, fmt.Errorf("addedAffinity.preferredDuringSchedulingIgnoredDuringExecution of NodeAffinity: %w", err)
		}
	}
	return pl, nil
}

// Name implements Plugin.
func (*NodeAffinity) Name() string { return "NodeAffinity" }

// PreFilter implements Filter.
func (a *NodeAffinity) PreFilter(_ *Cluster, p *Pod) FilterPlan {
	var plan FilterPlan
	if a.added != nil || p.Shape.HasRequired {
		plan.Check = affinityCheck{a.added, p.Shape}
	}
	switch {
	case p.Shape.FieldsConflict:
		plan.Refuse = refuse(Unresolvable, []string{"pod affinity terms conflict"})
	case p.Pin != "":
		plan.Nodes = []string{p.Pin}
	case p.Shape.Fields != nil:
		plan.Nodes = p.Shape.Fields
	}
	return plan
}

type affinityCheck struct {
	added *nodeaffinity.NodeSelector
	shape *Shape
}

// Check implements Check. A selector that cannot be parsed matches nothing.
func (c affinityCheck) Check(v *View) Verdict {
	if c.added != nil && !c.added.Match(v.Object) {
		return refuse(Unresolvable, []string{"node(s) didn't match scheduler-enforced node affinity"})
	}
	if !c.shape.selects(v.Facts) {
		return refuse(Unresolvable, []string{"node(s) didn't match Pod's node affinity/selector"})
	}
	return Verdict{}
}

// Fits implements QuickCheck.
func (c affinityCheck) Fits(n *Node) bool {
	return (c.added == nil || c.added.Match(n.Object)) && c.shape.selects(n.Facts)
}

// selects says that the node selector and required node affinity, but for a
// pin, admit the node.
func (s *Shape) selects(f *Facts) bool {
	if !s.HasRequired {
		return true
	}
	ok, _ := s.Required.Match(f.Object)
	return ok
}

// MayHelp implements Hinter.
func (a *NodeAffinity) MayHelp(p *Pod, e *Event) bool {
	if e.Kind != NodeAdded && e.Kind != NodeUpdated {
		return false
	}
	match := func(f *Facts) bool {
		return (a.added == nil || a.added.Match(f.Object)) && (p.Pin == "" || p.Pin == f.Name) && p.Shape.selects(f)
	}
	return match(e.Node) && (e.OldNode == nil || !match(e.OldNode))
}

// PreScore implements Score. The band is the sum of the matching terms'
// weights.
func (a *NodeAffinity) PreScore(_ *Cluster, p *Pod) ScorePlan {
	if p.Shape.Preferred == nil && a.addedPreferred == nil {
		return ScorePlan{}
	}
	return ScorePlan{Band: affinityScore{a.addedPreferred, p.Shape.Preferred}}
}

type affinityScore struct {
	added, own *nodeaffinity.PreferredSchedulingTerms
}

// Band implements BandScore.
func (s affinityScore) Band(n *Node) int32 {
	var sum int64
	for _, terms := range []*nodeaffinity.PreferredSchedulingTerms{s.added, s.own} {
		if terms != nil {
			sum += terms.Score(n.Object)
		}
	}
	return int32(sum)
}

// Scores implements BandScore.
func (affinityScore) Scores(bands []Band, out []int64) {
	var top int64
	for _, b := range bands {
		top = max(top, int64(b.ID))
	}
	for i, b := range bands {
		if out[i] = 0; top > 0 {
			out[i] = MaxScore * int64(b.ID) / top
		}
	}
}

// NodeDeclaredFeatures keeps pods that need a feature of the node to the nodes
// that declare it.
type NodeDeclaredFeatures struct{}

// Name implements Plugin.
func (NodeDeclaredFeatures) Name() string { return "NodeDeclaredFeatures" }

// PreFilter implements Filter.
func (NodeDeclaredFeatures) PreFilter(_ *Cluster, p *Pod) FilterPlan {
	if len(p.Shape.Features) == 0 {
		return FilterPlan{}
	}
	return FilterPlan{Check: featureCheck(p.Shape.Features)}
}

type featureCheck []string

// Check implements Check.
func (c featureCheck) Check(v *View) Verdict {
	for _, f := range c {
		if !slices.Contains(v.Features, f) {
			return refuse(Unresolvable, []string{"node(s) didn't match Pod's required features"})
		}
	}
	return Verdict{}
}

// MayHelp implements Hinter.
func (NodeDeclaredFeatures) MayHelp(_ *Pod, e *Event) bool {
	switch e.Kind {
	case NodeAdded, OwnPodUpdated:
		return true
	case NodeUpdated:
		return !slices.Equal(e.OldNode.Features, e.Node.Features)
	}
	return false
}
