package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"coracle/pkg/network"
)

// eventually polls until ok answers nil.
func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// runProxy runs a proxy on the lab's node until stop or the end of the test.
func runProxy(t *testing.T, l *lab, client *fake.Clientset) (stop func()) {
	t.Helper()
	factory := informers.NewSharedInformerFactory(client, 0)
	p, err := New(Config{
		NodeName: "n1", Informers: factory, NetNS: l.node.FD(),
		ServiceCIDRs: labFacts().ServiceCIDRs, ClusterPods: labFacts().ClusterPods,
	})
	l.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	// The fake has no history: what is written between an informer's list and
	// its watch is lost. So wait for the watches.
	watches := make(chan struct{}, 16)
	client.PrependWatchReactor("*", func(a clienttesting.Action) (bool, watch.Interface, error) {
		w, err := client.Tracker().Watch(a.GetResource(), a.GetNamespace())
		watches <- struct{}{}
		return true, w, err
	})
	factory.Start(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		factory.Shutdown()
	})
	t.Cleanup(stop)
	select {
	case <-p.Programmed():
	case err := <-done:
		t.Fatalf("Run ended: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("not programmed in 10 s")
	}
	for range 3 {
		select {
		case <-watches:
		case <-time.After(10 * time.Second):
			t.Fatal("informers do not watch after 10 s")
		}
	}
	return stop
}

func namedSlice(svc, name string, addrs ...string) *discoveryv1.EndpointSlice {
	s := testSlice(addrs...)
	s.ObjectMeta = metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: svc}}
	return s
}

func TestLoop(t *testing.T) {
	l := newLab(t, 2)
	l.serve(0, 8080)
	l.serve(1, 8080)
	ctx := t.Context()
	client := fake.NewClientset(
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: corev1.NodeSpec{PodCIDR: "10.244.0.0/24"}},
		testService("web", "10.96.1.1"), namedSlice("web", "web-a", "10.244.0.2"),
	)
	stop := runProxy(t, l, client)
	answers := func(pods int) func() error {
		return func() error {
			got := map[string]int{}
			for range 20 {
				pod, _, err := l.ask("client", "tcp", "10.96.1.1:80")
				if err != nil {
					return err
				}
				got[pod]++
			}
			if len(got) != pods {
				return fmt.Errorf("answers from %v, want %d pods", got, pods)
			}
			return nil
		}
	}
	l.must(answers(1)())
	slices := client.DiscoveryV1().EndpointSlices("ns")
	_, err := slices.Create(ctx, namedSlice("web", "web-b", "10.244.0.3"), metav1.CreateOptions{})
	l.must(err)
	eventually(t, "second slice", answers(2))
	l.must(slices.Delete(ctx, "web-a", metav1.DeleteOptions{}))
	eventually(t, "first slice deleted", answers(1))

	// Without its agent the node goes on, and a new agent takes over what
	// changed in between.
	stop()
	l.must(answers(1)())
	_, err = slices.Create(ctx, namedSlice("web", "web-c", "10.244.0.2"), metav1.CreateOptions{})
	l.must(err)
	runProxy(t, l, client)
	l.must(answers(2)())
	l.must(client.CoreV1().Services("ns").Delete(ctx, "web", metav1.DeleteOptions{}))
	eventually(t, "service deleted", func() error {
		if _, _, err := l.ask("client", "tcp", "10.96.1.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("got %w, want connection refused", err)
		}
		return nil
	})
}

// TestLoopRepairs shows that an address becomes unclaimable when a node
// with it appears, and that the table repairs itself after a foreign hand.
func TestLoopRepairs(t *testing.T) {
	l := newLab(t, 2)
	l.serve(0, 8080)
	l.serve(1, 8080)
	svc := testService("web", "10.96.1.1")
	svc.Spec.Type = corev1.ServiceTypeLoadBalancer
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.5"}}
	client := fake.NewClientset(svc, namedSlice("web", "web-a", "10.244.0.2"))
	runProxy(t, l, client)
	if _, _, err := l.ask("client", "tcp", "203.0.113.5:80"); err != nil {
		t.Fatalf("load balancer address: %v", err)
	}
	_, err := client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n9"},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "203.0.113.5"}}},
	}, metav1.CreateOptions{})
	l.must(err)
	eventually(t, "address given back", func() error {
		if _, _, err := l.ask("client", "tcp", "203.0.113.5:80"); err == nil {
			return errors.New("a node's address is still claimed")
		}
		return nil
	})

	// Somebody flushes the table; the next change finds out and writes it anew.
	foreign, err := OpenTable(l.node.FD())
	l.must(err)
	defer foreign.Close()
	l.must(foreign.Remove())
	slice := namedSlice("web", "web-a", "10.244.0.2", "10.244.0.3")
	_, err = client.DiscoveryV1().EndpointSlices("ns").Update(t.Context(), slice, metav1.UpdateOptions{})
	l.must(err)
	eventually(t, "table written anew", func() error {
		_, _, err := l.ask("client", "udp", "10.96.1.1:80")
		return err
	})
}

func TestHealthServer(t *testing.T) {
	h := newHealthServers(func(network, _ string) (net.Listener, error) { return net.Listen(network, "127.0.0.1:0") }, nil)
	name := types.NamespacedName{Namespace: "ns", Name: "web"}
	for _, tt := range []struct{ local, status int }{{2, http.StatusOK}, {0, http.StatusServiceUnavailable}} {
		if err := h.set(name, &Health{Port: 32000, Local: tt.local}); err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		h.servers[name].ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		want := fmt.Sprintf(`{"service":{"namespace":"ns","name":"web"},"localEndpoints":%d,"serviceProxyHealthy":true}`+"\n", tt.local)
		if w.Code != tt.status || w.Body.String() != want {
			t.Errorf("%d local endpoints: %d %s", tt.local, w.Code, w.Body)
		}
	}
	if err := h.set(name, nil); err != nil || len(h.servers) != 0 {
		t.Errorf("after removal %d servers, error %v", len(h.servers), err)
	}
	h.close()
}

func TestStale(t *testing.T) {
	at := netip.MustParseAddrPort
	fronts := map[netip.AddrPort]UDPFront{
		at("10.96.1.1:53"):  {Backends: []netip.AddrPort{at("10.244.0.2:53")}},
		at("0.0.0.0:30053"): {Backends: []netip.AddrPort{at("10.244.0.2:53")}},
	}
	for _, tt := range []struct {
		asked, answers string
		want           bool
	}{
		{"10.96.1.1:53", "10.244.0.2:53", false},
		{"10.96.1.1:53", "10.244.0.3:53", true},
		{"10.96.1.1:53", "10.96.1.1:53", true},
		{"10.96.1.1:54", "10.96.1.1:54", false},
		{labNode + ":30053", "10.244.0.3:53", true},
		{labNode + ":30053", "10.244.0.2:53", false},
		{"198.51.100.1:30053", "198.51.100.1:30053", false},
	} {
		if got := stale(network.Flow{Asked: at(tt.asked), Answers: at(tt.answers), ToNode: at(tt.asked).Addr().String() == labNode}, fronts); got != tt.want {
			t.Errorf("flow to %s answered by %s: stale %v, want %v", tt.asked, tt.answers, got, tt.want)
		}
	}
}
