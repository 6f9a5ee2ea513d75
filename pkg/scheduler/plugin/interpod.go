package plugin

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
)

// InterPodAffinityArgs are the arguments of InterPodAffinity.
type InterPodAffinityArgs struct {
	// HardPodAffinityWeight is what a required affinity of a pod that is there
	// counts for pods that it means, 0 to 100; nil means 1.
	HardPodAffinityWeight *int64
	// IgnorePreferredTermsOfExistingPods leaves the terms of pods that are there
	// out of the score of pods that have no preferred terms.
	IgnorePreferredTermsOfExistingPods bool
}

// InterPodAffinity places pods with, and away from, other pods.
type InterPodAffinity struct {
	hardWeight     int64
	ignoreExisting bool
}

func newInterPodAffinity(args Args, _ Handles) (Plugin, error) {
	pl := &InterPodAffinity{hardWeight: 1}
	switch a := args.(type) {
	case nil:
	case InterPodAffinityArgs:
		pl.ignoreExisting = a.IgnorePreferredTermsOfExistingPods
		if w := a.HardPodAffinityWeight; w != nil {
			if pl.hardWeight = *w; *w < 0 || *w > 100 {
				return nil, fmt.Errorf("hardPodAffinityWeight of InterPodAffinity is %d; it must be 0 to 100", *w)
			}
		}
	default:
		return nil, wrongArgs("InterPodAffinity", args)
	}
	return pl, nil
}

// Name implements Plugin.
func (*InterPodAffinity) Name() string { return "InterPodAffinity" }

// criterionOf is which pods a term of a pod that is to be placed means.
func criterionOf(t *Term) criterion {
	return criterion{selector: t.Selector, namespaces: t.Namespaces, namespaceSelector: t.NamespaceSelector}
}

// meant is the matcher of pods that all the terms mean.
func (c *Cluster) meant(terms ...*Term) *matcher {
	key := "t"
	for _, t := range terms {
		key += fmt.Sprintf("%d:%s", len(t.key), t.key)
	}
	return c.matcher(key, false, func() []criterion {
		all := make([]criterion, len(terms))
		for i, t := range terms {
			all[i] = criterionOf(t)
		}
		return all
	})
}

// PreFilter implements Filter.
func (a *InterPodAffinity) PreFilter(c *Cluster, p *Pod) FilterPlan {
	s := p.Shape
	k := &affinityRules{c: c, group: p.Group, bands: newTuples()}
	if len(s.Affinity) > 0 {
		k.together = c.meant(s.Affinity...)
		k.self = c.means(k.together, p.Group)
		for _, t := range s.Affinity {
			k.rules = append(k.rules, rule{c.by(&k.together.tally, t.TopologyKey), with, k.together, nil})
		}
	}
	for _, t := range s.AntiAffinity {
		m := c.meant(t)
		k.rules = append(k.rules, rule{c.by(&m.tally, t.TopologyKey), away, m, nil})
	}
	for _, h := range c.holders(repels, p.Group) {
		k.rules = append(k.rules, rule{h.counters[0], kept, nil, h})
	}
	if len(k.rules) == 0 {
		return FilterPlan{Changed: k} // a pod that is added may have terms
	}
	k.layout()
	return FilterPlan{Check: k, Changed: k}
}

// Sign implements Signer: whether the pod is meant by its own affinity, and
// whose terms mean it.
func (a *InterPodAffinity) Sign(c *Cluster, p *Pod, key []byte) []byte {
	if terms := p.Shape.Affinity; len(terms) > 0 {
		key = append(key, boolByte(c.means(c.meant(terms...), p.Group)))
	}
	for k := range kinds {
		list := c.holders(k, p.Group)
		slices.SortFunc(list, func(a, b *holder) int { return cmp.Compare(a.id, b.id) })
		key = binary.AppendUvarint(key, uint64(len(list)))
		for _, h := range list {
			key = binary.AppendUvarint(key, h.id)
		}
	}
	return key
}

// Version implements Signer.
func (a *InterPodAffinity) Version(c *Cluster) uint64 { return c.holderVersion }

type ruleKind uint8

const (
	with ruleKind = iota // required affinity: pods must be there
	away                 // required anti-affinity: they must not
	kept                 // anti-affinity of pods that are there
)

// rule is a count that must be, or must not be, zero in a node's domain.
type rule struct {
	*counter
	kind ruleKind
	m    *matcher // what is counted: pods that it means,
	h    *holder  // or pods that hold its term
}

// affinityRules is a BandCheck. The parts of a band are, for each narrow
// topology the node's domain, and for each rule of a wide one, whether its count
// is above zero.
type affinityRules struct {
	c        *Cluster
	group    *Group // of the pod
	rules    []rule
	together *matcher // of the required affinity, nil without
	self     bool     // the pod itself is meant by its required affinity
	slots    []int    // by rule: place in the tuple
	width    int
	bands    *tuples
	scratch  []int32
}

func (k *affinityRules) layout() {
	of := map[*topology]int{}
	for i := range k.rules {
		t := k.rules[i].topology
		slot, ok := of[t]
		if !ok || t.wide {
			slot = k.width
			k.width++
			of[t] = slot
		}
		k.slots = append(k.slots, slot)
	}
	k.scratch = make([]int32, k.width)
}

// Band implements BandCheck.
func (k *affinityRules) Band(n *Node) int32 {
	for i := range k.rules {
		r := &k.rules[i]
		d := r.topology.of(n)
		if r.topology.wide && d != noDomain {
			d = min(r.at(d), 1)
		}
		k.scratch[k.slots[i]] = d
	}
	return k.bands.id(k.scratch)
}

// CheckBand implements BandCheck.
func (k *affinityRules) CheckBand(band int32) Code {
	parts := k.bands.of(band)
	v := k.judge(func(i int) (int32, bool) {
		r, d := &k.rules[i], parts[k.slots[i]]
		if d == noDomain {
			return 0, false
		}
		if r.topology.wide {
			return d, true
		}
		return r.at(d), true
	}, k.nowhere)
	return v.Code
}

// nowhere says that no pod that the required affinity means is in any domain.
func (k *affinityRules) nowhere() bool {
	for i := range k.rules {
		if r := &k.rules[i]; r.kind == with && r.nonzero > 0 {
			return false
		}
	}
	return true
}

// judge applies the rules, those of required affinity first, to the counts of
// a node's domains. The first of pods that want to be together has nobody to
// join: it may go anywhere.
func (k *affinityRules) judge(count func(rule int) (n int32, has bool), nowhere func() bool) Verdict {
	i, missing := 0, false
	for ; i < len(k.rules) && k.rules[i].kind == with; i++ {
		n, has := count(i)
		if !has {
			return refuse(Unresolvable, []string{"node(s) didn't match pod affinity rules"})
		}
		missing = missing || n <= 0
	}
	if missing && !(k.self && nowhere()) {
		return refuse(Unresolvable, []string{"node(s) didn't match pod affinity rules"})
	}
	for ; i < len(k.rules); i++ {
		n, has := count(i)
		if !has || n <= 0 {
			continue
		}
		if k.rules[i].kind == away {
			return refuse(Unschedulable, []string{"node(s) didn't match pod anti-affinity rules"})
		}
		return refuse(Unschedulable, []string{"node(s) didn't satisfy existing pods anti-affinity rules"})
	}
	return Verdict{}
}

// Check implements Check.
func (k *affinityRules) Check(v *View) Verdict {
	changed := v.Changed()
	count := func(i int) (int32, bool) {
		r := &k.rules[i]
		d := r.topology.of(v.Node)
		if d == noDomain {
			return 0, false
		}
		n := r.at(d)
		if changed {
			n += k.delta(r, v)
		}
		return n, true
	}
	nowhere := k.nowhere
	if changed {
		nowhere = func() bool { return k.nowhereWith(v) }
	}
	verdict := k.judge(count, nowhere)
	if verdict.OK() && k.repelled(v) {
		return refuse(Unschedulable, []string{"node(s) didn't satisfy existing pods anti-affinity rules"})
	}
	return verdict
}

// repelled says that a pod that was added has a term against the pod. Nobody
// may have had such a term before.
func (k *affinityRules) repelled(v *View) bool {
	for _, p := range v.Added {
		for _, t := range p.Shape.AntiAffinity {
			if _, ok := v.Labels[t.TopologyKey]; ok && k.c.repelledBy(t, k.group) {
				return true
			}
		}
	}
	return false
}

// delta is how much more the rule counts on the node than there is.
func (k *affinityRules) delta(r *rule, v *View) int32 {
	var n int32
	for _, p := range v.Added {
		n += k.counts(r, p)
	}
	for _, p := range v.Removed {
		n -= k.counts(r, p)
	}
	return n
}

// counts is how often a rule counts a pod.
func (k *affinityRules) counts(r *rule, p *Pod) int32 {
	if r.m != nil {
		if k.c.means(r.m, p.Group) {
			return 1
		}
		return 0
	}
	var n int32
	for _, t := range p.Shape.AntiAffinity {
		if t == r.h.term {
			n++
		}
	}
	return n
}

func (k *affinityRules) nowhereWith(v *View) bool {
	for i := range k.rules {
		r := &k.rules[i]
		if r.kind != with {
			break
		}
		nonzero := r.nonzero
		if d := r.topology.of(v.Node); d != noDomain {
			was := r.at(d)
			if was != 0 {
				nonzero--
			}
			if was+k.delta(r, v) != 0 {
				nonzero++
			}
		}
		if nonzero > 0 {
			return false
		}
	}
	return true
}

// MayHelp implements Hinter.
func (a *InterPodAffinity) MayHelp(p *Pod, e *Event) bool {
	s := p.Shape
	switch e.Kind {
	case PodAdded:
		return meansAll(s.Affinity, e.Pod.Group)
	case PodRelabelled:
		return !meansAll(s.Affinity, e.OldPod.Group) && meansAll(s.Affinity, e.Pod.Group) ||
			meansAny(s.AntiAffinity, e.OldPod.Group) && !meansAny(s.AntiAffinity, e.Pod.Group)
	case PodDeleted:
		return meansAny(s.AntiAffinity, e.OldPod.Group) || meansAny(e.OldPod.Shape.AntiAffinity, p.Group)
	case OwnPodUpdated:
		return e.OldPod == nil || e.OldPod.Group != e.Pod.Group
	case NodeAdded:
		// What refused the pod may have been the terms of others, so that its own
		// only say where it cannot go.
		return len(s.Affinity) == 0 || slices.ContainsFunc(s.Affinity, func(t *Term) bool {
			_, ok := e.Node.Labels[t.TopologyKey]
			return ok
		})
	case NodeUpdated:
		return !maps.Equal(e.OldNode.Labels, e.Node.Labels)
	case NamespaceChanged:
		return true
	}
	return false
}

// mayMean errs on the side of true where a term selects namespaces, whose
// labels are not at hand.
func mayMean(t *Term, g *Group) bool {
	return (t.NamespaceSelector != nil || slices.Contains(t.Namespaces, g.Namespace)) && t.Selector.Matches(g.Labels)
}

func meansAll(terms []*Term, g *Group) bool {
	for _, t := range terms {
		if !mayMean(t, g) {
			return false
		}
	}
	return len(terms) > 0
}

func meansAny(terms []*Term, g *Group) bool {
	return slices.ContainsFunc(terms, func(t *Term) bool { return mayMean(t, g) })
}

// PreScore implements Score.
func (a *InterPodAffinity) PreScore(c *Cluster, p *Pod) ScorePlan {
	s := p.Shape
	if a.ignoreExisting && len(s.PreferredAffinity)+len(s.PreferredAntiAffinity) == 0 {
		return ScorePlan{}
	}
	k := &affinityWishes{bands: newTuples()}
	for _, w := range s.PreferredAffinity {
		k.wishes = append(k.wishes, wish{c.by(&c.meant(w.Term).tally, w.TopologyKey), w.Weight})
	}
	for _, w := range s.PreferredAntiAffinity {
		k.wishes = append(k.wishes, wish{c.by(&c.meant(w.Term).tally, w.TopologyKey), -w.Weight})
	}
	for i, weight := range [...]int64{a.hardWeight, 1, -1} {
		if weight == 0 {
			continue
		}
		for _, h := range c.holders([...]kind{needs, likes, dislikes}[i], p.Group) {
			k.wishes = append(k.wishes, wish{h.counters[0], weight})
		}
	}
	if len(k.wishes) == 0 {
		return ScorePlan{}
	}
	k.layout()
	return ScorePlan{Band: k}
}

// wish is a count that makes a node better or worse.
type wish struct {
	*counter
	weight int64
}

// affinityWishes is a BandScore. The parts of a band are the domains of narrow
// topologies, and at last the sum over the wide ones.
type affinityWishes struct {
	wishes  []wish
	narrow  []*topology
	bands   *tuples
	scratch []int32
}

func (k *affinityWishes) layout() {
	for i := range k.wishes {
		if t := k.wishes[i].topology; !t.wide && !slices.Contains(k.narrow, t) {
			k.narrow = append(k.narrow, t)
		}
	}
	k.scratch = make([]int32, len(k.narrow)+1)
}

// Band implements BandScore.
func (k *affinityWishes) Band(n *Node) int32 {
	for i, t := range k.narrow {
		k.scratch[i] = t.of(n)
	}
	var sum int64
	for i := range k.wishes {
		if w := &k.wishes[i]; w.topology.wide {
			sum += w.weight * int64(w.at(w.topology.of(n)))
		}
	}
	k.scratch[len(k.narrow)] = int32(sum)
	return k.bands.id(k.scratch)
}

// Scores implements BandScore: the best gets MaxScore, the worst 0.
func (k *affinityWishes) Scores(bands []Band, out []int64) {
	least, most := int64(math.MaxInt64), int64(math.MinInt64)
	for i, b := range bands {
		parts := k.bands.of(b.ID)
		sum := int64(parts[len(k.narrow)])
		for j := range k.wishes {
			w := &k.wishes[j]
			if !w.topology.wide {
				sum += w.weight * int64(w.at(parts[slices.Index(k.narrow, w.topology)]))
			}
		}
		out[i] = sum
		least, most = min(least, sum), max(most, sum)
	}
	for i := range bands {
		if most == least {
			out[i] = 0
			continue
		}
		out[i] = int64(float64(MaxScore) * (float64(out[i]-least) / float64(most-least)))
	}
}
