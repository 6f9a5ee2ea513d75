package fleet

import (
	"math/bits"
	"net/netip"
)

// addresses hands out those of a node's pods: the first 256 of its range,
// without the first two (the network and its gateway) and the last.
type addresses struct {
	base netip.Addr
	used [4]uint64
}

// reserved are the numbers that no pod gets.
func reserved(n int) bool { return n < 2 || n > 254 }

// take returns the lowest free number, 0 when there is none.
func (a *addresses) take() uint8 {
	for i, word := range a.used {
		for free := ^word; free != 0; free &= free - 1 {
			if n := i*64 + bits.TrailingZeros64(free); !reserved(n) {
				a.mark(uint8(n))
				return uint8(n)
			}
		}
	}
	return 0
}

// claim marks the number of an address that a pod has already, and returns it;
// 0 when it is not of this range.
func (a *addresses) claim(ip netip.Addr) uint8 {
	for n := range 256 {
		if !reserved(n) && a.at(uint8(n)) == ip {
			a.mark(uint8(n))
			return uint8(n)
		}
	}
	return 0
}

func (a *addresses) mark(n uint8)    { a.used[n/64] |= 1 << (n % 64) }
func (a *addresses) release(n uint8) { a.used[n/64] &^= 1 << (n % 64) }

// at is the address with a number.
func (a *addresses) at(n uint8) netip.Addr {
	b := a.base.AsSlice()
	b[len(b)-1] += n
	ip, _ := netip.AddrFromSlice(b)
	return ip
}

// move changes the range. Pods keep the addresses that were reported.
func (a *addresses) move(to netip.Prefix) {
	if to.IsValid() {
		a.base = to.Masked().Addr()
	}
}
