package dns

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"k8s.io/client-go/kubernetes/fake"
	testclock "k8s.io/utils/clock/testing"
)

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
