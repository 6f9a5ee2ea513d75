package dns

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
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
