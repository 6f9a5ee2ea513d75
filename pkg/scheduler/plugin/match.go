package plugin

import (
	"maps"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// criterion is which pods are meant.
type criterion struct {
	selector   labels.Selector
	namespaces []string
	// namespaceSelector, when not nil, means pods of further namespaces.
	namespaceSelector labels.Selector
}

// matcher counts the pods that meet all its criteria.
type matcher struct {
	tally
	all []criterion
	// alive leaves out pods that are being deleted.
	alive bool
}

// holder counts the pods that have a term of a kind, times its weight where
// the kind is preferred.
type holder struct {
	tally
	id   uint64
	term *Term
	kind kind
}

type kind uint8

const (
	repels   kind = iota // required anti-affinity
	needs                // required affinity
	likes                // preferred affinity, by weight
	dislikes             // preferred anti-affinity, by weight
	kinds
)

type holderKey struct {
	term *Term
	kind kind
}

// known is what the index found out about a group.
type known struct {
	cluster *Cluster
	version uint64     // of cluster.matchers
	matches []*matcher // those that mean the group's pods
	last    *matcher   // the one asked about last
	means   bool
}

// anchor is a label that pods must have to be meant; the zero anchor is none.
type anchor struct{ key, value string }

func anchorOf(s labels.Selector) anchor {
	requirements, selectable := s.Requirements()
	if !selectable {
		return anchor{}
	}
	for i := range requirements {
		r := &requirements[i]
		switch r.Operator() {
		case selection.In, selection.Equals, selection.DoubleEquals:
			if values := r.ValuesUnsorted(); len(values) == 1 {
				return anchor{r.Key(), values[0]}
			}
		}
	}
	return anchor{}
}

// index finds what may mean pods by one of their labels.
type index[T any] map[anchor][]T

func (x index[T]) add(s labels.Selector, v T) {
	a := anchorOf(s)
	x[a] = append(x[a], v)
}

// each calls f with all that may mean pods with these labels.
func (x index[T]) each(of labels.Set, f func(T)) {
	for _, v := range x[anchor{}] {
		f(v)
	}
	for key, value := range of {
		for _, v := range x[anchor{key, value}] {
			f(v)
		}
	}
}

// maxMatchers bounds how many matchers are kept; beyond it all are made anew
// when they are asked for.
const maxMatchers = 2048

// matcher returns the matcher of a key, made with these criteria on first use.
func (c *Cluster) matcher(key string, alive bool, criteria func() []criterion) *matcher {
	if m := c.matchers[key]; m != nil {
		return m
	}
	if len(c.matchers) >= maxMatchers {
		c.dropMatchers()
	}
	m := &matcher{all: criteria(), alive: alive}
	c.matchers[key] = m
	c.matchersBy.add(m.all[0].selector, m)
	c.matcherVersion++
	for _, n := range c.nodes {
		if n == nil {
			continue
		}
		var count int32
		for _, p := range n.Pods {
			if c.meansMemo(m, p.Group) {
				count++
			}
		}
		if count > 0 {
			c.add(&m.tally, n, count)
		}
	}
	return m
}

// dropMatchers forgets all matchers; who holds one has to ask again.
func (c *Cluster) dropMatchers() {
	c.all()
	clear(c.matchers)
	clear(c.matchersBy)
	c.matcherVersion++
}

// all notes a change that concerns all nodes.
func (c *Cluster) all() {
	c.log.all()
	for key := range c.spreads {
		key.matcher.spreads = nil
	}
	clear(c.spreads)
}

// means says that a matcher means the pods of a group.
func (c *Cluster) means(m *matcher, g *Group) bool {
	if m.alive && g.Terminating {
		return false
	}
	for i := range m.all {
		if !c.meets(&m.all[i], g) {
			return false
		}
	}
	return true
}

func (c *Cluster) meansMemo(m *matcher, g *Group) bool {
	if g.known.last != m {
		g.known.last, g.known.means = m, c.means(m, g)
	}
	return g.known.means
}

func (c *Cluster) meets(k *criterion, g *Group) bool {
	in := false
	for _, ns := range k.namespaces {
		in = in || ns == g.Namespace
	}
	if !in {
		if k.namespaceSelector == nil {
			return false
		}
		// A selector that means some namespaces does not mean one that is gone.
		of, exists := c.namespaces[g.Namespace]
		if !k.namespaceSelector.Empty() && (!exists || !k.namespaceSelector.Matches(of)) {
			return false
		}
	}
	return k.selector.Matches(g.Labels)
}

// repelledBy says that a term of a pod on a node means the pods of a group.
func (c *Cluster) repelledBy(t *Term, g *Group) bool {
	in := false
	for _, ns := range t.Namespaces {
		in = in || ns == g.Namespace
	}
	if !in && (t.NamespaceSelector == nil || !t.NamespaceSelector.Matches(c.namespaces[g.Namespace])) {
		return false
	}
	return t.Selector.Matches(g.Labels)
}

// holders are those of the kind whose terms mean the pods of a group.
func (c *Cluster) holders(k kind, g *Group) []*holder {
	var list []*holder
	c.holdersBy[k].each(g.Labels, func(h *holder) {
		if c.repelledBy(h.term, g) {
			list = append(list, h)
		}
	})
	return list
}

// matches are the matchers that mean the pods of a group.
func (c *Cluster) matches(g *Group) []*matcher {
	k := &g.known
	if k.cluster == c && k.version == c.matcherVersion {
		return k.matches
	}
	k.cluster, k.version, k.matches = c, c.matcherVersion, k.matches[:0]
	c.matchersBy.each(g.Labels, func(m *matcher) {
		if c.means(m, g) {
			k.matches = append(k.matches, m)
		}
	})
	return k.matches
}

// count counts a pod in, or out with sign -1, on a node with known facts.
func (c *Cluster) count(n *Node, p *Pod, sign int32) {
	if n.Facts == nil {
		return
	}
	for _, m := range c.matches(p.Group) {
		c.add(&m.tally, n, sign)
	}
	s := p.Shape
	if !s.hasTerms {
		return
	}
	for _, t := range s.AntiAffinity {
		c.add(&c.holder(t, repels).tally, n, sign)
	}
	for _, t := range s.Affinity {
		c.add(&c.holder(t, needs).tally, n, sign)
	}
	for _, w := range s.PreferredAffinity {
		c.add(&c.holder(w.Term, likes).tally, n, sign*int32(w.Weight))
	}
	for _, w := range s.PreferredAntiAffinity {
		c.add(&c.holder(w.Term, dislikes).tally, n, sign*int32(w.Weight))
	}
}

// maxHolders is from how many holders on those that hold nothing are looked
// for.
const maxHolders = 1024

func (c *Cluster) holder(t *Term, k kind) *holder {
	key := holderKey{t, k}
	if h := c.holding[key]; h != nil {
		return h
	}
	if len(c.holding) >= c.holdingSweep {
		c.sweepHolders()
	}
	c.holderVersion++
	h := &holder{id: c.holderVersion, term: t, kind: k}
	c.by(&h.tally, t.TopologyKey)
	c.holding[key] = h
	c.holdersBy[k].add(t.Selector, h)
	return h
}

func (c *Cluster) sweepHolders() {
	maps.DeleteFunc(c.holding, func(_ holderKey, h *holder) bool { return len(h.onNode) == 0 })
	for k := range c.holdersBy {
		clear(c.holdersBy[k])
	}
	for key, h := range c.holding {
		c.holdersBy[key.kind].add(h.term.Selector, h)
	}
	c.holdingSweep = max(maxHolders, 2*len(c.holding))
	c.holderVersion++
}

// SetNamespace takes over the labels of a namespace; nil when it is gone. It
// says whether that may matter to a pod.
func (c *Cluster) SetNamespace(name string, of map[string]string) bool {
	old, existed := c.namespaces[name]
	if of == nil && !existed || of != nil && existed && maps.Equal(old, of) {
		return false
	}
	if of == nil {
		delete(c.namespaces, name)
	} else {
		c.namespaces[name] = of
	}
	selects := false
	for _, m := range c.matchers {
		for i := range m.all {
			selects = selects || m.all[i].namespaceSelector != nil
		}
	}
	for _, h := range c.holding {
		selects = selects || h.term.NamespaceSelector != nil
	}
	if !selects {
		return false
	}
	c.dropMatchers()
	c.holderVersion++
	return true
}
