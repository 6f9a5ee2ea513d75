package controllers_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/controllers"
)

// balanced runs body with controllers that have three addresses.
func balanced(t *testing.T, body func(t *testing.T, c *cluster, restart func())) {
	bubble(t, func(t *testing.T, c *cluster) {
		start := func() func() {
			return c.startControllers(transports{}, func(cfg *controllers.Config) { cfg.LoadBalancers = netip.MustParsePrefix("10.89.0.252/30") })
		}
		stop := start()
		defer func() { stop() }()
		body(t, c, func() { stop(); stop = start() })
	})
}

func (c *cluster) makeBalancer(name string, change ...func(*corev1.Service)) {
	c.t.Helper()
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}}}
	for _, f := range change {
		f(svc)
	}
	if _, err := c.Client.CoreV1().Services("default").Create(c.t.Context(), svc, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) service(name string) *corev1.Service {
	c.t.Helper()
	svc, err := c.Client.CoreV1().Services("default").Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return svc
}

// balancerOf waits for a service's address.
func (c *cluster) balancerOf(name string) (address string) {
	c.t.Helper()
	c.eventually(name+" has an address", func() error {
		in := c.service(name).Status.LoadBalancer.Ingress
		if len(in) != 1 {
			return fmt.Errorf("ingress %v", in)
		}
		address = in[0].IP
		return nil
	})
	return address
}

func TestLoadBalancersGetAddresses(t *testing.T) {
	balanced(t, func(t *testing.T, c *cluster, restart func()) {
		begin := time.Now()
		c.makeBalancer("a")
		first := c.balancerOf("a")
		if d := time.Since(begin); d > time.Second {
			t.Errorf("the address took %s, want a second at most", d)
		}
		c.wantEvent("default", "a", "EnsuringLoadBalancer", "")
		c.wantEvent("default", "a", "EnsuredLoadBalancer", "")
		c.makeBalancer("b", func(svc *corev1.Service) { svc.Spec.AllocateLoadBalancerNodePorts = new(bool) })
		c.balancerOf("b")
		if port := c.service("b").Spec.Ports[0].NodePort; port != 0 {
			t.Errorf("b has node port %d, and asked for none", port)
		}
		restart()
		c.makeBalancer("c")
		if got := map[string]bool{first: true, c.balancerOf("b"): true, c.balancerOf("c"): true}; len(got) != 3 || c.balancerOf("a") != first {
			t.Errorf("three services have %v, and a has moved from %s to %s", got, first, c.balancerOf("a"))
		}
		c.makeBalancer("d", func(svc *corev1.Service) { svc.Spec.LoadBalancerIP = first })
		c.wantEvent("default", "d", "SyncLoadBalancerFailed", "in use by Service default/a")
		// With its type a loses its address, which is d's then.
		if _, err := c.Client.CoreV1().Services("default").Patch(t.Context(), "a", types.MergePatchType, []byte(`{"spec":{"type":"ClusterIP"}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := c.balancerOf("d"); got != first {
			t.Errorf("d has %s, want %s", got, first)
		}
		if a := c.service("a"); len(a.Status.LoadBalancer.Ingress) != 0 || len(a.Finalizers) != 0 {
			t.Errorf("a is no load balancer and has %v, finalizers %v", a.Status.LoadBalancer, a.Finalizers)
		}
		if err := c.Client.CoreV1().Services("default").Delete(t.Context(), "d", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("d is gone", func() error {
			_, err := c.Client.CoreV1().Services("default").Get(t.Context(), "d", metav1.GetOptions{})
			if !apierrors.IsNotFound(err) {
				return fmt.Errorf("get d: %v", err)
			}
			return nil
		})
		c.makeBalancer("e")
		c.balancerOf("e")
	})
}
