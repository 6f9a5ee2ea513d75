package network

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// relayClients bounds the clients of one loopback host port.
	relayClients = 1024
	// relayIdle ends a UDP client's turn when nothing came or went.
	relayIdle = time.Minute
	// relayDial bounds connecting to the pod.
	relayDial = 5 * time.Second
	// relayPacket is the largest datagram.
	relayPacket = 65535
)

// relays carry host ports on loopback addresses. Rules cannot: a packet from
// 127.0.0.1 leaves the machine only with route_localnet, which would open each
// service on the node's loopback to the neighbours. So these few connections,
// which come from the node itself, are carried by hand.
type relays struct {
	ns  *NS
	log *slog.Logger
	// open is used by the loop alone.
	open    map[HostPort]context.CancelFunc
	running sync.WaitGroup
}

// loopbackPorts chooses the host ports that need a relay, with the loopback
// address to listen on: TCP and UDP ports of all addresses or of a loopback one.
// Where both are there, the one that named the address has it.
func loopbackPorts(ports []HostPort) []HostPort {
	var out []HostPort
	named := func(p HostPort) bool {
		return slices.ContainsFunc(ports, func(o HostPort) bool { return o.Host == p.Host && o.Proto == p.Proto && o.Port == p.Port })
	}
	for _, p := range ports {
		if p.Proto != 6 && p.Proto != 17 {
			continue
		}
		wild := p.Host.IsUnspecified()
		switch {
		case wild && p.Host.Is4():
			p.Host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		case wild:
			p.Host = netip.IPv6Loopback()
		case !p.Host.IsLoopback():
			continue
		}
		if !wild || !named(p) {
			out = append(out, p)
		}
	}
	return out
}

// set makes the open relays the wanted ones. A port that something else on the
// node holds is reported and tried again at the next set.
func (r *relays) set(ctx context.Context, want []HostPort) {
	wanted := map[HostPort]struct{}{}
	for _, p := range want {
		wanted[p] = struct{}{}
	}
	for p, cancel := range r.open {
		if _, ok := wanted[p]; !ok {
			cancel()
			delete(r.open, p)
		}
	}
	for p := range wanted {
		if _, ok := r.open[p]; ok {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		var err error
		if p.Proto == 6 {
			err = r.startTCP(ctx, p)
		} else {
			err = r.startUDP(ctx, p)
		}
		if err != nil {
			cancel()
			r.log.Warn("a host port is not reachable on loopback", "port", p.Port, "address", p.Host, "error", err)
			continue
		}
		r.open[p] = cancel
	}
}

// close ends all relays and their connections, and waits for them.
func (r *relays) close() {
	for _, cancel := range r.open {
		cancel()
	}
	r.running.Wait()
}

func (r *relays) startTCP(ctx context.Context, p HostPort) error {
	var l net.Listener
	err := r.ns.Do(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(p.Host, p.Port).String())
		return err
	})
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	slots := make(chan struct{}, relayClients)
	r.running.Go(func() {
		for {
			in, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond): // Out of descriptors, most likely.
				}
				continue
			}
			select {
			case slots <- struct{}{}:
			default:
				_ = in.Close()
				continue
			}
			r.running.Go(func() {
				defer func() { <-slots }()
				r.carryTCP(ctx, in, p.Pod)
			})
		}
	})
	return nil
}

// carryTCP copies both ways until both sides are done.
func (r *relays) carryTCP(ctx context.Context, in net.Conn, pod netip.AddrPort) {
	defer in.Close()
	out, err := r.dial(ctx, "tcp", pod)
	if err != nil {
		return
	}
	defer out.Close()
	stop := context.AfterFunc(ctx, func() { _ = in.Close(); _ = out.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { half(out, in) })
	half(in, out)
	wg.Wait()
}

// half copies one direction and passes its end on.
func half(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	if c, ok := to.(*net.TCPConn); ok {
		_ = c.CloseWrite()
	}
}

// dial connects to a pod from within the node's namespace.
func (r *relays) dial(ctx context.Context, network string, pod netip.AddrPort) (net.Conn, error) {
	var c net.Conn
	err := r.ns.Do(func() (err error) {
		d := net.Dialer{Timeout: relayDial}
		c, err = d.DialContext(ctx, network, pod.String())
		return err
	})
	return c, err
}

func (r *relays) startUDP(ctx context.Context, p HostPort) error {
	var pc net.PacketConn
	err := r.ns.Do(func() (err error) {
		pc, err = net.ListenPacket("udp", netip.AddrPortFrom(p.Host, p.Port).String())
		return err
	})
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = pc.Close() })
	u := &udpRelay{relays: r, conn: pc.(*net.UDPConn), pod: p.Pod, clients: map[netip.AddrPort]net.Conn{}}
	r.running.Go(func() { u.run(ctx) })
	return nil
}

// udpRelay gives each client a socket of its own towards the pod, so that
// answers find their way.
type udpRelay struct {
	relays *relays
	conn   *net.UDPConn
	pod    netip.AddrPort

	mu sync.Mutex
	// clients by their address; guarded by mu.
	clients map[netip.AddrPort]net.Conn
}

func (u *udpRelay) run(ctx context.Context) {
	buf := make([]byte, relayPacket)
	for {
		n, peer, err := u.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		c := u.client(ctx, peer)
		if c == nil {
			continue
		}
		_ = c.SetReadDeadline(time.Now().Add(relayIdle))
		_, _ = c.Write(buf[:n])
	}
}

// client finds or makes a client's socket; nil if there are too many.
func (u *udpRelay) client(ctx context.Context, peer netip.AddrPort) net.Conn {
	u.mu.Lock()
	c, n := u.clients[peer], len(u.clients)
	u.mu.Unlock()
	if c != nil || n >= relayClients {
		return c
	}
	c, err := u.relays.dial(ctx, "udp", u.pod)
	if err != nil {
		return nil
	}
	u.mu.Lock()
	u.clients[peer] = c
	u.mu.Unlock()
	u.relays.running.Go(func() {
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		defer stop()
		u.answers(c, peer)
	})
	return c
}

// answers carries what the pod sends until the client is idle.
func (u *udpRelay) answers(c net.Conn, peer netip.AddrPort) {
	defer func() {
		u.mu.Lock()
		delete(u.clients, peer)
		u.mu.Unlock()
		_ = c.Close()
	}()
	buf := make([]byte, relayPacket)
	_ = c.SetReadDeadline(time.Now().Add(relayIdle))
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		_ = c.SetReadDeadline(time.Now().Add(relayIdle))
		if _, err := u.conn.WriteToUDPAddrPort(buf[:n], peer); err != nil {
			return
		}
	}
}
