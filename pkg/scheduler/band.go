package scheduler

import (
	"cmp"
	"slices"

	"coracle/pkg/scheduler/plugin"
)

// ranking orders the nodes that a class of pods may go to by score, in bands.
// Scores are coarse: nodes of one score are a queue, so that a node moves without
// regard to how many others there are.
type ranking struct {
	// pages say where nodes are, by node index. A page is there once one of its
	// nodes was put into a band: pods that few nodes can take cost little.
	pages []*page
	bands []*band
	byKey map[bandKey]int32
	last  int32 // the band that was looked up last
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

// band is the nodes of equal answers.
type band struct {
	key    bandKey
	size   int     // how many there are
	levels []level // by score, the lowest first; some are empty
	top    int     // no level after this one has a node
}

// level is the nodes of one score, first come first served: who comes after it
// changed, for a pod was placed there, comes last.
type level struct {
	score       int64
	first, last int32 // none when it is empty
}

// slot is where a node is.
type slot struct {
	band       int32 // its number plus one; 0 when the node cannot take the pods
	prev, next int32 // among the nodes of its level, or none
	score      int64
}

const none = -1

func newRanking() *ranking { return &ranking{byKey: map[bandKey]int32{}} }

// slot is where a node is, nil when no node near it was ever in a band.
func (r *ranking) slot(node int32) *slot {
	at := int(node >> pageBits)
	if at >= len(r.pages) || r.pages[at] == nil {
		return nil
	}
	return &r.pages[at][node&(pageSize-1)]
}

// known is slot of a node that is in a band.
func (r *ranking) known(node int32) *slot { return &r.pages[node>>pageBits][node&(pageSize-1)] }

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

// put places a node behind its equals in a band, or moves it there.
func (r *ranking) put(to int32, score int64, node int32) {
	s := r.ownSlot(node)
	r.take(s)
	b := r.bands[to]
	at := b.level(score)
	l := &b.levels[at]
	*s = slot{band: to + 1, prev: l.last, next: none, score: score}
	if l.last == none {
		l.first = node
	} else {
		r.known(l.last).next = node
	}
	l.last = node
	b.size++
	b.top = max(b.top, at)
}

// drop takes a node out.
func (r *ranking) drop(node int32) {
	if s := r.slot(node); s != nil {
		r.take(s)
	}
}

// take takes the node of a slot out of its level.
func (r *ranking) take(s *slot) {
	if s.band == 0 {
		return
	}
	b := r.bands[s.band-1]
	if s.prev == none || s.next == none {
		l := &b.levels[b.level(s.score)]
		if s.prev == none {
			l.first = s.next
		}
		if s.next == none {
			l.last = s.prev
		}
	}
	if s.prev != none {
		r.known(s.prev).next = s.next
	}
	if s.next != none {
		r.known(s.next).prev = s.prev
	}
	s.band = 0
	b.size--
}

// level is the place of the level of a score, which is made when there is none.
func (b *band) level(score int64) int {
	if b.top < len(b.levels) && b.levels[b.top].score == score {
		return b.top
	}
	find := func(l level, score int64) int { return cmp.Compare(l.score, score) }
	at, ok := slices.BinarySearchFunc(b.levels, score, find)
	if ok {
		return at
	}
	if len(b.levels) == cap(b.levels) { // before it grows, what is empty goes
		b.levels = slices.DeleteFunc(b.levels, func(l level) bool { return l.first == none })
		b.top = max(len(b.levels)-1, 0)
		at, _ = slices.BinarySearchFunc(b.levels, score, find)
	}
	b.levels = slices.Insert(b.levels, at, level{score: score, first: none, last: none})
	if at <= b.top && len(b.levels) > 1 {
		b.top++
	}
	return at
}

// first is the best node of a band that passes, or none, and its score. Nodes
// are asked best first.
func (r *ranking) first(b *band, passes func(node int32) bool) (node int32, score int64) {
	for b.top > 0 && b.levels[b.top].first == none {
		b.top--
	}
	for at := min(b.top, len(b.levels)-1); at >= 0; at-- {
		for node := b.levels[at].first; node != none; node = r.known(node).next {
			if passes == nil || passes(node) {
				return node, b.levels[at].score
			}
		}
	}
	return none, 0
}

// count is how many nodes of a band pass, and the best of them with its score.
func (r *ranking) count(b *band, passes func(node int32) bool) (nodes int, best int32, score int64) {
	best = none
	for at := len(b.levels) - 1; at >= 0; at-- {
		for node := b.levels[at].first; node != none; node = r.known(node).next {
			if !passes(node) {
				continue
			}
			if nodes++; best == none {
				best, score = node, b.levels[at].score
			}
		}
	}
	return nodes, best, score
}

// bandsOf are the bands by one plugin.
func bandsOf(part int, live []liveBand, out []plugin.Band) []plugin.Band {
	out = out[:0]
	for i := range live {
		out = append(out, plugin.Band{ID: live[i].key[part], Nodes: live[i].nodes})
	}
	return out
}
