package plugin

// changes is which nodes changed, for those who keep what they found out about
// nodes.
type changes struct {
	ring  []int32
	first uint64 // position of the oldest entry in ring
	next  uint64
	// epoch counts changes that concern all nodes.
	epoch uint64
}

// maxChanges bounds the ring; who is further behind looks at all nodes again.
const maxChanges = 1 << 14

func (l *changes) touch(node int32) {
	if l.ring == nil {
		l.ring = make([]int32, maxChanges)
	}
	l.ring[l.next%maxChanges] = node
	if l.next++; l.next-l.first > maxChanges {
		l.first = l.next - maxChanges
	}
}

func (l *changes) all() { l.epoch++ }

// Mark is a point in the history of a Cluster.
type Mark struct{ next, epoch uint64 }

// Mark is now.
func (c *Cluster) Mark() Mark { return Mark{c.log.next, c.log.epoch} }

// Since calls touched with the index of each node that changed since m, some
// more than once. It returns false, and calls nothing, when any node may have
// changed.
func (c *Cluster) Since(m Mark, touched func(node int32)) bool {
	if m.epoch != c.log.epoch || m.next < c.log.first {
		return false
	}
	for ; m.next < c.log.next; m.next++ {
		touched(c.log.ring[m.next%maxChanges])
	}
	return true
}
