package plugin

// topology is a topology key that somebody counts by: which node is in which
// domain.
type topology struct {
	key     string
	id      int              // place in Node.domains
	domains map[string]int32 // by the label's value
	members [][]int32        // nodes by domain; empty for free ones
	free    []int32
	// wide says that there are so many domains that nodes are told apart by what
	// is counted in theirs, not by the domain. It stays.
	wide bool
}

const noDomain = -1

// topology returns the topology of a key, made on first use.
func (c *Cluster) topology(key string) *topology {
	for _, t := range c.topologies {
		if t.key == key {
			return t
		}
	}
	t := &topology{key: key, id: len(c.topologies), domains: map[string]int32{}}
	c.topologies = append(c.topologies, t)
	for _, n := range c.nodes {
		if n != nil {
			t.enter(n)
		}
	}
	t.wide = len(t.domains) > c.Narrow
	return t
}

// enter puts a node into its domain.
func (t *topology) enter(n *Node) {
	for len(*n.domains) <= t.id {
		*n.domains = append(*n.domains, noDomain)
	}
	value, ok := n.Labels[t.key]
	if !ok {
		(*n.domains)[t.id] = noDomain
		return
	}
	d, ok := t.domains[value]
	if !ok {
		if last := len(t.free) - 1; last >= 0 {
			d, t.free = t.free[last], t.free[:last]
		} else {
			d = int32(len(t.members))
			t.members = append(t.members, nil)
		}
		t.domains[value] = d
	}
	t.members[d] = append(t.members[d], n.Index)
	(*n.domains)[t.id] = d
}

// leave takes a node out of its domain; nothing may be counted for it any more.
func (t *topology) leave(n *Node) {
	d := (*n.domains)[t.id]
	if d == noDomain {
		return
	}
	(*n.domains)[t.id] = noDomain
	list := t.members[d]
	for i, have := range list {
		if have == n.Index {
			list[i] = list[len(list)-1]
			t.members[d] = list[:len(list)-1]
			break
		}
	}
	if len(t.members[d]) == 0 {
		delete(t.domains, n.Labels[t.key])
		t.free = append(t.free, d)
	}
}

// of is the node's domain.
func (t *topology) of(n *Node) int32 {
	if n.domains == nil || t.id >= len(*n.domains) {
		return noDomain
	}
	return (*n.domains)[t.id]
}

// enter begins to count a node with known facts and the pods on it.
func (c *Cluster) enter(n *Node) {
	for _, t := range c.topologies {
		if t.of(n) == noDomain {
			t.enter(n)
		}
		if !t.wide && len(t.domains) > c.Narrow {
			t.wide = true
			c.all() // bands are of another kind from now on
		}
	}
	for _, s := range c.spreads {
		s.enter(n)
	}
	for _, p := range n.Pods {
		c.count(n, p, +1)
	}
}

// leave ends counting a node. It keeps its domain in the topologies for which
// next, what is known of it from now on, has the same label; nil is nothing.
func (c *Cluster) leave(n *Node, next *Facts) {
	for _, p := range n.Pods {
		c.count(n, p, -1)
	}
	for _, s := range c.spreads {
		s.leave(n)
	}
	for _, t := range c.topologies {
		if next != nil && t.of(n) != noDomain {
			if value, ok := next.Labels[t.key]; ok && value == n.Labels[t.key] {
				continue
			}
		}
		t.leave(n)
	}
}

// tally counts something per node and, for those who ask, per domain.
type tally struct {
	onNode   map[int32]int32
	counters []*counter
	spreads  []*spread
}

// counter is a tally summed up by the domains of a topology.
type counter struct {
	topology *topology
	counts   []int32 // by domain
	nonzero  int     // domains with a count
}

// at is the count of a domain.
func (k *counter) at(domain int32) int32 {
	if domain < 0 || int(domain) >= len(k.counts) {
		return 0
	}
	return k.counts[domain]
}

// add returns the new count.
func (k *counter) add(domain, delta int32) int32 {
	for int(domain) >= len(k.counts) {
		k.counts = append(k.counts, 0)
	}
	was := k.counts[domain]
	k.counts[domain] += delta
	switch now := k.counts[domain]; {
	case was == 0 && now != 0:
		k.nonzero++
	case was != 0 && now == 0:
		k.nonzero--
	}
	return k.counts[domain]
}

// by returns the tally by the domains of a topology.
func (c *Cluster) by(t *tally, key string) *counter {
	for _, k := range t.counters {
		if k.topology.key == key {
			return k
		}
	}
	k := &counter{topology: c.topology(key)}
	for node, count := range t.onNode {
		if d := k.topology.of(c.nodes[node]); d != noDomain {
			k.add(d, count)
		}
	}
	t.counters = append(t.counters, k)
	return k
}

// add counts delta on a node.
func (c *Cluster) add(t *tally, n *Node, delta int32) {
	if t.onNode == nil {
		t.onNode = map[int32]int32{}
	}
	if t.onNode[n.Index] += delta; t.onNode[n.Index] == 0 {
		delete(t.onNode, n.Index)
	}
	for _, k := range t.counters {
		if d := k.topology.of(n); d != noDomain {
			k.add(d, delta)
			c.touchDomain(k.topology, d, n.Index)
		}
	}
	for _, s := range t.spreads {
		if s.takesPart(n.Index) {
			d := s.topology.of(n)
			s.add(d, delta)
			c.touchDomain(s.topology, d, n.Index)
		}
	}
}

// touchDomain notes that the nodes of a domain may be in other bands; but is
// noted by who changed it.
func (c *Cluster) touchDomain(t *topology, domain, but int32) {
	if !t.wide {
		return
	}
	for _, i := range t.members[domain] {
		if i != but {
			c.log.touch(i)
		}
	}
}
