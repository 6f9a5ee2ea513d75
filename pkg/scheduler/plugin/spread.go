package plugin

import (
	"errors"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// PodTopologySpreadArgs are the arguments of PodTopologySpread.
type PodTopologySpreadArgs struct {
	// DefaultConstraints apply to pods without constraints of their own, with the
	// selectors of what the pod belongs to. Only with List.
	DefaultConstraints []corev1.TopologySpreadConstraint
	// List takes DefaultConstraints; otherwise the system's apply, which prefer
	// an even spread by hostname and zone.
	List bool
}

// Owners finds the selectors of what a pod belongs to: the Services that select
// it, and its ReplicaSet, StatefulSet or ReplicationController.
type Owners interface {
	// Selector joins them; it is empty when there are none.
	Selector(g *Group, owner Owner) labels.Selector
	// Version grows with each change that may change a Selector.
	Version() uint64
}

// PodTopologySpread spreads pods evenly over domains.
type PodTopologySpread struct {
	defaults []Constraint
	system   bool
	owners   Owners // nil when there are no defaults
}

func newPodTopologySpread(args Args, h Handles) (Plugin, error) {
	pl := &PodTopologySpread{owners: h.Owners}
	switch a := args.(type) {
	case nil:
		pl.system = true
	case PodTopologySpreadArgs:
		pl.system = !a.List
		for i := range a.DefaultConstraints {
			if a.DefaultConstraints[i].LabelSelector != nil {
				return nil, errors.New("a default constraint of PodTopologySpread has a label selector; leave it out, the pod's Services and owners give it")
			}
		}
		if !a.List && len(a.DefaultConstraints) > 0 {
			return nil, errors.New("PodTopologySpread has default constraints; set defaultingType to List for them")
		}
		pl.defaults = constraints(a.DefaultConstraints, nil)
	default:
		return nil, wrongArgs("PodTopologySpread", args)
	}
	if pl.system {
		pl.defaults = constraints([]corev1.TopologySpreadConstraint{
			{TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway, MaxSkew: 3},
			{TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.ScheduleAnyway, MaxSkew: 5},
		}, nil)
	}
	return pl, nil
}

// Name implements Plugin.
func (*PodTopologySpread) Name() string { return "PodTopologySpread" }

// constraints are those of a pod, hard or soft ones, and whether they are its
// own.
func (s *PodTopologySpread) constraints(p *Pod, hard bool) (list []Constraint, own bool) {
	from := p.Shape.Spread
	own = len(from) > 0
	if !own {
		from = s.defaults
	}
	for i := range from {
		if from[i].Hard == hard {
			list = append(list, from[i])
		}
	}
	if own || len(list) == 0 {
		return list, own
	}
	selector := s.selector(p)
	if selector == nil {
		return nil, false
	}
	for i := range list {
		list[i].Selector = selector
	}
	return list, false
}

// selector is that of what the pod belongs to, or nil.
func (s *PodTopologySpread) selector(p *Pod) labels.Selector {
	if s.owners == nil {
		return nil
	}
	if selector := s.owners.Selector(p.Group, p.Shape.Owner); !selector.Empty() {
		return selector
	}
	return nil
}

// Sign implements Signer: the selectors, and which of them mean the pod.
func (s *PodTopologySpread) Sign(_ *Cluster, p *Pod, key []byte) []byte {
	if len(p.Shape.Spread) > 0 {
		key = appendText(key, p.Group.Namespace)
		for i := range p.Shape.Spread {
			key = append(key, boolByte(p.Shape.Spread[i].Selector.Matches(p.Group.Labels)))
		}
		return key
	}
	if selector := s.selector(p); selector != nil && len(s.defaults) > 0 {
		key = appendText(appendText(key, p.Group.Namespace), selector.String())
		return append(key, boolByte(selector.Matches(p.Group.Labels)))
	}
	return key
}

// Version implements Signer.
func (s *PodTopologySpread) Version(*Cluster) uint64 {
	if s.owners == nil {
		return 0
	}
	return s.owners.Version()
}

// spreadOver is the matcher of pods that a constraint of a pod means. A
// selector that would mean all pods counts none.
func (c *Cluster) spreadOver(k *Constraint, namespace string) *matcher {
	key := "s" + namespace + "/" + k.Selector.String()
	selector := k.Selector
	if selector.Empty() {
		key, selector = "s", labels.Nothing()
	}
	return c.matcher(key, true, func() []criterion {
		return []criterion{{selector: selector, namespaces: []string{namespace}}}
	})
}

func keysOf(list []Constraint) []string {
	var keys []string
	for i := range list {
		if !slices.Contains(keys, list[i].TopologyKey) {
			keys = append(keys, list[i].TopologyKey)
		}
	}
	return keys
}

// PreFilter implements Filter.
func (s *PodTopologySpread) PreFilter(c *Cluster, p *Pod) FilterPlan {
	list, _ := s.constraints(p, true)
	if len(list) == 0 {
		return FilterPlan{}
	}
	k := &skewCheck{c: c, bands: newTuples(), scratch: make([]int32, len(list))}
	keys := keysOf(list)
	for i := range list {
		m := c.spreadOver(&list[i], p.Group.Namespace)
		k.parts = append(k.parts, skewPart{
			Constraint: list[i], m: m, spread: c.spread(m, p, &list[i], keys), topology: c.topology(list[i].TopologyKey),
			self: boolCount(list[i].Selector.Matches(p.Group.Labels)),
		})
	}
	return FilterPlan{Check: k}
}

func boolCount(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// skewPart is one hard constraint.
type skewPart struct {
	Constraint
	m        *matcher
	spread   *spread
	topology *topology
	self     int64 // 1 when the pod counts itself
}

// skewCheck is a BandCheck. The parts of a band are, by constraint, the node's
// domain, or what is counted in it when the topology is wide.
type skewCheck struct {
	c       *Cluster
	parts   []skewPart
	bands   *tuples
	scratch []int32
}

// Band implements BandCheck.
func (k *skewCheck) Band(n *Node) int32 {
	for i := range k.parts {
		t := k.parts[i].topology
		d := t.of(n)
		if t.wide && d != noDomain {
			d = int32(k.parts[i].spread.in(d))
		}
		k.scratch[i] = d
	}
	return k.bands.id(k.scratch)
}

// CheckBand implements BandCheck.
func (k *skewCheck) CheckBand(band int32) Code {
	for i, d := range k.bands.of(band) {
		if d == noDomain {
			return Unresolvable
		}
		p := &k.parts[i]
		count := int64(d)
		if !p.topology.wide {
			count = p.spread.in(d)
		}
		if count+p.self-p.spread.min(noDomain, 0, p.MinDomains) > p.MaxSkew {
			return Unschedulable
		}
	}
	return Fits
}

// Check implements Check.
func (k *skewCheck) Check(v *View) Verdict {
	for i := range k.parts {
		p := &k.parts[i]
		d := p.topology.of(v.Node)
		if d == noDomain {
			return refuse(Unresolvable, []string{"node(s) didn't match pod topology spread constraints (missing required label)"})
		}
		var delta int32
		if v.Changed() && p.spread.takesPart(v.Index) {
			for _, q := range v.Added {
				delta += int32(boolCount(k.c.means(p.m, q.Group)))
			}
			for _, q := range v.Removed {
				delta -= int32(boolCount(k.c.means(p.m, q.Group)))
			}
		}
		if p.spread.in(d)+int64(delta)+p.self-p.spread.min(d, delta, p.MinDomains) > p.MaxSkew {
			return refuse(Unschedulable, []string{"node(s) didn't match pod topology spread constraints"})
		}
	}
	return Verdict{}
}

// MayHelp implements Hinter.
func (s *PodTopologySpread) MayHelp(p *Pod, e *Event) bool {
	list, _ := s.constraints(p, true)
	means := func(q *Pod, k *Constraint) bool { return k.Selector.Matches(q.Group.Labels) }
	some := func(f func(k *Constraint) bool) bool {
		for i := range list {
			if f(&list[i]) {
				return true
			}
		}
		return false
	}
	placed := func(q *Pod) bool {
		return q.Group.Namespace == p.Group.Namespace && some(func(k *Constraint) bool { return means(q, k) })
	}
	switch e.Kind {
	case PodAdded:
		return placed(e.Pod)
	case PodDeleted:
		return placed(e.OldPod)
	case PodRelabelled:
		return e.Pod.Group.Namespace == p.Group.Namespace && some(func(k *Constraint) bool { return means(e.OldPod, k) != means(e.Pod, k) })
	case OwnPodUpdated:
		return true
	case NodeAdded:
		return hasKeys(e.Node, list)
	case NodeDeleted:
		return hasKeys(e.OldNode, list)
	case NodeUpdated:
		was, is := hasKeys(e.OldNode, list), hasKeys(e.Node, list)
		return was != is || is && (some(func(k *Constraint) bool {
			return e.OldNode.Labels[k.TopologyKey] != e.Node.Labels[k.TopologyKey]
		}) || !slices.Equal(e.OldNode.Taints, e.Node.Taints))
	}
	return false
}

func hasKeys(f *Facts, list []Constraint) bool {
	for i := range list {
		if _, ok := f.Labels[list[i].TopologyKey]; !ok {
			return false
		}
	}
	return true
}

// PreScore implements Score.
func (s *PodTopologySpread) PreScore(c *Cluster, p *Pod) ScorePlan {
	list, own := s.constraints(p, false)
	if len(list) == 0 {
		return ScorePlan{}
	}
	// Nodes without a zone are spread over by hostname, where nobody asked for
	// more.
	k := &evenness{all: own || !s.system, bands: newTuples(), scratch: make([]int32, len(list))}
	var keys []string
	if k.all {
		keys = keysOf(list)
	}
	for i := range list {
		m := c.spreadOver(&list[i], p.Group.Namespace)
		part := evenPart{host: list[i].TopologyKey == corev1.LabelHostname, slack: list[i].MaxSkew - 1, m: m, topology: c.topology(list[i].TopologyKey)}
		if !part.host {
			part.spread = c.spread(m, p, &list[i], keys)
		}
		k.parts = append(k.parts, part)
	}
	return ScorePlan{Band: k, CountsNodes: true}
}

// evenPart is one soft constraint.
type evenPart struct {
	host     bool // by hostname: counted per node
	slack    int64
	m        *matcher
	topology *topology
	spread   *spread // nil when host
}

// evenness is a BandScore. The parts of a band are, by constraint, the node's
// domain, or the pods counted on the node for hostnames.
type evenness struct {
	all     bool // nodes that lack a key are worth nothing
	parts   []evenPart
	bands   *tuples
	scratch []int32
}

// Band implements BandScore.
func (k *evenness) Band(n *Node) int32 {
	for i := range k.parts {
		d := k.parts[i].topology.of(n)
		if k.parts[i].host && d != noDomain {
			d = k.parts[i].m.onNode[n.Index]
		}
		k.scratch[i] = d
	}
	return k.bands.id(k.scratch)
}

// Scores implements BandScore: fewer pods are better, and count the more the
// more domains there are.
func (k *evenness) Scores(bands []Band, out []int64) {
	const ignored = -1
	weights := k.weights(bands)
	least, most := int64(math.MaxInt64), int64(0)
	for i, b := range bands {
		parts := k.bands.of(b.ID)
		if k.lacks(parts) {
			out[i] = ignored
			continue
		}
		sum := 0.0
		for j, d := range parts {
			if d == noDomain {
				continue
			}
			count := int64(d)
			if p := &k.parts[j]; !p.host {
				count = p.spread.in(d)
			}
			sum += float64(count)*weights[j] + float64(k.parts[j].slack)
		}
		out[i] = int64(math.Round(sum))
		least, most = min(least, out[i]), max(most, out[i])
	}
	for i := range bands {
		switch {
		case out[i] == ignored:
			out[i] = 0
		case most == 0:
			out[i] = MaxScore
		default:
			out[i] = MaxScore * (most + least - out[i]) / most
		}
	}
}

func (k *evenness) lacks(parts []int32) bool { return k.all && slices.Contains(parts, noDomain) }

// weights are, by constraint, what one pod counts.
func (k *evenness) weights(bands []Band) []float64 {
	weights := make([]float64, len(k.parts))
	for j := range k.parts {
		nodes := 0
		var seen []int32
		for _, b := range bands {
			parts := k.bands.of(b.ID)
			if k.lacks(parts) {
				continue
			}
			nodes += b.Nodes
			if !k.parts[j].host && !slices.Contains(seen, parts[j]) {
				seen = append(seen, parts[j])
			}
		}
		size := len(seen)
		if k.parts[j].host {
			size = nodes
		}
		weights[j] = math.Log(float64(size + 2))
	}
	return weights
}
