package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"coracle/pkg/network/rule"
)

// flowTimeout bounds one look through the connection tracking table.
const flowTimeout = 30 * time.Second

// flow is the part of a connection tracking entry that tells whether it leads
// to a dead endpoint.
type flow struct {
	// Asked is what the client sent to, Answers who the kernel expects
	// answers from: the endpoint, or Asked if nothing was translated.
	Asked, Answers netip.AddrPort
}

// stale tells whether a UDP flow goes to a front in the list, and to none of
// its endpoints. Local are the addresses of the node, which node ports are on.
func stale(f flow, fronts map[netip.AddrPort]UDPFront, local map[netip.Addr]struct{}) bool {
	front, ok := fronts[f.Asked]
	if !ok {
		if _, here := local[f.Asked.Addr()]; !here {
			return false
		}
		if front, ok = fronts[netip.AddrPortFrom(rule.Unspecified(f.Asked.Addr().Is6()), f.Asked.Port())]; !ok {
			return false
		}
	}
	return !slices.Contains(front.Backends, f.Answers)
}

// flowCleaner ends UDP flows to endpoints that are gone. UDP has no end of its
// own: a client that goes on sending from one port would be sent to the dead
// endpoint as long as it does. TCP ends by itself and is left alone.
type flowCleaner struct {
	netns int
	log   *slog.Logger

	mu sync.Mutex
	// waiting holds the newest state of each changed front; guarded by mu.
	waiting map[netip.AddrPort]UDPFront
	wake    chan struct{}
}

func newFlowCleaner(ns int, log *slog.Logger) *flowCleaner {
	return &flowCleaner{netns: ns, log: log, waiting: map[netip.AddrPort]UDPFront{}, wake: make(chan struct{}, 1)}
}

// add hands over changed fronts. The table must have the change already, or a
// deleted flow could come back as it was.
func (c *flowCleaner) add(fronts []UDPFront) {
	if len(fronts) == 0 {
		return
	}
	c.mu.Lock()
	for _, f := range fronts {
		c.waiting[netip.AddrPortFrom(f.Addr, f.Port)] = f
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *flowCleaner) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		c.mu.Lock()
		fronts := c.waiting
		c.waiting = map[netip.AddrPort]UDPFront{}
		c.mu.Unlock()
		n, err := cleanFlows(c.netns, fronts)
		if err != nil {
			// Nothing to retry: what is missed ends with its timeout.
			c.log.Warn("could not end UDP flows to removed endpoints; they end by their timeout", "error", err)
		} else if n > 0 {
			c.log.Info("ended UDP flows to removed endpoints", "flows", n)
		}
	}
}

// cleanFlows deletes the stale flows of the given fronts and counts them.
func cleanFlows(ns int, fronts map[netip.AddrPort]UDPFront) (uint, error) {
	h, err := openHandle(ns)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	addrs, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return 0, fmt.Errorf("list addresses: %w", err)
	}
	m := flowMatcher{fronts: fronts, local: map[netip.Addr]struct{}{}}
	var families [2]bool
	for _, a := range addrs {
		m.local[addrOf(a.IP)] = struct{}{}
	}
	for k := range fronts {
		if k.Addr().Is6() {
			families[1] = true
		} else {
			families[0] = true
		}
	}
	var total uint
	for i, f := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		if !families[i] {
			continue
		}
		n, e := h.ConntrackDeleteFilters(netlink.ConntrackTable, f, &m)
		total, err = total+n, errors.Join(err, e)
	}
	if err != nil {
		return total, fmt.Errorf("delete connection tracking entries: %w", err)
	}
	return total, nil
}

func openHandle(ns int) (*netlink.Handle, error) {
	var h *netlink.Handle
	var err error
	if ns == 0 {
		h, err = netlink.NewHandle(unix.NETLINK_NETFILTER, unix.NETLINK_ROUTE)
	} else {
		h, err = netlink.NewHandleAt(netns.NsHandle(ns), unix.NETLINK_NETFILTER, unix.NETLINK_ROUTE)
	}
	if err != nil {
		return nil, fmt.Errorf("open netlink for connection tracking: %w", err)
	}
	if err := h.SetSocketTimeout(flowTimeout); err != nil {
		h.Close()
		return nil, fmt.Errorf("set the timeout of netlink: %w", err)
	}
	return h, nil
}

// flowMatcher gives netlink the decision of stale.
type flowMatcher struct {
	fronts map[netip.AddrPort]UDPFront
	local  map[netip.Addr]struct{}
}

var _ netlink.CustomConntrackFilter = (*flowMatcher)(nil)

// MatchConntrackFlow reports whether the entry is to be deleted.
func (m *flowMatcher) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	return f.Forward.Protocol == uint8(UDP) && stale(flow{
		Asked:   netip.AddrPortFrom(addrOf(f.Forward.DstIP), f.Forward.DstPort),
		Answers: netip.AddrPortFrom(addrOf(f.Reverse.SrcIP), f.Reverse.SrcPort),
	}, m.fronts, m.local)
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
