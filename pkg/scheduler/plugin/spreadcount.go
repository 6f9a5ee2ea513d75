package plugin

// spread counts the pods that a topology spread constraint means by domain, on
// the nodes that take part for pods of one shape.
type spread struct {
	topology *topology
	takes    func(f *Facts) bool // says whether a node takes part
	part     []bool              // by node: takes part
	counts   []int32             // by domain
	nodes    []int32             // nodes that take part by domain
	domains  int                 // domains with nodes that take part
	byCount  []int32             // how many of those domains have a count
	least    int32               // the smallest count; -1 without a domain
}

// maxSpreads bounds how many are kept; beyond it all are made anew when they
// are asked for.
const maxSpreads = 1024

type spreadKey struct {
	matcher  *matcher
	shape    *Shape
	pin      string
	topology string
	// keys are the topology keys that nodes must have to take part.
	keys             string
	affinity, taints bool
}

// spread returns the counts of a constraint, made on first use.
func (c *Cluster) spread(m *matcher, p *Pod, k *Constraint, keys []string) *spread {
	key := spreadKey{matcher: m, shape: p.Shape, pin: p.Pin, topology: k.TopologyKey, affinity: k.HonorAffinity, taints: k.HonorTaints}
	for _, name := range keys {
		key.keys += name + "\n"
	}
	if s := c.spreads[key]; s != nil {
		return s
	}
	if len(c.spreads) >= maxSpreads {
		c.all()
	}
	of, rule := &Pod{Shape: p.Shape, Pin: p.Pin}, *k
	s := &spread{topology: c.topology(k.TopologyKey), takes: func(f *Facts) bool { return takesPart(f, of, &rule, keys) }, least: -1}
	for _, n := range c.nodes {
		if n == nil {
			continue
		}
		s.enter(n)
		if count := m.onNode[n.Index]; count != 0 && s.takesPart(n.Index) {
			s.add(s.topology.of(n), count)
		}
	}
	c.spreads[key] = s
	m.spreads = append(m.spreads, s)
	return s
}

// enter has a node take part if it is one that does. Its pods are not counted
// yet.
func (s *spread) enter(n *Node) {
	d := s.topology.of(n)
	if d == noDomain || !s.takes(n.Facts) {
		return
	}
	for len(s.part) <= int(n.Index) {
		s.part = append(s.part, false)
	}
	for len(s.counts) <= int(d) {
		s.counts, s.nodes = append(s.counts, 0), append(s.nodes, 0)
	}
	s.part[n.Index] = true
	if s.nodes[d]++; s.nodes[d] > 1 {
		return
	}
	s.at(s.counts[d], +1)
	if s.domains++; s.domains == 1 || s.counts[d] < s.least {
		s.least = s.counts[d]
	}
}

// leave has a node take part no more. Its pods are not counted any more.
func (s *spread) leave(n *Node) {
	if !s.takesPart(n.Index) {
		return
	}
	s.part[n.Index] = false
	d := s.topology.of(n)
	if s.nodes[d]--; s.nodes[d] > 0 {
		return
	}
	s.at(s.counts[d], -1)
	if s.domains--; s.domains == 0 {
		s.least = -1
		return
	}
	for s.byCount[s.least] == 0 {
		s.least++
	}
}

func takesPart(f *Facts, p *Pod, k *Constraint, keys []string) bool {
	for _, key := range keys {
		if _, ok := f.Labels[key]; !ok {
			return false
		}
	}
	if k.HonorAffinity && (p.Pin != "" && p.Pin != f.Name || !p.Shape.selects(f)) {
		return false
	}
	return !k.HonorTaints || untolerated(f.Taints, p.Shape.Tolerations) == nil
}

func (s *spread) takesPart(node int32) bool { return int(node) < len(s.part) && s.part[node] }

func (s *spread) at(count, delta int32) {
	for int(count) >= len(s.byCount) {
		s.byCount = append(s.byCount, 0)
	}
	s.byCount[count] += delta
}

// add counts delta, 1 or -1, in a domain that takes part.
func (s *spread) add(domain, delta int32) {
	for ; delta > 1; delta-- {
		s.add(domain, 1)
	}
	for ; delta < -1; delta++ {
		s.add(domain, -1)
	}
	was := s.counts[domain]
	now := was + delta
	s.counts[domain] = now
	s.at(was, -1)
	s.at(now, +1)
	if now < s.least || was == s.least && s.byCount[was] == 0 {
		s.least = now
	}
}

// in is the count of a domain.
func (s *spread) in(domain int32) int64 {
	if domain < 0 || int(domain) >= len(s.counts) {
		return 0
	}
	return int64(s.counts[domain])
}

// min is the smallest count of a domain if that of one domain were delta more:
// 0 when there are fewer domains than wanted.
func (s *spread) min(domain int32, delta int32, domains int64) int64 {
	if int64(s.domains) < domains || s.domains == 0 {
		return 0
	}
	if delta == 0 || domain < 0 || int(domain) >= len(s.nodes) || s.nodes[domain] == 0 {
		return int64(s.least)
	}
	was := s.counts[domain]
	least := s.least
	if was == least && s.byCount[was] == 1 {
		// The smallest of the others.
		if s.domains == 1 {
			return int64(was + delta)
		}
		for least++; s.byCount[least] == 0; least++ {
		}
	}
	return int64(min(least, was+delta))
}
