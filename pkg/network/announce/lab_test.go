package announce

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"coracle/pkg/network"
)

const limit = 30 * time.Second

// lab is three machines on one bridge: two nodes that announce, and one that
// asks who has an address.
type lab struct {
	t      *testing.T
	bridge *network.NS
	ns     map[string]*network.NS
	asker  *wire
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func newLab(t *testing.T) *lab {
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	l := &lab{t: t, ns: map[string]*network.NS{}}
	dir := t.TempDir()
	add := func(name string) *network.NS {
		path := filepath.Join(dir, name)
		ns, err := network.CreateNS(path)
		l.must(err)
		t.Cleanup(func() {
			ns.Close()
			if err := network.DeleteNS(path); err != nil {
				t.Error(err)
			}
		})
		return ns
	}
	l.bridge = add("bridge")
	l.must(l.bridge.EnsureBridge("br0", 0))
	for i, name := range []string{"n11", "n12", "asker"} {
		ns := add(name)
		l.ns[name] = ns
		l.must(network.EnsureVeth(network.VethEnd{NS: l.bridge, Name: name}, network.VethEnd{NS: ns, Name: "eth0"}, 0))
		l.must(l.bridge.SetMaster(name, "br0"))
		l.must(ns.EnsureAddr("eth0", netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 89, 0, byte(11 + i)}), 24)))
	}
	l.must(l.ns["asker"].Do(func() (err error) {
		l.asker, err = openWire("eth0")
		return err
	}))
	t.Cleanup(l.asker.close)
	return l
}

// run starts the announcer of a node until the returned function.
func (l *lab) run(name string, client *fake.Clientset) (stop func()) {
	factory := informers.NewSharedInformerFactory(client, 0)
	a, err := New(Config{NodeName: name, NodeIP: netip.MustParseAddr("10.89.0." + name[1:]), Pool: pool, Informers: factory, NS: l.ns[name]})
	l.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	factory.StartWithContext(ctx)
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Error(err)
		}
		factory.Shutdown()
	}
}

// holders are the nodes that have an address.
func (l *lab) holders(a netip.Addr) (out []string) {
	l.t.Helper()
	for name, ns := range l.ns {
		all, err := ns.Addrs()
		l.must(err)
		if slices.Contains(all, netip.PrefixFrom(a, 32)) {
			out = append(out, name)
		}
	}
	return out
}

// answers are the machines that answer the question who has a.
func (l *lab) answers(a netip.Addr) []mac {
	l.t.Helper()
	l.must(l.asker.send(question(netip.MustParseAddr("10.89.0.13"), l.asker.hw, a), broadcast))
	var out []mac
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
		p, ok, err := l.asker.receive(time.Until(end))
		l.must(err)
		if ok && p.op == opReply && p.sender == a && !slices.Contains(out, p.senderHW) {
			out = append(out, p.senderHW)
		}
	}
	return out
}

func (l *lab) hw(name string) mac {
	l.t.Helper()
	var w *wire
	l.must(l.ns[name].Do(func() (err error) {
		w, err = openWire("eth0")
		return err
	}))
	defer w.close()
	return w.hw
}

// flood has a node answer more often than its deputy asks, once that knows
// where the node is and asks it directly.
func (l *lab) flood(name string, deputy, a netip.Addr) {
	l.t.Helper()
	var w *wire
	l.must(l.ns[name].Do(func() (err error) {
		w, err = openWire("eth0")
		return err
	}))
	defer w.close()
	l.eventually("the deputy asks", func() error {
		p, ok, err := w.receive(time.Second)
		if err == nil && (!ok || p.op != opRequest || p.sender != deputy || p.target != a) {
			err = fmt.Errorf("heard %+v", p)
		}
		return err
	})
	for range 100 {
		l.must(w.send(&packet{op: opReply, sender: a, senderHW: w.hw, target: a}, broadcast))
	}
}

// wantAnswer waits until exactly the named nodes answer for an address.
func (l *lab) wantAnswer(what string, a netip.Addr, names ...string) {
	l.t.Helper()
	var want []mac
	for _, n := range names {
		want = append(want, l.hw(n))
	}
	l.eventually(what, func() error {
		if got := l.answers(a); !slices.Equal(got, want) {
			return fmt.Errorf("%s is answered by %v, want %v", a, got, want)
		}
		return nil
	})
}

func (l *lab) eventually(what string, check func() error) {
	l.t.Helper()
	end := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			l.t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestOneNodeAnswersAndTheOtherTakesOver(t *testing.T) {
	l := newLab(t)
	address := netip.MustParseAddr("10.89.0.130")
	client := fake.NewClientset(node("n11"), node("n12"), balancer("a", address.String()))
	order := rank(address, candidates([]*corev1.Node{node("n11"), node("n12")}))
	first, second := order[0].name, order[1].name
	for _, name := range []string{first, second} {
		stop := l.run(name, client)
		defer stop()
	}
	l.wantAnswer("the first node answers, alone", address, first)
	// Answers to nobody's question do not make a node look alive that is not.
	l.flood(first, netip.MustParseAddr("10.89.0."+second[1:]), address)
	// The address of an earlier life is taken away.
	l.must(l.ns[second].EnsureAddr("eth0", netip.MustParsePrefix("10.89.0.131/32")))
	l.must(l.bridge.SetDown(first))
	l.wantAnswer("the deputy takes over when the first is cut off", address, second)
	if got := l.holders(netip.MustParseAddr("10.89.0.131")); len(got) != 0 {
		t.Errorf("%v have an address that no service has", got)
	}
	l.must(l.bridge.SetUp(first))
	l.wantAnswer("the first has it again, alone", address, first)
	if err := client.Tracker().Update(corev1.SchemeGroupVersion.WithResource("nodes"), node(first, unknown), ""); err != nil {
		t.Fatal(err)
	}
	l.wantAnswer("a node that is not ready gives it up", address, second)
	if err := client.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("services"), "ns", "a"); err != nil {
		t.Fatal(err)
	}
	l.wantAnswer("nobody answers for what no service has", address)
}
