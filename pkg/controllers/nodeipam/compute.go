package nodeipam

import (
	"fmt"
	"math/big"
	"net/netip"
)

// maxSpan bounds how many node ranges a cluster range may hold.
const maxSpan = 1 << 20

// ranges hands out the node ranges of one cluster range. It is not safe for
// concurrent use.
type ranges struct {
	cluster netip.Prefix
	bits    int
	span    int          // how many node ranges fit
	next    int          // where the search goes on: a range just freed is used last
	taken   map[int]bool // by index
}

func newRanges(cluster netip.Prefix, bits int) (*ranges, error) {
	cluster = cluster.Masked()
	switch width := bits - cluster.Bits(); {
	case !cluster.IsValid():
		return nil, fmt.Errorf("the cluster range is missing: set it, such as 10.244.0.0/16")
	case bits > cluster.Addr().BitLen() || width < 0:
		return nil, fmt.Errorf("a node range of /%d does not fit the cluster range %s", bits, cluster)
	case width > 20:
		return nil, fmt.Errorf("the cluster range %s holds more than %d node ranges of /%d: choose them closer", cluster, maxSpan, bits)
	default:
		return &ranges{cluster: cluster, bits: bits, span: 1 << width, taken: map[int]bool{}}, nil
	}
}

// occupy marks what p covers as taken. A range outside the cluster range is
// nobody's business.
func (r *ranges) occupy(p netip.Prefix) { r.mark(p, true) }

// release marks what p covers as free.
func (r *ranges) release(p netip.Prefix) { r.mark(p, false) }

func (r *ranges) mark(p netip.Prefix, taken bool) {
	p = p.Masked()
	if !p.IsValid() || !r.cluster.Overlaps(p) {
		return
	}
	first, n := 0, r.span
	if p.Bits() > r.cluster.Bits() {
		first, n = r.index(p.Addr()), 1
		if p.Bits() < r.bits {
			n = 1 << (r.bits - p.Bits())
		}
	}
	for i := first; i < first+n; i++ {
		if taken {
			r.taken[i] = true
		} else {
			delete(r.taken, i)
		}
	}
}

// allocate takes a free range; it reports false when none is left.
func (r *ranges) allocate() (netip.Prefix, bool) {
	for i := range r.span {
		at := (r.next + i) % r.span
		if !r.taken[at] {
			r.taken[at] = true
			r.next = (at + 1) % r.span
			return r.at(at), true
		}
	}
	return netip.Prefix{}, false
}

// index is the number of the node range that holds a.
func (r *ranges) index(a netip.Addr) int {
	n := new(big.Int).Sub(number(a), number(r.cluster.Addr()))
	n.Rsh(n, uint(a.BitLen()-r.bits))
	return int(n.Int64())
}

// at is the node range with this number.
func (r *ranges) at(i int) netip.Prefix {
	n := new(big.Int).Lsh(big.NewInt(int64(i)), uint(r.cluster.Addr().BitLen()-r.bits))
	n.Add(n, number(r.cluster.Addr()))
	a, _ := netip.AddrFromSlice(n.FillBytes(make([]byte, r.cluster.Addr().BitLen()/8)))
	return netip.PrefixFrom(a, r.bits)
}

func number(a netip.Addr) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }
