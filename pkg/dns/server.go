package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tcpIdle is how long a TCP client may stay silent.
	tcpIdle = 10 * time.Second
	// tcpWrite bounds writing one answer to it.
	tcpWrite = 5 * time.Second
	// maxConns bounds the TCP clients at once; more are turned away.
	maxConns = 256
	// maxUDP is the largest query read over UDP; more is cut, and then wrong.
	maxUDP = 4096
	// socketBuffer takes bursts of queries while the readers are busy, bytes.
	socketBuffer = 1 << 20
)

// listener is the sockets of one address.
type listener struct {
	udp *net.UDPConn
	tcp *net.TCPListener
}

// listen opens UDP and TCP on an address, which need not be on an interface
// yet: the pod network may put it there later. Port 0 takes a free one, the
// same for both.
func listen(ctx context.Context, addr netip.AddrPort) (*listener, error) {
	lc := net.ListenConfig{Control: freeBind}
	tcp, err := lc.Listen(ctx, "tcp", addr.String())
	if err != nil {
		return nil, fmt.Errorf("listen for DNS on tcp %s: %w", addr, err)
	}
	udp, err := lc.ListenPacket(ctx, "udp", tcp.Addr().String())
	if err != nil {
		_ = tcp.Close()
		return nil, fmt.Errorf("listen for DNS on udp %s: %w", addr, err)
	}
	l := &listener{udp: udp.(*net.UDPConn), tcp: tcp.(*net.TCPListener)}
	if err := errors.Join(l.udp.SetReadBuffer(socketBuffer), l.udp.SetWriteBuffer(socketBuffer)); err != nil {
		return nil, errors.Join(fmt.Errorf("size the DNS socket's buffers: %w", err), l.close())
	}
	return l, nil
}

func (l *listener) close() error { return errors.Join(l.udp.Close(), l.tcp.Close()) }

// freeBind allows binding an address that no interface has.
func freeBind(network, _ string, c syscall.RawConn) error {
	var err error
	ctl := c.Control(func(fd uintptr) {
		if network[len(network)-1] == '6' {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
			return
		}
		err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
	})
	return errors.Join(ctl, err)
}

// server moves messages between sockets, zone and forwarder.
type server struct {
	zone    *Zone
	forward *forwarder // nil: closed
	seed    func() uint64
	workers int
	log     *slog.Logger
}

// serve answers on a listener until ctx ends, and closes it.
func (s *server) serve(ctx context.Context, l *listener) {
	var wg sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { _ = l.close() })
	defer stop()
	for range s.workers {
		wg.Go(func() { s.serveUDP(ctx, l.udp, &wg) })
	}
	wg.Go(func() { s.serveTCP(ctx, l.tcp, &wg) })
	wg.Wait()
}

// serveUDP is one reader; what it answers itself it answers before it reads
// the next query, so memory does not grow with load.
func (s *server) serveUDP(ctx context.Context, conn *net.UDPConn, wg *sync.WaitGroup) {
	r := NewResponder(s.zone, s.forward != nil)
	random := rand.NewPCG(s.seed(), s.seed())
	query, answer := make([]byte, maxUDP), make([]byte, 0, maxUDP)
	for {
		n, peer, err := conn.ReadFromUDPAddrPort(query)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			continue // An ICMP error of an earlier answer.
		}
		out, outcome := r.Answer(answer, query[:n], true, uint32(random.Uint64()))
		switch outcome {
		case Done:
			_, _ = conn.WriteToUDPAddrPort(out, peer)
		case Forward:
			s.forward.start(ctx, wg, r, out, func(reply []byte) { _, _ = conn.WriteToUDPAddrPort(reply, peer) })
		}
	}
}

func (s *server) serveTCP(ctx context.Context, l *net.TCPListener, wg *sync.WaitGroup) {
	slots := make(chan struct{}, maxConns)
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			s.log.Warn("could not accept a DNS connection", "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond): // Out of descriptors, most likely.
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			defer conn.Close()
			s.serveConn(ctx, conn)
		})
	}
}

// serveConn answers one TCP client's queries in order.
func (s *server) serveConn(ctx context.Context, conn net.Conn) {
	r := NewResponder(s.zone, s.forward != nil)
	random := rand.NewPCG(s.seed(), s.seed())
	var length [2]byte
	var query []byte
	for {
		if err := conn.SetReadDeadline(time.Now().Add(tcpIdle)); err != nil {
			return
		}
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(length[:]))
		if n > maxUDP {
			return // No query is that long.
		}
		query = append(query[:0], make([]byte, n)...)
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		out, outcome := r.Answer(nil, query, false, uint32(random.Uint64()))
		switch outcome {
		case Drop:
			return
		case Forward:
			target, kind := r.Target()
			out = s.forward.resolve(ctx, out, string(target), kind, maxTCP)
		}
		if err := conn.SetWriteDeadline(time.Now().Add(tcpWrite)); err != nil {
			return
		}
		framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(out)), uint16(len(out)))
		if _, err := conn.Write(append(framed, out...)); err != nil {
			return
		}
	}
}
