package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func service(ns, name, ip string, ports ...corev1.ServicePort) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, Ports: ports},
	}
	if ip != "" && ip != corev1.ClusterIPNone {
		svc.Spec.ClusterIPs = []string{ip}
	}
	return svc
}

func external(ns, name, target string) *corev1.Service {
	svc := service(ns, name, "")
	svc.Spec.Type, svc.Spec.ExternalName = corev1.ServiceTypeExternalName, target
	return svc
}

func endpoints(port string, number int32, eps ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: eps,
		Ports: []discoveryv1.EndpointPort{{Name: &port, Port: &number, Protocol: ptr.To(corev1.ProtocolTCP)}},
	}
}

// testZone is the cluster that the tests ask about.
func testZone(t testing.TB) *Zone {
	t.Helper()
	z, err := NewZone(ZoneConfig{
		Domain: "cluster.local", Server: netip.MustParseAddr("10.96.0.10"),
		Reverse: prefixes("10.96.0.0/16", "10.244.0.0/16", "fd00:96::/108"), Pods: prefixes("10.244.0.0/16", "fd00:244::/56"),
	})
	if err != nil {
		t.Fatal(err)
	}
	set := func(svc *corev1.Service, slices ...*discoveryv1.EndpointSlice) {
		z.Set(svc.Namespace+"/"+svc.Name, Records(svc, slices, z.Domain()))
	}
	http := corev1.ServicePort{Name: "http", Port: 80}
	dual := service("default", "web", "10.96.1.1", http, corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, corev1.ServicePort{Port: 9})
	dual.Spec.ClusterIPs = []string{"10.96.1.1", "fd00:96::1"}
	set(dual)
	set(service("default", "kubernetes", "10.96.0.1", corev1.ServicePort{Name: "https", Port: 443}))
	set(service("default", "db", corev1.ClusterIPNone, http), endpoints("http", 8080,
		discoveryv1.Endpoint{Addresses: []string{"10.244.0.5"}, Hostname: ptr.To("db-0")},
		discoveryv1.Endpoint{Addresses: []string{"10.244.1.5"}},
		discoveryv1.Endpoint{Addresses: []string{"10.244.1.6"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false)}},
	))
	unready := service("default", "raft", corev1.ClusterIPNone)
	unready.Spec.PublishNotReadyAddresses = true
	set(unready, endpoints("p", 1, discoveryv1.Endpoint{
		Addresses: []string{"10.244.2.1"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false)},
	}))
	set(service("default", "empty", corev1.ClusterIPNone))
	set(external("default", "alias", "web.default.svc.cluster.local"))
	set(external("default", "away", "www.example.com"))
	set(external("default", "loop", "loop.default.svc.cluster.local"))
	set(external("default", "lost", "gone.default.svc.cluster.local"))
	z.SetNamespace("default", true)
	z.SetNamespace("quiet", true)
	z.SetNamespace("gone", true)
	z.SetNamespace("gone", false)
	return z
}

// ask sends a question through a responder and decodes the answer.
func ask(t testing.TB, r *Responder, name string, kind uint16, udp bool, change ...func(*dns.Msg)) (*dns.Msg, Outcome) {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, kind)
	for _, c := range change {
		c(m)
	}
	query, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	out, outcome := r.Answer(nil, query, udp, 0)
	if outcome == Drop {
		return nil, Drop
	}
	var in dns.Msg
	if err := in.Unpack(out); err != nil {
		t.Fatalf("answer to %s does not decode: %v\n%x", name, err, out)
	}
	if in.Id != m.Id || !in.Response || len(m.Question) == 1 && (len(in.Question) != 1 || in.Question[0] != m.Question[0]) {
		t.Errorf("answer to %s has another id or question: %v", name, in.MsgHdr)
	}
	return &in, outcome
}

// short renders an answer in few words: code, flags, records.
func short(m *dns.Msg) string {
	out := []string{dns.RcodeToString[m.Rcode]}
	if m.Authoritative {
		out = append(out, "aa")
	}
	if m.Truncated {
		out = append(out, "tc")
	}
	var data []string
	for _, rr := range m.Answer {
		data = append(data, strings.Join(strings.Fields(rr.String())[3:], " "))
	}
	slices.Sort(data)
	out = append(out, data...)
	for _, rr := range m.Ns {
		out = append(out, fmt.Sprintf("[%s of %s]", strings.Fields(rr.String())[3], rr.Header().Name))
	}
	return strings.Join(out, " ")
}

func TestAnswers(t *testing.T) {
	const (
		none   = "NXDOMAIN aa [SOA of cluster.local.]"
		noData = "NOERROR aa [SOA of cluster.local.]"
	)
	tests := []struct {
		name string
		kind uint16
		want string
	}{
		{"web.default.svc.cluster.local.", dns.TypeA, "NOERROR aa A 10.96.1.1"},
		{"WEB.Default.svc.CLUSTER.local.", dns.TypeA, "NOERROR aa A 10.96.1.1"},
		{"web.default.svc.cluster.local.", dns.TypeAAAA, "NOERROR aa AAAA fd00:96::1"},
		{"kubernetes.default.svc.cluster.local.", dns.TypeA, "NOERROR aa A 10.96.0.1"},
		{"kubernetes.default.svc.cluster.local.", dns.TypeAAAA, noData},
		{"web.default.svc.cluster.local.", dns.TypeMX, noData},
		{"_http._tcp.web.default.svc.cluster.local.", dns.TypeSRV, "NOERROR aa SRV 0 100 80 web.default.svc.cluster.local."},
		{"_dns._udp.web.default.svc.cluster.local.", dns.TypeSRV, "NOERROR aa SRV 0 100 53 web.default.svc.cluster.local."},
		{"_dns._tcp.web.default.svc.cluster.local.", dns.TypeSRV, none},
		{"_tcp.web.default.svc.cluster.local.", dns.TypeSRV, noData},
		{"db.default.svc.cluster.local.", dns.TypeA, "NOERROR aa A 10.244.0.5 A 10.244.1.5"},
		{"db-0.db.default.svc.cluster.local.", dns.TypeA, "NOERROR aa A 10.244.0.5"},
		{"10-244-1-5.db.default.svc.cluster.local.", dns.TypeA, "NOERROR aa A 10.244.1.5"},
		{"10-244-1-6.db.default.svc.cluster.local.", dns.TypeA, none},
		{
			"_http._tcp.db.default.svc.cluster.local.", dns.TypeSRV,
			"NOERROR aa SRV 0 100 8080 10-244-1-5.db.default.svc.cluster.local. SRV 0 100 8080 db-0.db.default.svc.cluster.local.",
		},
		{"raft.default.svc.cluster.local.", dns.TypeA, "NOERROR aa A 10.244.2.1"},
		{"empty.default.svc.cluster.local.", dns.TypeA, none},
		{"1.1.96.10.in-addr.arpa.", dns.TypePTR, "NOERROR aa PTR web.default.svc.cluster.local."},
		{"5.0.244.10.in-addr.arpa.", dns.TypePTR, "NOERROR aa PTR db-0.db.default.svc.cluster.local."},
		{"9.9.96.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN aa [SOA of 96.10.in-addr.arpa.]"},
		{"1.96.10.in-addr.arpa.", dns.TypePTR, "NOERROR aa [SOA of 96.10.in-addr.arpa.]"},
		{"1.1.1.1.in-addr.arpa.", dns.TypePTR, "NXDOMAIN [SOA of .]"},
		{"alias.default.svc.cluster.local.", dns.TypeA, "NOERROR aa A 10.96.1.1 CNAME web.default.svc.cluster.local."},
		{"alias.default.svc.cluster.local.", dns.TypeCNAME, "NOERROR aa CNAME web.default.svc.cluster.local."},
		{"away.default.svc.cluster.local.", dns.TypeCNAME, "NOERROR aa CNAME www.example.com."},
		{"away.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN aa CNAME www.example.com. [SOA of .]"},
		{"lost.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN aa CNAME gone.default.svc.cluster.local. [SOA of cluster.local.]"},
		{"10-244-3-4.default.pod.cluster.local.", dns.TypeA, "NOERROR aa A 10.244.3.4"},
		{"10-244-3-4.default.pod.cluster.local.", dns.TypeAAAA, noData},
		{"fd00-244--7.default.pod.cluster.local.", dns.TypeAAAA, "NOERROR aa AAAA fd00:244::7"},
		{"192-0-2-1.default.pod.cluster.local.", dns.TypeA, none},
		{"10-244-3-4.other.pod.cluster.local.", dns.TypeA, none},
		{"10-244-3-4-5.default.pod.cluster.local.", dns.TypeA, none},
		{"010-244-3-4.default.pod.cluster.local.", dns.TypeA, none},
		{"default.pod.cluster.local.", dns.TypeA, noData},
		{"default.svc.cluster.local.", dns.TypeA, noData},
		{"quiet.svc.cluster.local.", dns.TypeA, noData},
		{"gone.svc.cluster.local.", dns.TypeA, none},
		{"svc.cluster.local.", dns.TypeA, noData},
		{"pod.cluster.local.", dns.TypeA, noData},
		{"cluster.local.", dns.TypeA, noData},
		{"other.svc.cluster.local.", dns.TypeA, none},
		{"web.other.svc.cluster.local.", dns.TypeA, none},
		{"x.web.default.svc.cluster.local.", dns.TypeA, none},
		{"dns-version.cluster.local.", dns.TypeTXT, `NOERROR aa TXT "1.1.0"`},
		{"ns.dns.cluster.local.", dns.TypeA, "NOERROR aa A 10.96.0.10"},
		{"cluster.local.", dns.TypeNS, "NOERROR aa NS ns.dns.cluster.local."},
		{"example.com.", dns.TypeA, "NXDOMAIN [SOA of .]"},
		{"web.default.svc.cluster.local.example.com.", dns.TypeA, "NXDOMAIN [SOA of .]"},
		{"xcluster.local.", dns.TypeA, "NXDOMAIN [SOA of .]"},
		{"cluster.local.", dns.TypeAXFR, "REFUSED"},
	}
	r := NewResponder(testZone(t), false)
	for _, tt := range tests {
		t.Run(tt.name+dns.TypeToString[tt.kind], func(t *testing.T) {
			m, _ := ask(t, r, tt.name, tt.kind, true)
			if got := short(m); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestHeader(t *testing.T) {
	r := NewResponder(testZone(t), false)
	const name = "web.default.svc.cluster.local."
	tests := []struct {
		what   string
		change func(*dns.Msg)
		want   string
	}{
		{"another operation", func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, "NOTIMP"},
		{"two questions", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, "FORMERR"},
		{"no question", func(m *dns.Msg) { m.Question = nil }, "FORMERR"},
		{"another class", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, "REFUSED"},
		{"EDNS version 1", func(m *dns.Msg) { m.SetEdns0(4096, false); m.IsEdns0().SetVersion(1) }, "BADSIG"}, // 16, which is BADVERS without a signature
		{"EDNS", func(m *dns.Msg) { m.SetEdns0(4096, true) }, "NOERROR aa A 10.96.1.1"},
	}
	for _, tt := range tests {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeA)
		tt.change(m)
		query, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		out, outcome := r.Answer(nil, query, true, 0)
		var in dns.Msg
		if err := in.Unpack(out); err != nil || outcome != Done {
			t.Fatalf("%s: outcome %d, %v", tt.what, outcome, err)
		}
		if got := short(&in); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.what, got, tt.want)
		}
		asked, echoed := m.IsEdns0(), in.IsEdns0()
		if (asked == nil) != (echoed == nil) || asked != nil && asked.Do() != echoed.Do() {
			t.Errorf("%s: asked with EDNS %v, answered with %v", tt.what, asked, echoed)
		}
	}
	m, _ := ask(t, r, "example.com.", dns.TypeA, true, func(m *dns.Msg) { m.SetEdns0(1232, false) })
	if ede, ok := m.IsEdns0().Option[0].(*dns.EDNS0_EDE); !ok || ede.InfoCode != dns.ExtendedErrorCodeProhibited || ede.ExtraText != closedText {
		t.Errorf("a closed cluster's reason: %v", m.IsEdns0())
	}
	if _, outcome := ask(t, r, name, dns.TypeA, true, func(m *dns.Msg) { m.Response = true }); outcome != Drop {
		t.Error("a response is answered: two servers could talk for ever")
	}
	if m, _ := ask(t, r, "loop.default.svc.cluster.local.", dns.TypeA, true); m.Rcode != dns.RcodeServerFailure || len(m.Answer) != maxAliases {
		t.Errorf("alias loop: %s", short(m))
	}
}

func TestTruncation(t *testing.T) {
	z := testZone(t)
	svc := service("default", "big", corev1.ClusterIPNone)
	var eps []discoveryv1.Endpoint
	for i := range 1000 {
		eps = append(eps, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.244.%d.%d", 10+i/250, 1+i%250)}})
	}
	z.Set("default/big", Records(svc, []*discoveryv1.EndpointSlice{endpoints("p", 1, eps...)}, z.Domain()))
	r := NewResponder(z, false)
	const name = "big.default.svc.cluster.local."
	tests := []struct {
		udp  bool
		edns uint16
		size int
		cut  bool
	}{{true, 0, 512, true}, {true, 100, 512, true}, {true, 4096, 1232, true}, {true, 800, 800, true}, {false, 0, 65535, false}}
	for _, tt := range tests {
		m, _ := ask(t, r, name, dns.TypeA, tt.udp, func(m *dns.Msg) {
			if tt.edns > 0 {
				m.SetEdns0(tt.edns, false)
			}
		})
		m.Compress = true
		if size := m.Len(); size > tt.size || tt.cut && size < tt.size-40 || m.Truncated != tt.cut || !tt.cut && len(m.Answer) != 1000 {
			t.Errorf("%+v: %d records in %d bytes, cut %v", tt, len(m.Answer), size, m.Truncated)
		}
	}
}

func TestOrderChanges(t *testing.T) {
	r := NewResponder(testZone(t), false)
	m := new(dns.Msg)
	m.SetQuestion("db.default.svc.cluster.local.", dns.TypeA)
	query, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	first := map[string]bool{}
	for i := range 2 {
		out, _ := r.Answer(nil, query, true, uint32(i))
		var in dns.Msg
		if err := in.Unpack(out); err != nil {
			t.Fatal(err)
		}
		first[in.Answer[0].(*dns.A).A.String()] = true
	}
	if len(first) != 2 {
		t.Errorf("the first address is always %v", first)
	}
}

// TestSetIsExact changes records to and fro: nothing of a removed object
// remains, and names shared by two owners stay until both are gone.
func TestSetIsExact(t *testing.T) {
	z := testZone(t)
	names := func() []string {
		var out []string
		for n := range z.nodes {
			out = append(out, n)
		}
		slices.Sort(out)
		return out
	}
	before := names()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p"}, Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "192.0.2.7"}}}}
	z.Set("pod 1", PodRecords(pod, z.Domain()))
	z.Set("pod 2", PodRecords(pod, z.Domain()))
	z.Set("pod 1", nil)
	r := NewResponder(z, false)
	if m, _ := ask(t, r, "192-0-2-7.a.pod.cluster.local.", dns.TypeA, true); short(m) != "NOERROR aa A 192.0.2.7" {
		t.Errorf("record of two owners, one gone: %s", short(m))
	}
	z.Set("pod 2", nil)
	if d := cmp.Diff(before, names()); d != "" {
		t.Errorf("names left over (-before +after):\n%s", d)
	}
}
