package network

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// pluginDir is where Debian has the CNI plugins.
const pluginDir = "/usr/lib/cni"

// cluster is nodes on one bridge, with a machine outside the cluster beside
// them:
//
//	n1 192.168.7.1, n2 192.168.7.2, outside 192.168.7.200
type cluster struct {
	t      *testing.T
	dir    string
	bridge *NS
	ns     map[string]*NS
	client *fake.Clientset
	// watching gets a value for each watch that the fake API serves.
	watching chan struct{}
}

func newCluster(t *testing.T, objects ...*corev1.Pod) *cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	if _, err := os.Stat(filepath.Join(pluginDir, "bridge")); err != nil {
		t.Fatalf("this test runs the CNI plugins: install containernetworking-plugins: %v", err)
	}
	c := &cluster{t: t, dir: t.TempDir(), ns: map[string]*NS{}, client: fake.NewClientset(), watching: make(chan struct{}, 64)}
	c.client.PrependWatchReactor("*", func(a clienttesting.Action) (bool, watch.Interface, error) {
		w, err := c.client.Tracker().Watch(a.GetResource(), a.GetNamespace())
		c.watching <- struct{}{}
		return true, w, err
	})
	for _, p := range objects {
		c.must(c.client.Tracker().Add(p))
	}
	c.bridge = c.add("bridge")
	c.must(c.bridge.EnsureBridge("br0", 1400))
	for i, name := range []string{"n1", "n2", "outside"} {
		ip := fmt.Sprintf("192.168.7.%d/24", map[string]int{"n1": 1, "n2": 2, "outside": 200}[name])
		ns := c.add(name)
		port := fmt.Sprintf("port%d", i)
		c.must(EnsureVeth(VethEnd{c.bridge, port}, VethEnd{ns, "eth0"}, 1400))
		c.must(c.bridge.SetMaster(port, "br0"))
		c.must(ns.EnsureAddr("eth0", prefix(ip)))
	}
	return c
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) add(name string) *NS {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	ns, err := CreateNS(path)
	c.must(err)
	c.t.Cleanup(func() {
		ns.Close()
		if err := DeleteNS(path); err != nil {
			c.t.Error(err)
		}
	})
	c.must(ns.SetUp("lo"))
	c.ns[name] = ns
	return ns
}

func (c *cluster) cniDir(node string) string { return filepath.Join(c.dir, "cni-"+node) }

// run starts the role on a node and returns a function that stops it.
func (c *cluster) run(node string) (stop func()) {
	c.t.Helper()
	factory := informers.NewSharedInformerFactory(c.client, 0)
	pods := informers.NewSharedInformerFactory(c.client, 0)
	n, err := New(Config{
		NodeName: node, Informers: factory, Pods: pods.Core().V1().Pods().Informer(), NS: c.ns[node],
		Ranges:    Ranges{Pods: []netip.Prefix{prefix("10.244.0.0/16")}, Services: []netip.Prefix{prefix("10.96.0.0/16")}},
		LocalVIPs: []netip.Addr{addr("10.96.0.10")}, CNIDir: c.cniDir(node), Interval: 50 * time.Millisecond,
	})
	c.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	factory.Start(ctx.Done())
	pods.Start(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Errorf("Run: %v", err)
		}
		factory.Shutdown()
		pods.Shutdown()
	})
	c.t.Cleanup(stop)
	for range 2 {
		select {
		case <-c.watching:
		case <-time.After(10 * time.Second):
			c.t.Fatal("informers do not watch after 10 s")
		}
	}
	return stop
}

func (c *cluster) eventually(what string, ok func() error) {
	c.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: %v", what, err)
		}
	}
}

// cniAdd makes a pod with the plugin, as a runtime does, from the configuration
// that the role wrote, and returns its address.
func (c *cluster) cniAdd(node, pod string) string {
	c.t.Helper()
	c.add(pod)
	raw, err := os.ReadFile(filepath.Join(c.cniDir(node), ConfFile))
	c.must(err)
	var list struct {
		CNIVersion string           `json:"cniVersion"`
		Name       string           `json:"name"`
		Plugins    []map[string]any `json:"plugins"`
	}
	c.must(json.Unmarshal(raw, &list))
	conf := list.Plugins[0]
	conf["cniVersion"], conf["name"] = list.CNIVersion, list.Name
	conf["ipam"].(map[string]any)["dataDir"] = filepath.Join(c.dir, "ipam-"+node)
	in, err := json.Marshal(conf)
	c.must(err)
	var out bytes.Buffer
	c.must(c.ns[node].Do(func() error {
		cmd := exec.Command(filepath.Join(pluginDir, "bridge"))
		cmd.Env = []string{
			"CNI_COMMAND=ADD", "CNI_CONTAINERID=" + pod, "CNI_NETNS=" + filepath.Join(c.dir, pod),
			"CNI_IFNAME=eth0", "CNI_PATH=" + pluginDir, "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("bridge plugin: %w: %s", err, out.Bytes())
		}
		return nil
	}))
	var result struct {
		IPs []struct {
			Address string `json:"address"`
		} `json:"ips"`
	}
	c.must(json.Unmarshal(out.Bytes(), &result))
	p, err := netip.ParsePrefix(result.IPs[0].Address)
	c.must(err)
	return p.Addr().String()
}

// serve answers each connection and datagram with the server's name and the
// peer's address.
func (c *cluster) serve(ns, at string) {
	c.t.Helper()
	var l net.Listener
	var pc net.PacketConn
	c.must(c.ns[ns].Do(func() (err error) {
		if l, err = net.Listen("tcp", at); err != nil {
			return err
		}
		pc, err = net.ListenPacket("udp", at)
		return err
	}))
	c.t.Cleanup(func() { l.Close(); pc.Close() })
	reply := func(peer net.Addr) []byte {
		ap, _ := netip.ParseAddrPort(peer.String())
		return []byte(ns + " saw " + ap.Addr().Unmap().String())
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write(reply(conn.RemoteAddr()))
			conn.Close()
		}
	}()
	go func() {
		buf := make([]byte, 64)
		for {
			_, peer, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(reply(peer), peer)
		}
	}()
}

// ask connects and returns what the server says.
func (c *cluster) ask(from, network, to string) (string, error) {
	var conn net.Conn
	err := c.ns[from].Do(func() (err error) {
		conn, err = net.DialTimeout(network, to, 2*time.Second)
		return err
	})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if network == "udp" {
		if _, err := conn.Write([]byte("x")); err != nil {
			return "", err
		}
		buf := make([]byte, 128)
		n, err := conn.Read(buf)
		return string(buf[:n]), err
	}
	b, err := io.ReadAll(conn)
	return string(b), err
}

func (c *cluster) expect(from, network, to, want string) {
	c.t.Helper()
	if got, err := c.ask(from, network, to); err != nil || got != want {
		c.t.Errorf("%s from %s to %s: %q, %v; want %q", network, from, to, got, err, want)
	}
}

func (c *cluster) hasConf(node string) error {
	_, err := os.Stat(filepath.Join(c.cniDir(node), ConfFile))
	return err
}

// twoNodes is a cluster of two running nodes with a pod on each.
func twoNodes(t *testing.T, pods ...*corev1.Pod) (c *cluster, pod1, pod2 string) {
	t.Helper()
	c = newCluster(t, pods...)
	for _, n := range []*corev1.Node{testNode("n1", "192.168.7.1", "10.244.1.0/24"), testNode("n2", "192.168.7.2", "10.244.2.0/24")} {
		c.must(c.client.Tracker().Add(n))
	}
	c.run("n1")
	c.run("n2")
	for _, n := range []string{"n1", "n2"} {
		c.eventually("CNI configuration of "+n, func() error { return c.hasConf(n) })
	}
	pod1, pod2 = c.cniAdd("n1", "pod1"), c.cniAdd("n2", "pod2")
	c.serve("pod1", pod1+":8080")
	c.serve("pod2", pod2+":8080")
	return c, pod1, pod2
}
