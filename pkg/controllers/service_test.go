//lint:file-ignore SA1019 Endpoints are deprecated, and still served.

package controllers_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/metadata"
)

func (c *cluster) makeService(name string, selector map[string]string) {
	c.t.Helper()
	_, err := c.Client.CoreV1().Services("default").Create(c.t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Selector: selector,
			Ports:    []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
}

// slices returns the service's slices and the addresses that are ready.
func (c *cluster) slices(service string) (items []discoveryv1.EndpointSlice, ready []string) {
	c.t.Helper()
	list, err := c.Client.DiscoveryV1().EndpointSlices("default").List(c.t.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + service})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, s := range list.Items {
		for _, e := range s.Endpoints {
			if *e.Conditions.Ready {
				ready = append(ready, e.Addresses...)
			}
		}
	}
	slices.Sort(ready)
	return list.Items, ready
}

func TestServiceEndpointsFollowPods(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeService("web", map[string]string{"app": "web"})
		c.eventually("a service without pods has an empty slice and empty endpoints", func() error {
			items, _ := c.slices("web")
			e, err := c.Client.CoreV1().Endpoints("default").Get(t.Context(), "web", metav1.GetOptions{})
			if err != nil || len(items) != 1 || len(items[0].Endpoints) != 0 || len(e.Subsets) != 0 {
				return fmt.Errorf("slices %v, endpoints %v, err %v", items, e, err)
			}
			return nil
		})
		c.deploy("web", "v1", 3)
		check := func(n int) func() error {
			return func() error {
				items, ready := c.slices("web")
				e, err := c.Client.CoreV1().Endpoints("default").Get(t.Context(), "web", metav1.GetOptions{})
				if err != nil {
					return err
				}
				var old []string
				for _, s := range e.Subsets {
					for _, a := range s.Addresses {
						old = append(old, a.IP)
					}
				}
				slices.Sort(old)
				if len(items) != 1 || len(ready) != n || !slices.Equal(ready, old) {
					return fmt.Errorf("%d slices, ready %v, endpoints %v, want %d", len(items), ready, old, n)
				}
				return nil
			}
		}
		c.eventually("three are ready", check(3))
		c.patchDeployment("web", `{"spec":{"replicas":1}}`)
		c.eventually("one is ready", check(1))
		if err := c.Client.CoreV1().Services("default").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("nothing is left of the service", func() error {
			items, _ := c.slices("web")
			_, err := c.Client.CoreV1().Endpoints("default").Get(t.Context(), "web", metav1.GetOptions{})
			if len(items) != 0 || !apierrors.IsNotFound(err) {
				return fmt.Errorf("%d slices, endpoints: %v", len(items), err)
			}
			return nil
		})
	})
}

func TestHandMadeEndpointsAreMirrored(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeService("external", nil)
		endpoints := c.Client.CoreV1().Endpoints("default")
		e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "external"}, Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: "192.0.2.1"}}, Ports: []corev1.EndpointPort{{Port: 80, Protocol: corev1.ProtocolTCP}},
		}}}
		e, err := endpoints.Create(t.Context(), e, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := func(addresses ...string) func() error {
			return func() error {
				if _, ready := c.slices("external"); !slices.Equal(ready, addresses) {
					return fmt.Errorf("ready %v, want %v", ready, addresses)
				}
				return nil
			}
		}
		c.eventually("created", want("192.0.2.1"))
		e.Subsets[0].Addresses[0].IP = "192.0.2.2"
		if _, err := endpoints.Update(t.Context(), e, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("updated", want("192.0.2.2"))
		if err := endpoints.Delete(t.Context(), "external", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("deleted", want())
	})
}

// newest is the highest resourceVersion of all objects but leases, which nodes
// renew.
func (c *cluster) newest() int {
	c.t.Helper()
	highest := 0
	client := metadata.NewForConfigOrDie(c.Admin())
	for _, r := range []schema.GroupVersionResource{
		{Version: "v1", Resource: "pods"}, {Version: "v1", Resource: "services"}, {Version: "v1", Resource: "endpoints"},
		{Version: "v1", Resource: "events"}, {Version: "v1", Resource: "namespaces"}, {Version: "v1", Resource: "configmaps"},
		{Version: "v1", Resource: "serviceaccounts"}, {Version: "v1", Resource: "nodes"},
		{Group: "apps", Version: "v1", Resource: "deployments"}, {Group: "apps", Version: "v1", Resource: "replicasets"},
		{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"},
	} {
		list, err := client.Resource(r).List(c.t.Context(), metav1.ListOptions{})
		if err != nil {
			c.t.Fatal(err)
		}
		for _, o := range list.Items {
			n, err := strconv.Atoi(o.ResourceVersion)
			if err != nil {
				c.t.Fatal(err)
			}
			highest = max(highest, n)
		}
	}
	return highest
}

func TestQuietClusterIsNotWrittenTo(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeService("web", map[string]string{"app": "web"})
		c.deploy("web", "v1", 3)
		c.setImage("web", "v2")
		c.wantComplete("web")
		c.settle()
		before := c.newest()
		time.Sleep(10 * time.Minute)
		if after := c.newest(); after != before {
			t.Errorf("the store went from revision %d to %d while nothing changed", before, after)
		}
		c.patchDeployment("web", `{"metadata":{"labels":{"a":"b"}}}`)
		if c.newest() == before {
			t.Error("a write does not show in the revision: this test cannot fail")
		}
	})
}
