package scheduler

import "coracle/pkg/scheduler/plugin"

// ranking orders the nodes that a class of pods may go to by score, in bands.
// It is a forest of heaps over node indices.
type ranking struct {
	slots []slot // by node index
	bands []*band
	byKey map[bandKey]int32
}

// maxParts is how many plugins may split nodes into bands.
const maxParts = 12

// bandKey is the band of a node by each plugin that has bands.
type bandKey [maxParts]int32

// band is the nodes of equal answers, best first.
type band struct {
	key  bandKey
	heap []int32 // node indices
}

// slot is what is known of a node.
type slot struct {
	band  int32 // none when the node cannot take the pods
	at    int32 // place in the heap
	score int64
	tie   uint32 // settles ties; drawn anew with each score
}

const none = -1

func newRanking(nodes int) *ranking {
	r := &ranking{slots: make([]slot, nodes), byKey: map[bandKey]int32{}}
	for i := range r.slots {
		r.slots[i].band = none
	}
	return r
}

// put places a node in a band with a score, or moves it there.
func (r *ranking) put(node int32, key bandKey, score int64, tie uint32) {
	s := &r.slots[node]
	to := s.band
	if to == none || r.bands[to].key != key {
		id, ok := r.byKey[key]
		if !ok {
			id = int32(len(r.bands))
			r.bands = append(r.bands, &band{key: key})
			r.byKey[key] = id
		}
		to = id
	}
	if s.band == to {
		s.score, s.tie = score, tie
		b := r.bands[to]
		if !r.up(b, s.at) {
			r.down(b, s.at)
		}
		return
	}
	r.drop(node)
	b := r.bands[to]
	s.band, s.score, s.tie, s.at = to, score, tie, int32(len(b.heap))
	b.heap = append(b.heap, node)
	r.up(b, s.at)
}

// drop takes a node out.
func (r *ranking) drop(node int32) {
	s := &r.slots[node]
	if s.band == none {
		return
	}
	b, at := r.bands[s.band], s.at
	s.band = none
	last := int32(len(b.heap) - 1)
	moved := b.heap[last]
	b.heap = b.heap[:last]
	if at == last {
		return
	}
	b.heap[at] = moved
	r.slots[moved].at = at
	if !r.up(b, at) {
		r.down(b, at)
	}
}

func (r *ranking) better(a, b int32) bool {
	x, y := &r.slots[a], &r.slots[b]
	return x.score > y.score || x.score == y.score && x.tie > y.tie
}

func (r *ranking) up(b *band, at int32) bool {
	node, moved := b.heap[at], false
	for at > 0 {
		parent := (at - 1) / 2
		if !r.better(node, b.heap[parent]) {
			break
		}
		b.heap[at] = b.heap[parent]
		r.slots[b.heap[at]].at = at
		at, moved = parent, true
	}
	b.heap[at] = node
	r.slots[node].at = at
	return moved
}

func (r *ranking) down(b *band, at int32) {
	node := b.heap[at]
	for {
		child := 2*at + 1
		if int(child) >= len(b.heap) {
			break
		}
		if int(child+1) < len(b.heap) && r.better(b.heap[child+1], b.heap[child]) {
			child++
		}
		if !r.better(b.heap[child], node) {
			break
		}
		b.heap[at] = b.heap[child]
		r.slots[b.heap[at]].at = at
		at = child
	}
	b.heap[at] = node
	r.slots[node].at = at
}

// first is the best node of a band that passes, or none. Nodes are asked best
// first.
func (r *ranking) first(b *band, passes func(node int32) bool) int32 {
	if passes == nil {
		return b.heap[0]
	}
	open := []int32{0} // places in the heap, best node first
	for len(open) > 0 {
		at := open[0]
		if passes(b.heap[at]) {
			return b.heap[at]
		}
		open = open[1:]
		for child := 2*at + 1; child <= 2*at+2 && int(child) < len(b.heap); child++ {
			i := len(open)
			open = append(open, child)
			for ; i > 0 && r.better(b.heap[child], b.heap[open[i-1]]); i-- {
				open[i] = open[i-1]
			}
			open[i] = child
		}
	}
	return none
}

// bandsOf are the bands by one plugin.
func bandsOf(part int, live []liveBand, out []plugin.Band) []plugin.Band {
	out = out[:0]
	for i := range live {
		out = append(out, plugin.Band{ID: live[i].key[part], Nodes: live[i].nodes})
	}
	return out
}
