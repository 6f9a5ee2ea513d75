package dns

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	testclock "k8s.io/utils/clock/testing"
)

// startServer runs a whole server over a fake API and returns its address. It
// returns once the informers watch: the fake has no history.
func startServer(t *testing.T, cfg Config, client *fake.Clientset) string {
	t.Helper()
	watches := make(chan struct{}, 16)
	client.PrependWatchReactor("*", func(a clienttesting.Action) (bool, watch.Interface, error) {
		w, err := client.Tracker().Watch(a.GetResource(), a.GetNamespace())
		watches <- struct{}{}
		return true, w, err
	})
	factory := informers.NewSharedInformerFactory(client, 0)
	cfg.Informers, cfg.Listen = factory, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	cfg.ServiceCIDRs, cfg.PodCIDRs = prefixes("10.96.0.0/16"), prefixes("10.244.0.0/16")
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	factory.Start(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		factory.Shutdown()
	})
	want := 3
	if cfg.VerifyPods {
		want = 4
	}
	deadline := time.After(10 * time.Second)
	for range want {
		select {
		case <-watches:
		case <-deadline:
			t.Fatal("informers do not watch after 10 s")
		}
	}
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatalf("Run ended: %v", err)
	case <-deadline:
		t.Fatal("not ready after 10 s")
	}
	return s.Addrs()[0].String()
}

func exchange(t *testing.T, network, addr, name string, kind uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, kind)
	c := dns.Client{Net: network, Timeout: 5 * time.Second}
	in, _, err := c.Exchange(m, addr)
	if err != nil {
		t.Fatalf("%s %s over %s: %v", name, dns.TypeToString[kind], network, err)
	}
	return in
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after 10 s", what)
		}
	}
}

func TestServerFollowsTheCluster(t *testing.T) {
	web := service("default", "web", "10.96.1.1")
	client := fake.NewClientset(web, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	addr := startServer(t, Config{VerifyPods: true}, client)
	const name = "web.default.svc.cluster.local."
	for _, network := range []string{"udp", "tcp"} {
		if got := short(exchange(t, network, addr, name, dns.TypeA)); got != "NOERROR aa A 10.96.1.1" {
			t.Errorf("over %s: %s", network, got)
		}
	}
	becomes := func(name, want string) {
		t.Helper()
		eventually(t, name+" is "+want, func() bool { return short(exchange(t, "udp", addr, name, dns.TypeA)) == want })
	}
	ctx := t.Context()
	services := client.CoreV1().Services("default")

	// A Service changes its type both ways.
	if _, err := services.Update(ctx, external("default", "web", "other.example"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	becomes(name, "NXDOMAIN aa CNAME other.example. [SOA of .]")
	if _, err := services.Update(ctx, service("default", "web", "10.96.1.2"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	becomes(name, "NOERROR aa A 10.96.1.2")

	// A headless Service and its endpoints come, move and go.
	if _, err := services.Create(ctx, service("default", "db", corev1.ClusterIPNone), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	slice := endpoints("p", 1, discoveryv1.Endpoint{Addresses: []string{"10.244.0.9"}})
	slice.ObjectMeta = metav1.ObjectMeta{Namespace: "default", Name: "db-1", Labels: map[string]string{discoveryv1.LabelServiceName: "db"}}
	slices := client.DiscoveryV1().EndpointSlices("default")
	if _, err := slices.Create(ctx, slice, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	becomes("db.default.svc.cluster.local.", "NOERROR aa A 10.244.0.9")
	slice = slice.DeepCopy()
	slice.Labels[discoveryv1.LabelServiceName] = "other"
	if _, err := slices.Update(ctx, slice, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	becomes("db.default.svc.cluster.local.", "NXDOMAIN aa [SOA of cluster.local.]")

	// Pods have names while they run.
	pods := client.CoreV1().Pods("default")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.244.0.7"}}}}
	if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	becomes("10-244-0-7.default.pod.cluster.local.", "NOERROR aa A 10.244.0.7")
	if err := pods.Delete(ctx, "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	becomes("10-244-0-7.default.pod.cluster.local.", "NXDOMAIN aa [SOA of cluster.local.]")
}

func TestTCPManyQueriesOneConnection(t *testing.T) {
	addr := startServer(t, Config{}, fake.NewClientset(service("default", "web", "10.96.1.1")))
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	c := &dns.Conn{Conn: conn}
	for i := range 20 {
		m := new(dns.Msg)
		m.SetQuestion("web.default.svc.cluster.local.", dns.TypeA)
		if err := c.WriteMsg(m); err != nil {
			t.Fatalf("query %d: %v", i, err)
		}
	}
	for i := range 20 {
		if _, err := c.ReadMsg(); err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
	}
	// A length that no query has ends the connection.
	if _, err := conn.Write(binary.BigEndian.AppendUint16(nil, 60000)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after an absurd length: %v, want the connection closed", err)
	}
}

// upstream is a name server outside the cluster.
type upstream struct {
	addr    netip.AddrPort
	queries atomic.Int64
	// hold, if not nil, keeps answers back until it is closed.
	hold chan struct{}
}

func startUpstream(t *testing.T, hold chan struct{}) *upstream {
	t.Helper()
	u := &upstream{hold: hold}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.addr = pc.LocalAddr().(*net.UDPAddr).AddrPort()
	srv := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		u.queries.Add(1)
		if u.hold != nil {
			<-u.hold
		}
		m := new(dns.Msg)
		m.SetReply(q)
		if q.Question[0].Name == "www.example.com." {
			rr, err := dns.NewRR("www.example.com. 60 IN A 192.0.2.80")
			if err != nil {
				panic(err)
			}
			m.Answer = []dns.RR{rr}
		} else {
			m.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = srv.ActivateAndServe() }()
	t.Cleanup(func() { _ = srv.Shutdown() })
	return u
}

func TestForward(t *testing.T) {
	up := startUpstream(t, nil)
	clk := testclock.NewFakePassiveClock(time.Unix(1000, 0))
	dead := netip.MustParseAddrPort("127.0.0.1:9") // refuses at once
	addr := startServer(t, Config{Forward: []netip.AddrPort{dead, up.addr}, Clock: clk}, fake.NewClientset(
		external("default", "away", "www.example.com"), service("default", "web", "10.96.1.1")))
	for _, network := range []string{"udp", "tcp"} {
		for _, tt := range []struct{ name, want string }{
			{"www.example.com.", "NOERROR A 192.0.2.80"},
			{"WWW.example.com.", "NOERROR A 192.0.2.80"},
			{"away.default.svc.cluster.local.", "NOERROR A 192.0.2.80 CNAME www.example.com."},
			{"nothing.example.com.", "NXDOMAIN"},
			{"gone.default.svc.cluster.local.", "NXDOMAIN aa [SOA of cluster.local.]"},
		} {
			if got := short(exchange(t, network, addr, tt.name, dns.TypeA)); got != tt.want {
				t.Errorf("%s over %s: got %s, want %s", tt.name, network, got, tt.want)
			}
		}
	}
	if n := up.queries.Load(); n != 2 {
		t.Errorf("the upstream server was asked %d times, want 2: one per outside name", n)
	}
	clk.SetTime(clk.Now().Add(20 * time.Second))
	if got := exchange(t, "udp", addr, "www.example.com.", dns.TypeA).Answer[0].Header().Ttl; got != 40 {
		t.Errorf("time to live after 20 s: %d, want 40", got)
	}
	clk.SetTime(clk.Now().Add(41 * time.Second))
	exchange(t, "udp", addr, "www.example.com.", dns.TypeA)
	if n := up.queries.Load(); n != 3 {
		t.Errorf("after expiry the upstream server was asked %d times in all, want 3", n)
	}
}

func TestForwardIsBounded(t *testing.T) {
	f := newForwarder([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}, testclock.NewFakePassiveClock(time.Unix(0, 0)))
	for range maxForwards {
		f.slots <- struct{}{}
	}
	r := NewResponder(testZone(t), true)
	m := new(dns.Msg)
	m.SetQuestion("example.com.", dns.TypeA)
	query, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	out, outcome := r.Answer(nil, query, true, 0)
	if outcome != Forward {
		t.Fatalf("outcome %d, want Forward", outcome)
	}
	var wg sync.WaitGroup
	var reply []byte
	f.start(t.Context(), &wg, r, out, func(b []byte) { reply = b })
	wg.Wait()
	var in dns.Msg
	if err := in.Unpack(reply); err != nil || in.Rcode != dns.RcodeServerFailure {
		t.Errorf("over the bound: %v, %v; want SERVFAIL", &in, err)
	}
	for i := range cacheEntries + 10 {
		f.store(question{name: fmt.Sprint(i)}, &dns.Msg{Ns: []dns.RR{&dns.NULL{Hdr: dns.RR_Header{Ttl: 60}}}})
	}
	if n := len(f.cache); n > cacheEntries {
		t.Errorf("cache holds %d answers, more than %d", n, cacheEntries)
	}
}

func TestAnswersWhileUpstreamHangs(t *testing.T) {
	hold := make(chan struct{})
	up := startUpstream(t, hold)
	defer close(hold)
	addr := startServer(t, Config{Forward: []netip.AddrPort{up.addr}, Workers: 1}, fake.NewClientset(service("default", "web", "10.96.1.1")))
	conn, err := dns.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	m := new(dns.Msg)
	m.SetQuestion("slow.example.com.", dns.TypeA)
	if err := conn.WriteMsg(m); err != nil {
		t.Fatal(err)
	}
	eventually(t, "query at upstream", func() bool { return up.queries.Load() > 0 })
	if got := short(exchange(t, "udp", addr, "web.default.svc.cluster.local.", dns.TypeA)); got != "NOERROR aa A 10.96.1.1" {
		t.Errorf("cluster name while an upstream hangs: %s", got)
	}
}

// benchLoad is a client that keeps a window of queries under way, so that the
// server and not the round trip is measured.
func benchLoad(b *testing.B, addr string) {
	b.Helper()
	m := new(dns.Msg)
	m.SetQuestion("web.default.svc.cluster.local.", dns.TypeA)
	m.SetEdns0(1232, false)
	query, err := m.Pack()
	if err != nil {
		b.Fatal(err)
	}
	conn, err := net.Dial("udp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	const window = 64
	buf := make([]byte, 2048)
	sent, got := 0, 0
	b.ResetTimer()
	for got < b.N {
		for sent < b.N && sent-got < window {
			if _, err := conn.Write(query); err != nil {
				b.Fatal(err)
			}
			sent++
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := conn.Read(buf); err != nil {
			b.Fatalf("after %d answers: %v", got, err)
		}
		got++
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "queries/s")
}

// BenchmarkUDP compares the server with a loop that sends each packet back.
func BenchmarkUDP(b *testing.B) {
	b.Run("echo", func(b *testing.B) {
		pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			b.Fatal(err)
		}
		defer pc.Close()
		for range 2 {
			go func() {
				buf := make([]byte, 2048)
				for {
					n, peer, err := pc.ReadFromUDPAddrPort(buf)
					if err != nil {
						return
					}
					_, _ = pc.WriteToUDPAddrPort(buf[:n], peer)
				}
			}()
		}
		benchLoad(b, pc.LocalAddr().String())
	})
	b.Run("dns", func(b *testing.B) {
		ctx, cancel := context.WithCancel(context.Background())
		l, err := listen(ctx, netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			b.Fatal(err)
		}
		s := &server{zone: benchZone(b), seed: func() uint64 { return 1 }, workers: 2, log: slog.New(slog.DiscardHandler)}
		var wg sync.WaitGroup
		wg.Go(func() { s.serve(ctx, l) })
		defer wg.Wait()
		defer cancel()
		benchLoad(b, l.udp.LocalAddr().String())
	})
}

// benchZone holds 10,000 services.
func benchZone(b *testing.B) *Zone {
	b.Helper()
	z := testZone(b)
	for i := range 10_000 {
		svc := service("default", fmt.Sprintf("s%d", i), fmt.Sprintf("10.96.%d.%d", 10+i/250, i%250), corev1.ServicePort{Name: "http", Port: 80})
		z.Set("svc "+svc.Name, Records(svc, nil, z.Domain()))
	}
	return z
}

// BenchmarkAnswer is the work between the sockets; it must not allocate.
func BenchmarkAnswer(b *testing.B) {
	z := benchZone(b)
	for _, name := range []string{"web.default.svc.cluster.local.", "none.default.svc.cluster.local.", "10-244-1-1.default.pod.cluster.local.", "1.1.96.10.in-addr.arpa.", "example.com."} {
		b.Run(name, func(b *testing.B) {
			m := new(dns.Msg)
			m.SetQuestion(name, dns.TypeA)
			query, err := m.Pack()
			if err != nil {
				b.Fatal(err)
			}
			r, out := NewResponder(z, false), make([]byte, 0, 1500)
			b.ReportAllocs()
			for b.Loop() {
				r.Answer(out, query, true, 1)
			}
		})
	}
}

func TestAnswerDoesNotAllocate(t *testing.T) {
	r, out := NewResponder(testZone(t), false), make([]byte, 0, 1500)
	for _, name := range []string{"web.default.svc.cluster.local.", "none.default.svc.cluster.local.", "alias.default.svc.cluster.local.", "10-244-1-1.default.pod.cluster.local.", "1.1.96.10.in-addr.arpa.", "example.com."} {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeA)
		query, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { r.Answer(out, query, true, 1) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
