package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"coracle/pkg/network"
)

// lab is a node with a pod bridge, pods on it, and a client outside:
//
//	client 192.168.7.2 -- 192.168.7.1 node 10.244.0.1 (bridge) -- pods 10.244.0.2, .3, ...
type lab struct {
	t    *testing.T
	dir  string
	node *network.NS
	ns   map[string]*network.NS
}

const (
	labNode   = "192.168.7.1"
	labClient = "192.168.7.2"
)

func newLab(t *testing.T, pods int) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	l := &lab{t: t, dir: t.TempDir(), ns: map[string]*network.NS{}}
	l.node = l.add("node")
	client := l.add("client")
	l.must(network.EnsureVeth(network.VethEnd{NS: l.node, Name: "eth0"}, network.VethEnd{NS: client, Name: "eth0"}, 0))
	l.must(l.node.EnsureAddr("eth0", netip.MustParsePrefix(labNode+"/24")))
	l.must(client.EnsureAddr("eth0", netip.MustParsePrefix(labClient+"/24")))
	l.must(client.EnsureRoute(network.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr(labNode)}))
	l.must(l.node.EnsureRoute(network.Route{Dst: netip.MustParsePrefix("10.96.0.0/16"), Link: "eth0", Src: netip.MustParseAddr(labNode)}))
	l.must(l.node.EnsureBridge("cni0", 0))
	l.must(l.node.EnsureAddr("cni0", netip.MustParsePrefix("10.244.0.1/24")))
	l.must(l.node.Do(func() error {
		return errors.Join(
			os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644),
			os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("1"), 0o644),
		)
	}))
	for i := range pods {
		name := fmt.Sprintf("pod%d", i)
		pod := l.add(name)
		l.must(network.EnsureVeth(network.VethEnd{NS: l.node, Name: name}, network.VethEnd{NS: pod, Name: "eth0"}, 0))
		l.must(l.node.SetMaster(name, "cni0"))
		l.must(l.node.SetHairpin(name))
		l.must(pod.EnsureAddr("eth0", netip.PrefixFrom(podAddr(i), 24)))
		l.must(pod.EnsureRoute(network.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.244.0.1")}))
	}
	return l
}

func podAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 244, 0, byte(2 + i)}) }

func (l *lab) add(name string) *network.NS {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	ns, err := network.CreateNS(path)
	l.must(err)
	l.t.Cleanup(func() {
		ns.Close()
		if err := network.DeleteNS(path); err != nil {
			l.t.Error(err)
		}
	})
	l.must(ns.SetUp("lo"))
	l.ns[name] = ns
	return ns
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// serve answers each line or datagram on a pod's port with "podN peer".
func (l *lab) serve(pod int, port uint16) {
	l.t.Helper()
	name := fmt.Sprintf("pod%d", pod)
	addr := netip.AddrPortFrom(podAddr(pod), port).String()
	var tcp net.Listener
	var udp net.PacketConn
	l.must(l.ns[name].Do(func() (err error) {
		if tcp, err = net.Listen("tcp", addr); err != nil {
			return err
		}
		udp, err = net.ListenPacket("udp", addr)
		return err
	}))
	l.t.Cleanup(func() { tcp.Close(); udp.Close() })
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					if _, err := r.ReadString('\n'); err != nil {
						return
					}
					fmt.Fprintf(c, "%s %s\n", name, c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())
				}
			}()
		}
	}()
	go func() {
		buf := make([]byte, 512)
		for {
			_, peer, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo([]byte(name+" "+peer.(*net.UDPAddr).AddrPort().Addr().Unmap().String()+"\n"), peer)
		}
	}()
}

// dial connects from a namespace, from any port or a chosen one.
func (l *lab) dial(from, proto, to string, localPort int) (net.Conn, error) {
	var c net.Conn
	err := l.ns[from].Do(func() (err error) {
		d := net.Dialer{Timeout: 2 * time.Second}
		if localPort != 0 && proto == "udp" {
			d.LocalAddr = &net.UDPAddr{Port: localPort}
		}
		c, err = d.DialContext(context.Background(), proto, to)
		return err
	})
	if err == nil {
		l.t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// say sends a line and returns the answer's pod and peer.
func say(c net.Conn) (pod, peer string, err error) {
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return "", "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return "", "", err
	}
	f := strings.Fields(line)
	return f[0], f[1], nil
}

// ask makes one connection and returns what it was told.
func (l *lab) ask(from, proto, to string) (pod, peer string, err error) {
	c, err := l.dial(from, proto, to, 0)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	return say(c)
}

// answers counts which pods answer n connections.
func (l *lab) answers(from, proto, to string, n int) map[string]int {
	l.t.Helper()
	out := map[string]int{}
	for range n {
		pod, _, err := l.ask(from, proto, to)
		if err != nil {
			l.t.Fatalf("%s from %s to %s: %v", proto, from, to, err)
		}
		out[pod]++
	}
	return out
}
