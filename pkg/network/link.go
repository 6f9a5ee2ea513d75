package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// VethEnd is one end of a veth pair.
type VethEnd struct {
	// NS is the namespace the end lives in.
	NS *NS
	// Name of the interface there, at most 15 bytes.
	Name string
}

// EnsureBridge makes a bridge, up, with the given MTU (0: the kernel's choice).
// The bridge gets a hardware address of its own, so that it does not change
// with its ports.
func (ns *NS) EnsureBridge(name string, mtu int) error {
	link, err := ns.h.LinkByName(name)
	if isNotFound(err) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = name, mtu
		if err = ns.h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("create bridge %s: %w", name, err)
		}
		link, err = ns.h.LinkByName(name)
	}
	if err != nil {
		return fmt.Errorf("look up bridge %s: %w", name, err)
	}
	if link.Type() != "bridge" {
		return fmt.Errorf("interface %s is a %s, not a bridge: remove or rename it", name, link.Type())
	}
	// Setting the address it already has marks it as chosen by us.
	if err := ns.h.LinkSetHardwareAddr(link, link.Attrs().HardwareAddr); err != nil {
		return fmt.Errorf("fix the hardware address of bridge %s: %w", name, err)
	}
	return ns.linkUp(link)
}

// EnsureVeth makes a veth pair between two namespaces (or within one), both
// ends up. A pair that already has both ends is kept; one half of a pair left
// by a crash is replaced.
func EnsureVeth(a, b VethEnd, mtu int) error {
	la, errA := a.NS.h.LinkByName(a.Name)
	lb, errB := b.NS.h.LinkByName(b.Name)
	switch {
	case errA == nil && errB == nil:
		if la.Type() != "veth" || lb.Type() != "veth" || la.Attrs().ParentIndex != lb.Attrs().Index {
			return fmt.Errorf("interfaces %s and %s exist and are not one veth pair: remove them", a.Name, b.Name)
		}
	case errA != nil && !isNotFound(errA):
		return fmt.Errorf("look up %s: %w", a.Name, errA)
	case errB != nil && !isNotFound(errB):
		return fmt.Errorf("look up %s: %w", b.Name, errB)
	default:
		if err := errors.Join(a.NS.DeleteLink(a.Name), b.NS.DeleteLink(b.Name)); err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = a.Name, mtu
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: b.Name, PeerMTU: uint32(mtu), PeerNamespace: netlink.NsFd(b.NS.fd)}
		if err := a.NS.h.LinkAdd(veth); err != nil {
			return fmt.Errorf("create veth pair %s, %s: %w", a.Name, b.Name, err)
		}
	}
	return errors.Join(a.NS.SetUp(a.Name), b.NS.SetUp(b.Name))
}

// SetMaster attaches a link to a bridge; an empty bridge detaches it.
func (ns *NS) SetMaster(link, bridge string) error {
	l, err := ns.h.LinkByName(link)
	if err != nil {
		return fmt.Errorf("look up %s: %w", link, err)
	}
	master := 0
	if bridge != "" {
		br, err := ns.h.LinkByName(bridge)
		if err != nil {
			return fmt.Errorf("look up bridge %s: %w", bridge, err)
		}
		master = br.Attrs().Index
	}
	if l.Attrs().MasterIndex == master {
		return nil
	}
	if err := ns.h.LinkSetMasterByIndex(l, master); err != nil {
		return fmt.Errorf("attach %s to bridge %s: %w", link, bridge, err)
	}
	return nil
}

// SetHairpin lets a bridge send a frame back out of the port it came in by. A
// pod that connects to a service and is chosen as its endpoint needs it: with
// bridge netfilter, a translated packet goes from port to port.
func (ns *NS) SetHairpin(port string) error {
	l, err := ns.h.LinkByName(port)
	if err != nil {
		return fmt.Errorf("look up %s: %w", port, err)
	}
	if err := ns.h.LinkSetHairpin(l, true); err != nil {
		return fmt.Errorf("set hairpin mode of %s: %w", port, err)
	}
	return nil
}

// SetUp and SetDown switch a link's administrative state. A link that is down
// carries nothing: a node cut off from its cluster.
func (ns *NS) SetUp(link string) error {
	l, err := ns.h.LinkByName(link)
	if err != nil {
		return fmt.Errorf("look up %s: %w", link, err)
	}
	return ns.linkUp(l)
}

// SetDown is the opposite of SetUp.
func (ns *NS) SetDown(link string) error {
	l, err := ns.h.LinkByName(link)
	if err != nil {
		return fmt.Errorf("look up %s: %w", link, err)
	}
	if err := ns.h.LinkSetDown(l); err != nil {
		return fmt.Errorf("set %s down: %w", link, err)
	}
	return nil
}

func (ns *NS) linkUp(l netlink.Link) error {
	if l.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := ns.h.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", l.Attrs().Name, err)
	}
	return nil
}

// DeleteLink removes a link; the other end of a veth pair goes with it. No such
// link is no error.
func (ns *NS) DeleteLink(name string) error {
	l, err := ns.h.LinkByName(name)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up %s: %w", name, err)
	}
	if err := ns.h.LinkDel(l); err != nil && !isNotFound(err) {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}

// HasLink reports whether a link of that name exists.
func (ns *NS) HasLink(name string) (bool, error) {
	_, err := ns.h.LinkByName(name)
	if isNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// Addrs lists the addresses of all links, loopback included, with the length of
// their on-link prefix.
func (ns *NS) Addrs() ([]netip.Prefix, error) {
	list, err := ns.h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := make([]netip.Prefix, 0, len(list))
	for _, a := range list {
		if p, ok := toPrefix(a.IPNet); ok {
			out = append(out, p)
		}
	}
	return out, nil
}

// EnsureAddr gives a link an address; prefix carries the address itself and the
// length of its on-link network (10.0.0.5/24).
func (ns *NS) EnsureAddr(link string, prefix netip.Prefix) error {
	l, err := ns.h.LinkByName(link)
	if err != nil {
		return fmt.Errorf("look up %s: %w", link, err)
	}
	addr := &netlink.Addr{IPNet: toIPNet(prefix)}
	if prefix.Addr().Is6() {
		// Duplicate detection would keep the address unusable for a second.
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := ns.h.AddrReplace(l, addr); err != nil {
		return fmt.Errorf("give %s the address %s: %w", link, prefix, err)
	}
	return nil
}

// DeleteAddr takes an address from a link; if it is not there, nothing happens.
func (ns *NS) DeleteAddr(link string, prefix netip.Prefix) error {
	l, err := ns.h.LinkByName(link)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up %s: %w", link, err)
	}
	err = ns.h.AddrDel(l, &netlink.Addr{IPNet: toIPNet(prefix)})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("take the address %s from %s: %w", prefix, link, err)
	}
	return nil
}

func isNotFound(err error) bool {
	var nf netlink.LinkNotFoundError
	return errors.As(err, &nf) || errors.Is(err, unix.ENODEV)
}

func toIPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func toPrefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones), ok
}

// LinkWith names the interface that has an address.
func (ns *NS) LinkWith(addr netip.Addr) (string, bool) {
	list, err := ns.h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return "", false
	}
	for _, a := range list {
		if toAddr(a.IP) != addr {
			continue
		}
		if l, err := ns.h.LinkByIndex(a.LinkIndex); err == nil {
			return l.Attrs().Name, true
		}
	}
	return "", false
}
