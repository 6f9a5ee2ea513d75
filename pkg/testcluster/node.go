package testcluster

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"coracle/pkg/auth"
	"coracle/pkg/kubelet"
	"coracle/pkg/kubelet/crifake"
)

// Node is a simulated node: the real agent over a container runtime that only
// pretends, under a node's own identity.
type Node struct {
	Name    string
	Runtime *crifake.Runtime
	stop    func()
}

// Stop ends the agent, as a power cut would: nothing is told to anybody.
// Stopping twice is no error.
func (n *Node) Stop() { n.stop() }

// AddNode adds a simulated node of 8 CPUs and 16 GiB; it ends with the test.
// Its pods have addresses in 10.244.index.0/24, so each node has an index of
// its own. Each change is made to the agent's way to the API server.
func (c *Cluster) AddNode(t testing.TB, index int, change ...func(*rest.Config)) *Node {
	t.Helper()
	name := fmt.Sprintf("node-%d", index)
	n := &Node{Name: name, Runtime: crifake.New(crifake.Config{
		PodCIDR: netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", index)),
	})}
	config := c.RESTConfig(&auth.User{Name: "system:node:" + name, Groups: []string{auth.GroupNodes, auth.GroupAuthenticated}})
	for _, f := range change {
		f(config)
	}
	agent, err := kubelet.New(kubelet.Config{
		NodeName: name, NodeIPs: []string{fmt.Sprintf("192.0.2.%d", index)},
		Client: kubernetes.NewForConfigOrDie(config), Runtime: n.Runtime, Simulated: true,
		Capacity: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("16Gi"), corev1.ResourcePods: resource.MustParse("110"),
		},
	})
	if err != nil {
		t.Fatalf("compose the agent of %s: %v", name, err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx); close(done) }()
	n.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run the agent of %s: %v", name, err)
		}
	}
	t.Cleanup(n.stop)
	return n
}
