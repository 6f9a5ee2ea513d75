package scheduler

import "coracle/pkg/scheduler/plugin"

// ranking orders the nodes that a class of pods may go to by score, in bands.
// It is a forest of heaps over node indices.
type ranking struct {
	// pages say where nodes are, by node index. A page is there once one of its
	// nodes was put into a band: pods that few nodes can take cost little.
	pages []*page
	bands []*band
	byKey map[bandKey]int32
	last  int32 // the band that was looked up last
	waits []int // scratch
}

const (
	pageBits = 7
	pageSize = 1 << pageBits
)

type page [pageSize]slot

// maxParts is how many plugins may split nodes into bands.
const maxParts = 12

// bandKey is the band of a node by each plugin that has bands.
type bandKey [maxParts]int32

// band is the nodes of equal answers, best first.
type band struct {
	key  bandKey
	heap []rated
}

// rated is a node in a heap.
type rated struct {
	score int64
	turn  uint32 // settles ties: the highest is first
	node  int32
}

// slot is where a node is.
type slot struct {
	band int32 // its number plus one; 0 when the node cannot take the pods
	at   int32 // place in the heap
}

const none = -1

// fanout is how many children a place in a heap has: they share a line of the
// processor's cache.
const fanout = 4

func newRanking() *ranking { return &ranking{byKey: map[bandKey]int32{}} }

// slot is where a node is, nil when no node near it was ever in a band.
func (r *ranking) slot(node int32) *slot {
	at := int(node >> pageBits)
	if at >= len(r.pages) || r.pages[at] == nil {
		return nil
	}
	return &r.pages[at][node&(pageSize-1)]
}

func (r *ranking) ownSlot(node int32) *slot {
	if s := r.slot(node); s != nil {
		return s
	}
	at := int(node >> pageBits)
	for len(r.pages) <= at {
		r.pages = append(r.pages, nil)
	}
	r.pages[at] = new(page)
	return &r.pages[at][node&(pageSize-1)]
}

// of is the number of the band of a key.
func (r *ranking) of(key *bandKey) int32 {
	if int(r.last) < len(r.bands) && r.bands[r.last].key == *key {
		return r.last
	}
	id, ok := r.byKey[*key]
	if !ok {
		id = int32(len(r.bands))
		r.bands = append(r.bands, &band{key: *key})
		r.byKey[*key] = id
	}
	r.last = id
	return id
}

// put places a node in a band with a score, or moves it there.
func (r *ranking) put(key *bandKey, n rated) {
	s, to := r.ownSlot(n.node), r.of(key)
	b := r.bands[to]
	if s.band == to+1 {
		if was := b.heap[s.at]; n.better(&was) {
			r.up(b, s.at, n)
		} else {
			r.down(b, s.at, n)
		}
		return
	}
	r.drop(n.node)
	s.band = to + 1
	b.heap = append(b.heap, n)
	r.up(b, int32(len(b.heap)-1), n)
}

// drop takes a node out.
func (r *ranking) drop(node int32) {
	s := r.slot(node)
	if s == nil || s.band == 0 {
		return
	}
	b, at := r.bands[s.band-1], s.at
	s.band = 0
	last := int32(len(b.heap) - 1)
	moved := b.heap[last]
	b.heap = b.heap[:last]
	if at == last {
		return
	}
	if at > 0 && moved.better(&b.heap[(at-1)/fanout]) {
		r.up(b, at, moved)
	} else {
		r.down(b, at, moved)
	}
}

func (n *rated) better(o *rated) bool {
	return n.score > o.score || n.score == o.score && n.turn > o.turn
}

// up puts a node at a place, or above it for as long as it is better.
func (r *ranking) up(b *band, at int32, n rated) {
	for at > 0 {
		parent := (at - 1) / fanout
		if !n.better(&b.heap[parent]) {
			break
		}
		r.set(b, at, b.heap[parent])
		at = parent
	}
	r.set(b, at, n)
}

// down puts a node at a place, or below it for as long as others are better.
func (r *ranking) down(b *band, at int32, n rated) {
	for {
		first := fanout*at + 1
		if int(first) >= len(b.heap) {
			break
		}
		best := first
		for child := first + 1; child < first+fanout && int(child) < len(b.heap); child++ {
			if b.heap[child].better(&b.heap[best]) {
				best = child
			}
		}
		if !b.heap[best].better(&n) {
			break
		}
		r.set(b, at, b.heap[best])
		at = best
	}
	r.set(b, at, n)
}

func (r *ranking) set(b *band, at int32, n rated) {
	b.heap[at] = n
	r.pages[n.node>>pageBits][n.node&(pageSize-1)].at = at
}

// first is the best node of a band that passes, or nil. Nodes are asked best
// first.
func (r *ranking) first(b *band, passes func(node int32) bool) *rated {
	if passes == nil {
		return &b.heap[0]
	}
	waits := append(r.waits[:0], 0) // places in the heap, best node first
	defer func() { r.waits = waits }()
	for head := 0; head < len(waits); head++ {
		at := waits[head]
		if passes(b.heap[at].node) {
			return &b.heap[at]
		}
		for child := fanout*at + 1; child <= fanout*at+fanout && child < len(b.heap); child++ {
			i := len(waits)
			waits = append(waits, child)
			for ; i > head+1 && b.heap[child].better(&b.heap[waits[i-1]]); i-- {
				waits[i] = waits[i-1]
			}
			waits[i] = child
		}
	}
	return nil
}

// bandsOf are the bands by one plugin.
func bandsOf(part int, live []liveBand, out []plugin.Band) []plugin.Band {
	out = out[:0]
	for i := range live {
		out = append(out, plugin.Band{ID: live[i].key[part], Nodes: live[i].nodes})
	}
	return out
}
