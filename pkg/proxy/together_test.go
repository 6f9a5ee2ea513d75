package proxy

import (
	"context"
	"net"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"

	"coracle/pkg/network"
)

// TestWithPodNetwork runs the pod network's rules beside the proxy's: a pod
// reaches the API server, which is outside the cluster and knows no pod, through
// the kubernetes Service, and a host port works beside a node port.
func TestWithPodNetwork(t *testing.T) {
	n := newNode(t, 2)
	l := n.lab
	var api net.Listener
	l.must(l.ns["client"].Do(func() (err error) {
		api, err = net.Listen("tcp", labClient+":6443")
		return err
	}))
	t.Cleanup(func() { api.Close() })
	go func() {
		for {
			c, err := api.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("api " + c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().String() + "\n"))
			_ = c.(*net.TCPConn).CloseWrite()
		}
	}()
	l.must(l.ns["client"].EnsureRoute(network.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.168.7.99")}))

	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: corev1.NodeSpec{PodCIDR: "10.244.0.0/24"}}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: labNode}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}}
	pod.Spec.NodeName = "n1"
	pod.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{HostPort: 5000, ContainerPort: 8080}}}}
	pod.Status.PodIPs = []corev1.PodIP{{IP: podAddr(1).String()}}
	factory := informers.NewSharedInformerFactory(fake.NewClientset(node, pod), 0)
	role, err := network.New(network.Config{
		NodeName: "n1", Informers: factory, Pods: factory.Core().V1().Pods().Informer(), NS: l.node, CNIDir: t.TempDir(),
		Ranges: network.Ranges{Pods: n.facts.ClusterPods, Services: n.facts.ServiceCIDRs},
	})
	l.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	factory.Start(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- role.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		factory.Shutdown()
	})

	kubernetes := testService("kubernetes", "10.96.0.1")
	kubernetes.Spec.Ports = []corev1.ServicePort{{Name: "https", Port: 443}}
	slice := testSlice(labClient)
	slice.Ports = []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To[int32](6443)}}
	n.set(kubernetes, slice)
	n.set(nodePort(testService("web", "10.96.1.1"), 30080), testSlice("10.244.0.2"))
	for _, from := range []string{"pod0", "node"} {
		eventually(t, "API server from "+from, func() error {
			who, peer, err := l.ask(from, "tcp", "10.96.0.1:443")
			if err == nil && (who != "api" || peer != labNode) {
				t.Errorf("from %s: %s saw %s, want the node's address", from, who, peer)
			}
			return err
		})
	}
	for to, want := range map[string]string{labNode + ":5000": "pod1", labNode + ":30080": "pod0", "10.96.1.1:80": "pod0"} {
		for _, from := range []string{"client", "node", "pod0", "pod1"} {
			if from == "client" && to == "10.96.1.1:80" {
				continue // It has no way there.
			}
			if who, _, err := l.ask(from, "tcp", to); err != nil || who != want {
				t.Errorf("from %s to %s: %q, %v; want %s", from, to, who, err, want)
			}
		}
	}
	// A pod that talks to another under its own address is seen under it.
	if _, peer, err := l.ask("pod0", "tcp", podAddr(1).String()+":8080"); err != nil || peer != podAddr(0).String() {
		t.Errorf("pod to pod: seen as %s, %v", peer, err)
	}
}
