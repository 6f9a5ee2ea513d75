package announce

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// arpFrame is an Ethernet header and an ARP packet for IPv4.
	arpFrame   = 14 + 28
	opRequest  = 1
	opReply    = 2
	etherIPv4  = 0x0800
	etherARP   = 0x0806
	hwEthernet = 1
)

// mac is an Ethernet address.
type mac [6]byte

var broadcast = mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// packet is an ARP packet.
type packet struct {
	op       uint16
	sender   netip.Addr
	senderHW mac
	target   netip.Addr
	targetHW mac
}

// frame is p on its way from its sender to one machine, or to all.
func (p *packet) frame(to mac) []byte {
	b := make([]byte, 0, arpFrame)
	b = append(b, to[:]...)
	b = append(b, p.senderHW[:]...)
	for _, v := range []uint16{etherARP, hwEthernet, etherIPv4, 6<<8 | 4, p.op} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	b = append(append(b, p.senderHW[:]...), p.sender.AsSlice()...)
	return append(append(b, p.targetHW[:]...), p.target.AsSlice()...)
}

// parse reads a frame; false means that it is no ARP packet for IPv4.
func parse(b []byte) (packet, bool) {
	if len(b) < arpFrame {
		return packet{}, false
	}
	u16 := func(i int) uint16 { return binary.BigEndian.Uint16(b[i:]) }
	if u16(12) != etherARP || u16(14) != hwEthernet || u16(16) != etherIPv4 || u16(18) != 6<<8|4 {
		return packet{}, false
	}
	return packet{
		op:       u16(20),
		senderHW: mac(b[22:28]), sender: netip.AddrFrom4([4]byte(b[28:32])),
		targetHW: mac(b[32:38]), target: netip.AddrFrom4([4]byte(b[38:42])),
	}, true
}

// gratuitous tells the network that a is at hw now.
func gratuitous(a netip.Addr, hw mac) *packet {
	return &packet{op: opRequest, sender: a, senderHW: hw, target: a}
}

// question asks who has target.
func question(self netip.Addr, hw mac, target netip.Addr) *packet {
	return &packet{op: opRequest, sender: self, senderHW: hw, target: target}
}

// wire sends and receives ARP packets on one link.
type wire struct {
	fd    int
	index int
	hw    mac
}

// openWire opens a link of the namespace that the thread is in.
func openWire(link string) (*wire, error) {
	l, err := net.InterfaceByName(link)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", link, err)
	}
	if len(l.HardwareAddr) != 6 {
		return nil, fmt.Errorf("interface %s is no Ethernet: addresses cannot be announced there", link)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(networkOrder(etherARP)))
	if err != nil {
		return nil, fmt.Errorf("open a packet socket (root is needed): %w", err)
	}
	w := &wire{fd: fd, index: l.Index, hw: mac(l.HardwareAddr)}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(etherARP), Ifindex: l.Index}); err != nil {
		w.close()
		return nil, fmt.Errorf("bind a packet socket to %s: %w", link, err)
	}
	return w, nil
}

func networkOrder(v uint16) uint16 { return v<<8 | v>>8 }

func (w *wire) close() { _ = unix.Close(w.fd) }

func (w *wire) send(p *packet, to mac) error {
	where := &unix.SockaddrLinklayer{Protocol: networkOrder(etherARP), Ifindex: w.index, Halen: 6}
	copy(where.Addr[:], to[:])
	if err := unix.Sendto(w.fd, p.frame(to), 0, where); err != nil {
		return fmt.Errorf("send an ARP packet: %w", err)
	}
	return nil
}

// receive waits for a packet, at most for d; false means that none came that
// could be read.
func (w *wire) receive(d time.Duration) (packet, bool, error) {
	fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(d.Milliseconds()))
	if err == unix.EINTR || err == nil && n == 0 {
		return packet{}, false, nil
	}
	if err != nil {
		return packet{}, false, fmt.Errorf("wait for an ARP packet: %w", err)
	}
	var buf [128]byte
	got, _, err := unix.Recvfrom(w.fd, buf[:], unix.MSG_DONTWAIT)
	if err == unix.EAGAIN || err == unix.EINTR || err == unix.ENETDOWN {
		return packet{}, false, nil
	}
	if err != nil {
		return packet{}, false, fmt.Errorf("receive an ARP packet: %w", err)
	}
	p, ok := parse(buf[:got])
	return p, ok, nil
}

// drain forgets the packets that are there, up to more than a socket holds.
func (w *wire) drain() error {
	var buf [128]byte
	for range 1 << 14 {
		_, _, err := unix.Recvfrom(w.fd, buf[:], unix.MSG_DONTWAIT)
		if err == unix.EAGAIN || err == unix.ENETDOWN {
			return nil
		}
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("receive an ARP packet: %w", err)
		}
	}
	return nil
}
