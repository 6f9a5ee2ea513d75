package dns

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

func TestHostileNames(t *testing.T) {
	long := strings.Repeat("x", 64)
	for _, svc := range []*corev1.Service{
		service("ns", long, "10.96.1.1"), service("ns", "", "10.96.1.1"), external("ns", "x", long+".com"),
		external("ns", "x", "a..b"), external("ns", "x", strings.Repeat("abc.", 80)),
	} {
		for _, rec := range Records(svc, nil, "\x05local\x00") {
			if len(rec.Name) > maxName || rec.Type == TypeCNAME {
				t.Errorf("%q: record %+v", svc.Name, rec)
			}
		}
	}
	// A label whose text looks like the end of the domain is not the domain.
	r := NewResponder(testZone(t), false)
	if m, _ := ask(t, r, `x\007cluster\005local.`, dns.TypeA, true); short(m) != "NXDOMAIN [SOA of .]" {
		t.Errorf("a label that looks like the domain: %s", short(m))
	}
}

// FuzzAnswer feeds any bytes: the answer must decode, keep the id, stay in the
// size limit and say it is a response.
func FuzzAnswer(f *testing.F) {
	z := testZone(f)
	for _, name := range []string{"web.default.svc.cluster.local.", "1.1.96.10.in-addr.arpa.", "example.com.", "10-244-3-4.default.pod.cluster.local."} {
		for _, edns := range []bool{false, true} {
			m := new(dns.Msg)
			m.SetQuestion(name, dns.TypeSRV)
			if edns {
				m.SetEdns0(700, true)
			}
			b, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, true)
		}
	}
	f.Fuzz(func(t *testing.T, query []byte, udp bool) {
		r := NewResponder(z, false)
		out, outcome := r.Answer(make([]byte, 0, 512), query, udp, 7)
		if outcome == Drop {
			return
		}
		var in dns.Msg
		if err := in.Unpack(out); err != nil {
			t.Fatalf("answer does not decode: %v\n%x\n%x", err, query, out)
		}
		if !in.Response || out[0] != query[0] || out[1] != query[1] || udp && len(out) > ednsSize {
			t.Fatalf("bad answer of %d bytes: %v", len(out), in.MsgHdr)
		}
	})
}

// FuzzRecords puts any text in the fields that users write: each record must be
// made of legal names in wire form, and a zone must take and give them back.
func FuzzRecords(f *testing.F) {
	f.Add("web", "default", "http", "db-0", "www.example.com", "10.96.1.1", "10.244.0.5")
	f.Add("", "\x00", "a.b", ".", "..", "::ffff:1.2.3.4", "fe80::1%eth0")
	f.Fuzz(func(t *testing.T, name, ns, port, hostname, target, ip, endpoint string) {
		z := testZone(t)
		before := len(z.nodes)
		slice := endpoints(port, 80, discoveryv1.Endpoint{Addresses: []string{endpoint}, Hostname: &hostname})
		for i, svc := range []*corev1.Service{
			service(ns, name, ip, corev1.ServicePort{Name: port, Port: 80}),
			service(ns, name, corev1.ClusterIPNone), external(ns, name, target),
		} {
			records := Records(svc, []*discoveryv1.EndpointSlice{slice}, z.Domain())
			for _, r := range records {
				checkName(t, r.Name)
				switch r.Type {
				case TypeCNAME, TypePTR:
					checkName(t, r.Data)
				case TypeSRV:
					checkName(t, r.Data[6:])
				case TypeA:
					if len(r.Data) != 4 {
						t.Fatalf("record %+v", r)
					}
				case TypeAAAA:
					if len(r.Data) != 16 {
						t.Fatalf("record %+v", r)
					}
				}
			}
			owner := fmt.Sprint(i)
			z.Set(owner, records)
			z.Set(owner, nil)
		}
		if len(z.nodes) != before {
			t.Fatalf("%d names before, %d after", before, len(z.nodes))
		}
	})
}

func checkName(t *testing.T, name string) {
	t.Helper()
	var q qname
	if rest, ok := q.parse([]byte(name)); !ok || len(rest) != 0 || len(name) > maxName {
		t.Fatalf("not a name: %q", name)
	}
}
