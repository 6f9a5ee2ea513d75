package network

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// flowTimeout bounds one look through the connection tracking table.
const flowTimeout = 30 * time.Second

// Flow is a UDP flow that the kernel tracks.
type Flow struct {
	// Asked is what the client sent to.
	Asked netip.AddrPort
	// Answers is who answers are expected from: where the flow was translated
	// to, or Asked.
	Answers netip.AddrPort
	// ToNode says that Asked is an address of the node.
	ToNode bool
}

// DeleteUDPFlows ends the flows that match, in the namespace of a descriptor (0
// is the caller's), and counts them. UDP has no end of its own: a client that
// goes on sending from one port is sent where its first packet was, dead or
// not, until it pauses for minutes.
func DeleteUDPFlows(ns int, match func(Flow) bool) (uint, error) {
	families := []int{unix.NETLINK_NETFILTER, unix.NETLINK_ROUTE}
	h, err := netlink.NewHandle(families...)
	if ns != 0 {
		h, err = netlink.NewHandleAt(netns.NsHandle(ns), families...)
	}
	if err != nil {
		return 0, fmt.Errorf("open netlink for connection tracking: %w", err)
	}
	defer h.Close()
	if err := h.SetSocketTimeout(flowTimeout); err != nil {
		return 0, fmt.Errorf("set the timeout of netlink: %w", err)
	}
	addrs, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return 0, fmt.Errorf("list addresses: %w", err)
	}
	m := flowMatcher{match: match, local: map[netip.Addr]struct{}{}}
	for _, a := range addrs {
		m.local[toAddr(a.IP)] = struct{}{}
	}
	var total uint
	for _, f := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		n, e := h.ConntrackDeleteFilters(netlink.ConntrackTable, f, &m)
		total, err = total+n, errors.Join(err, e)
	}
	if err != nil {
		return total, fmt.Errorf("delete connection tracking entries: %w", err)
	}
	return total, nil
}

// flowMatcher gives netlink the caller's decision.
type flowMatcher struct {
	match func(Flow) bool
	local map[netip.Addr]struct{}
}

var _ netlink.CustomConntrackFilter = (*flowMatcher)(nil)

// MatchConntrackFlow reports whether the entry is to be deleted.
func (m *flowMatcher) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	if f.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	asked := netip.AddrPortFrom(toAddr(f.Forward.DstIP), f.Forward.DstPort)
	_, here := m.local[asked.Addr()]
	return m.match(Flow{Asked: asked, Answers: netip.AddrPortFrom(toAddr(f.Reverse.SrcIP), f.Reverse.SrcPort), ToNode: here})
}

// staleHostPort says which UDP flows a change of host ports leaves pointing
// nowhere: those to a changed port of the node that do not go to its pod now.
func staleHostPort(old, now []HostPort) (match func(Flow) bool, any bool) {
	type key struct {
		host netip.Addr
		port uint16
	}
	was, is := map[key]netip.AddrPort{}, map[key]netip.AddrPort{}
	for _, p := range old {
		if p.Proto == unix.IPPROTO_UDP {
			was[key{p.Host, p.Port}] = p.Pod
		}
	}
	changed := map[uint16]bool{}
	for _, p := range now {
		k := key{p.Host, p.Port}
		if p.Proto != unix.IPPROTO_UDP {
			continue
		}
		is[k] = p.Pod
		if was[k] != p.Pod {
			changed[p.Port] = true
		}
		delete(was, k)
	}
	for k := range was {
		changed[k.port] = true
	}
	return func(f Flow) bool {
		if !f.ToNode || !changed[f.Asked.Port()] || f.Asked.Addr().IsLoopback() {
			return false
		}
		pod, ok := is[key{f.Asked.Addr(), f.Asked.Port()}]
		if !ok {
			wild := netip.IPv4Unspecified()
			if f.Asked.Addr().Is6() {
				wild = netip.IPv6Unspecified()
			}
			pod, ok = is[key{wild, f.Asked.Port()}]
		}
		return !ok || f.Answers != pod
	}, len(changed) > 0
}
