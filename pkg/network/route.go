package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RouteProtocol marks the routes that this package keeps, in the kernel's
// protocol field (values above 4 are free for routing daemons; 186 to 192 are
// taken by well-known ones). A route with this mark that nobody wants is ours
// to remove; all others are not.
const RouteProtocol = 99

// Route is one kernel route of the main table. It is comparable.
type Route struct {
	// Dst is the destination; the zero Prefix is not valid, a default route is
	// 0.0.0.0/0 or ::/0.
	Dst netip.Prefix
	// Via is the next hop; invalid for a destination on the link itself.
	Via netip.Addr
	// Link is the outgoing interface; may be empty if Via is given.
	Link string
	// Src is the preferred source address; invalid lets the kernel choose.
	Src netip.Addr
}

// EnsureRoute adds a route, or replaces the one to the same destination.
func (ns *NS) EnsureRoute(r Route) error {
	nr, err := ns.toNetlink(r)
	if err != nil {
		return err
	}
	if err := ns.h.RouteReplace(nr); err != nil {
		return fmt.Errorf("add route to %s via %s %s: %w", r.Dst, r.Via, r.Link, err)
	}
	return nil
}

// DeleteRoute removes our route to a destination; no such route is no error.
func (ns *NS) DeleteRoute(r Route) error {
	// Scope "nowhere" matches each scope, as no scope would not.
	err := ns.h.RouteDel(&netlink.Route{Dst: toIPNet(r.Dst), Protocol: RouteProtocol, Scope: netlink.SCOPE_NOWHERE})
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("delete route to %s: %w", r.Dst, err)
	}
	return nil
}

// OwnRoutes lists the routes of the main table that carry RouteProtocol.
func (ns *NS) OwnRoutes() ([]Route, error) {
	list, err := ns.h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	names := map[int]string{}
	out := make([]Route, 0, len(list))
	for _, nr := range list {
		dst, ok := toPrefix(nr.Dst)
		if !ok {
			continue
		}
		r := Route{Dst: dst, Via: toAddr(nr.Gw), Src: toAddr(nr.Src)}
		if _, ok := names[nr.LinkIndex]; !ok {
			if l, err := ns.h.LinkByIndex(nr.LinkIndex); err == nil {
				names[nr.LinkIndex] = l.Attrs().Name
			}
		}
		r.Link = names[nr.LinkIndex]
		out = append(out, r)
	}
	return out, nil
}

// RouteTo asks the kernel how it would reach an address: the interface and the
// source address it would use.
func (ns *NS) RouteTo(dst netip.Addr) (Route, error) {
	list, err := ns.h.RouteGet(dst.AsSlice())
	if err != nil {
		return Route{}, fmt.Errorf("no route to %s: %w", dst, err)
	}
	if len(list) == 0 {
		return Route{}, fmt.Errorf("no route to %s", dst)
	}
	l, err := ns.h.LinkByIndex(list[0].LinkIndex)
	if err != nil {
		return Route{}, fmt.Errorf("look up the interface towards %s: %w", dst, err)
	}
	return Route{Dst: netip.PrefixFrom(dst, dst.BitLen()), Via: toAddr(list[0].Gw), Link: l.Attrs().Name, Src: toAddr(list[0].Src)}, nil
}

// MTU returns a link's MTU in bytes.
func (ns *NS) MTU(link string) (int, error) {
	l, err := ns.h.LinkByName(link)
	if err != nil {
		return 0, fmt.Errorf("look up %s: %w", link, err)
	}
	return l.Attrs().MTU, nil
}

func (ns *NS) toNetlink(r Route) (*netlink.Route, error) {
	nr := &netlink.Route{Dst: toIPNet(r.Dst), Protocol: RouteProtocol, Table: unix.RT_TABLE_MAIN}
	if r.Via.IsValid() {
		nr.Gw = r.Via.AsSlice()
	} else {
		nr.Scope = netlink.SCOPE_LINK
	}
	if r.Src.IsValid() {
		nr.Src = r.Src.AsSlice()
	}
	if r.Link != "" {
		l, err := ns.h.LinkByName(r.Link)
		if err != nil {
			return nil, fmt.Errorf("look up %s: %w", r.Link, err)
		}
		nr.LinkIndex = l.Attrs().Index
	}
	return nr, nil
}

func toAddr(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Addr{}
	}
	return a.Unmap()
}
