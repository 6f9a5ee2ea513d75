package csi_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	clocktesting "k8s.io/utils/clock/testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"coracle/pkg/kubelet/csi"
	"coracle/pkg/kubelet/csifake"
	"coracle/pkg/kubelet/plugins"
)

// node is a node's drivers with the watcher that feeds them.
type node struct {
	*csi.Drivers
	t      *testing.T
	client *fake.Clientset
	dir    string // of registrations
}

func newNode(t *testing.T) *node {
	t.Helper()
	client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "uid-n1"}})
	n := &node{Drivers: csi.New(csi.Config{NodeName: "n1", Client: client}), t: t, client: client, dir: t.TempDir()}
	return n
}

func (n *node) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(n.t.Context()))
	var running sync.WaitGroup
	watcher := plugins.New(plugins.Config{Dir: n.dir, Handlers: map[string]plugins.Handler{"CSIPlugin": n.Drivers}})
	for _, run := range []func(context.Context) error{n.Drivers.Run, watcher.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				n.t.Error(err)
			}
		})
	}
	stop = func() { cancel(); running.Wait() }
	n.t.Cleanup(stop)
	return stop
}

func (n *node) driver(cfg csifake.Config) *csifake.Driver {
	n.t.Helper()
	cfg.Dir, cfg.Registry = n.t.TempDir(), n.dir
	d := csifake.New(cfg)
	n.t.Cleanup(d.Stop)
	return d
}

func (n *node) csiNode() *storagev1.CSINode {
	c, err := n.client.StorageV1().CSINodes().Get(n.t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return c
}

func (n *node) node() *corev1.Node {
	n.t.Helper()
	o, err := n.client.CoreV1().Nodes().Get(n.t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	return o
}

func (n *node) names() []string {
	c := n.csiNode()
	if c == nil {
		return nil
	}
	var names []string
	for _, d := range c.Spec.Drivers {
		names = append(names, d.Name)
	}
	return names
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("waiting in vain for %s", what)
}

// TestRegistration follows a driver from its first word, before which its node
// is not ready, to its end.
func TestRegistration(t *testing.T) {
	n := newNode(t)
	n.run()
	eventually(t, "a CSINode without drivers", func() bool { return n.csiNode() != nil })
	if owners := n.csiNode().OwnerReferences; len(owners) != 1 || owners[0].UID != "uid-n1" || owners[0].Kind != "Node" || owners[0].APIVersion != "v1" {
		t.Errorf("owners %+v", owners)
	}
	d := n.driver(csifake.Config{Name: "a.example", NodeID: "id-1", Max: 3, Topology: map[string]string{"a.example/zone": "z"}})
	var tries sync.WaitGroup
	tries.Add(2)
	count := 0
	d.Before("NodeGetInfo", func(context.Context, any) error {
		if count++; count <= 2 { // calls follow each other
			tries.Done()
			return status.Error(codes.Unavailable, "not ready")
		}
		return nil
	})
	if _, err := n.Find("a.example"); !errors.Is(err, csi.ErrUnknown) {
		t.Errorf("an unknown driver: %v", err)
	}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	tries.Wait()
	eventually(t, "the registration", func() bool { return len(d.Statuses()) == 1 && d.Statuses()[0].GetPluginRegistered() })
	if _, err := n.Find("a.example"); err != nil {
		t.Error(err)
	}
	drivers := n.csiNode().Spec.Drivers
	if len(drivers) != 1 || drivers[0].NodeID != "id-1" || *drivers[0].Allocatable.Count != 3 || !slices.Equal(drivers[0].TopologyKeys, []string{"a.example/zone"}) {
		t.Errorf("drivers %+v", drivers)
	}
	node := n.node()
	if node.Labels["a.example/zone"] != "z" || node.Annotations["csi.volume.kubernetes.io/nodeid"] != `{"a.example":"id-1"}` {
		t.Errorf("labels %v, annotations %v", node.Labels, node.Annotations)
	}
	d.Stop()
	eventually(t, "the driver's end", func() bool {
		return len(n.names()) == 0 && n.node().Annotations["csi.volume.kubernetes.io/nodeid"] == ""
	})
	if _, err := n.Find("a.example"); err == nil || err.Error() != "driver name a.example not found in the list of registered CSI drivers" {
		t.Errorf("a driver that is gone: %v", err)
	}
}

// TestAgentRestart: what the cluster knows outlives the agent, and a CSINode of
// an earlier Node does not outlive that.
func TestAgentRestart(t *testing.T) {
	n := newNode(t)
	stop := n.run()
	d := n.driver(csifake.Config{Name: "a.example"})
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the registration", func() bool { return slices.Equal(n.names(), []string{"a.example"}) })
	stop()
	if !slices.Equal(n.names(), []string{"a.example"}) {
		t.Errorf("after the agent's end: %v", n.names())
	}
	// The machine joined anew: same name, another Node.
	fresh := n.node()
	fresh.UID, fresh.Annotations = "uid-2", nil
	if _, err := n.client.CoreV1().Nodes().Update(t.Context(), fresh, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	n.Drivers = csi.New(csi.Config{NodeName: "n1", Client: n.client})
	n.run()
	eventually(t, "the registration with the next agent", func() bool {
		c := n.csiNode()
		return c != nil && c.OwnerReferences[0].UID == "uid-2" && slices.Equal(n.names(), []string{"a.example"}) &&
			n.node().Annotations["csi.volume.kubernetes.io/nodeid"] == `{"a.example":"node-a.example"}`
	})
}

// TestUnsupportedVersion: a driver of another CSI is told so, and no CSINode
// names it.
func TestUnsupportedVersion(t *testing.T) {
	n := newNode(t)
	n.run()
	d := n.driver(csifake.Config{Name: "old.example", Versions: []string{"0.3.0"}})
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the refusal", func() bool {
		s := d.Statuses()
		return len(s) > 0 && !s[0].GetPluginRegistered() && strings.Contains(s[0].GetError(), `none of the versions specified ["0.3.0"] are supported`)
	})
	if d.Calls("NodeGetInfo") != 0 || len(n.names()) != 0 {
		t.Errorf("calls %v, drivers %v", d.AllCalls(), n.names())
	}
}

// TestLimitChanges: a driver that wants to be asked anew is, and the CSINode
// follows; one that does not is left alone.
func TestLimitChanges(t *testing.T) {
	n := newNode(t)
	clock := clocktesting.NewFakeClock(time.Now())
	n.Drivers = csi.New(csi.Config{NodeName: "n1", Client: n.client, Clock: clock})
	period := int64(60)
	for name, period := range map[string]*int64{"a.example": &period, "b.example": nil} {
		object := &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.CSIDriverSpec{NodeAllocatableUpdatePeriodSeconds: period}}
		if err := n.client.Tracker().Add(object); err != nil {
			t.Fatal(err)
		}
	}
	n.run()
	a, b := n.driver(csifake.Config{Name: "a.example", Max: 3}), n.driver(csifake.Config{Name: "b.example", Max: 3})
	for _, d := range []*csifake.Driver{a, b} {
		if err := d.Start(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the registrations", func() bool { return len(n.names()) == 2 })
	a.SetMax(7)
	b.SetMax(7)
	limits := func() map[string]int32 {
		out := map[string]int32{}
		for _, d := range n.csiNode().Spec.Drivers {
			out[d.Name] = *d.Allocatable.Count
		}
		return out
	}
	eventually(t, "the new limit", func() bool {
		clock.Step(30 * time.Second)
		return limits()["a.example"] == 7
	})
	if got := limits()["b.example"]; got != 3 || b.Calls("NodeGetInfo") != 1 {
		t.Errorf("the other's limit is %d after %d calls", got, b.Calls("NodeGetInfo"))
	}
}
