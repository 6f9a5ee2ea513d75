package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
)

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
