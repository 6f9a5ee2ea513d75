package plugin

// OwnerSpread prefers nodes with fewer pods of the same controller, as the
// default constraints of topology spreading do by hostname.
type OwnerSpread struct{}

// Name implements Score.
func (OwnerSpread) Name() string { return "PodTopologySpread" }

// Weight implements Score.
func (OwnerSpread) Weight() int64 { return 2 }

// Score implements Score; the raw value is a number of pods.
func (OwnerSpread) Score(p *Pod, n *Node) int64 { return int64(n.Owners[p.Owner]) }

// Normalize implements Normalizer.
func (OwnerSpread) Normalize(scores []int64) { scaleDown(scores) }
