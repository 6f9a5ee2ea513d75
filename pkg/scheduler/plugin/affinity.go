package plugin

// NodeAffinity keeps pods to the nodes that their node selector and required
// node affinity name.
type NodeAffinity struct{}

// Name implements Filter.
func (NodeAffinity) Name() string { return "NodeAffinity" }

// Check implements Filter. A selector that cannot be parsed matches nothing.
func (NodeAffinity) Check(p *Pod, n *Node) string {
	if ok, err := p.Required.Match(n.Object); err != nil || !ok {
		return "node(s) didn't match Pod's node affinity/selector"
	}
	return ""
}

// PreferredNodeAffinity prefers the nodes that the pod's preferred node
// affinity names.
type PreferredNodeAffinity struct{}

// Name implements Score.
func (PreferredNodeAffinity) Name() string { return "NodeAffinity" }

// Weight implements Score.
func (PreferredNodeAffinity) Weight() int64 { return 2 }

// Score implements Score; the raw value is the sum of the matching terms'
// weights.
func (PreferredNodeAffinity) Score(p *Pod, n *Node) int64 {
	if p.Preferred == nil {
		return 0
	}
	return p.Preferred.Score(n.Object)
}

// Normalize implements Normalizer.
func (PreferredNodeAffinity) Normalize(scores []int64) { scaleUp(scores) }
