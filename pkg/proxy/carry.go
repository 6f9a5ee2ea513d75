package proxy

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"coracle/pkg/network/rule"
)

// carryLimit bounds how many clients keep their endpoint over a Replace.
const carryLimit = 1 << 16

// carryAffinity reads which client goes where from the table in the kernel, and
// returns the elements that say the same in the table that will replace it: a
// restart of the agent must not move clients. It is the only listing, and only
// Replace pays for it. What cannot be read or has no group any more is left
// out; those clients get an endpoint anew.
func (t *Table) carryAffinity(state *Changes, v6 bool) []nftables.SetElement {
	groups := map[FrontKey]uint32{}
	for _, e := range state.Fronts.Add {
		if e.Value.Plan.Affinity > 0 && e.Key.Addr.Is6() == v6 {
			groups[e.Key] = e.Value.Group
		}
	}
	if len(groups) == 0 {
		return nil
	}
	// A connection of its own: what a listing cut short leaves behind must not
	// be taken for answers to the transaction.
	var socket *netlink.Conn
	conn, err := nftables.New(t.options(&socket)...)
	if err != nil {
		return nil
	}
	// Numbers of groups are new after a restart: the fronts that led to the old
	// number tell the new one.
	renamed := map[uint32]uint32{}
	for _, scope := range []Scope{ScopeAny, ScopeExternal} {
		name := frontSet(FrontKey{Scope: scope, Addr: rule.Unspecified(v6)})
		fronts, err := conn.GetSetElements(&nftables.Set{Table: t.table, Name: name})
		if err != nil {
			return nil
		}
		for _, e := range fronts {
			if key, ok := parseFront(scope, e.Key); ok && len(e.Val) == 8 {
				if now, ok := groups[key]; ok {
					renamed[binary.NativeEndian.Uint32(e.Val)] = now
				}
			}
		}
	}
	old, err := conn.GetSetElements(&nftables.Set{Table: t.table, Name: named(affinityName, v6)})
	if err != nil {
		return nil
	}
	var out []nftables.SetElement
	for _, e := range old[:min(len(old), carryLimit)] {
		if len(e.Key) < 4 || e.Expires <= 0 {
			continue
		}
		if now, ok := renamed[binary.NativeEndian.Uint32(e.Key)]; ok {
			key := append(rule.Words(now), e.Key[4:]...)
			out = append(out, nftables.SetElement{Key: key, Val: e.Val, Timeout: e.Expires})
		}
	}
	return out
}

// parseFront reads a key of a front map, the reverse of frontBytes.
func parseFront(scope Scope, b []byte) (FrontKey, bool) {
	if len(b) < 8 {
		return FrontKey{}, false
	}
	a, ok := netip.AddrFromSlice(b[:len(b)-8])
	rest := b[len(b)-8:]
	return FrontKey{Scope: scope, Addr: a, Proto: Protocol(rest[0]), Port: binary.BigEndian.Uint16(rest[4:])}, ok
}
