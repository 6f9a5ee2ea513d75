package volume

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"coracle/pkg/kubelet/csi"
	"coracle/pkg/kubelet/csifake"
	"coracle/pkg/kubelet/plugins"
)

const testDriver = "d.example"

// csiNode is a manager on a node with a CSI driver that really mounts.
type csiNode struct {
	*Manager
	t      *testing.T
	root   string
	client *fake.Clientset
	driver *csifake.Driver
	csi    *csi.Drivers
	clock  *steppedClock

	mu      sync.Mutex
	node    corev1.Node // guarded by mu
	changes []types.UID // guarded by mu
	events  []string    // guarded by mu
}

// steppedClock stands still until it is stepped.
type steppedClock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *steppedClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *steppedClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

func (c *steppedClock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

var allCapabilities = []spec.NodeServiceCapability_RPC_Type{
	spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME, spec.NodeServiceCapability_RPC_EXPAND_VOLUME, spec.NodeServiceCapability_RPC_GET_VOLUME_STATS,
}

func newCSINode(t *testing.T, capabilities []spec.NodeServiceCapability_RPC_Type, objects ...runtime.Object) *csiNode {
	t.Helper()
	objects = append(objects, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "uid-n1"}})
	n := &csiNode{t: t, root: t.TempDir(), client: fake.NewClientset(objects...), clock: &steppedClock{now: time.Now()}}
	n.csi = csi.New(csi.Config{NodeName: "n1", Client: n.client})
	n.driver = csifake.New(csifake.Config{Name: testDriver, Dir: t.TempDir(), Registry: t.TempDir(), Capabilities: capabilities})
	if err := n.driver.Serve(); err != nil {
		t.Fatal(err)
	}
	n.register()
	n.restart()
	t.Cleanup(func() {
		for _, method := range []string{"NodeStageVolume", "NodePublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume"} {
			n.driver.Before(method, nil)
			n.driver.After(method, nil)
		}
		orphans, err := n.Orphans(func(types.UID) bool { return false })
		if err != nil {
			t.Error(err)
		}
		for _, uid := range orphans {
			if err := n.Unmount(context.Background(), uid); err != nil {
				t.Error(err)
			}
		}
		n.driver.Stop()
	})
	return n
}

func (n *csiNode) register() {
	n.t.Helper()
	if err := n.csi.Register(n.t.Context(), plugins.Plugin{Name: testDriver, Endpoint: n.driver.Endpoint(), Versions: []string{"1.0.0"}}); err != nil {
		n.t.Fatal(err)
	}
}

// restart replaces the manager by one that knows nothing but what is on disk.
func (n *csiNode) restart() {
	n.Manager = New(Config{
		RootDir: n.root, Client: n.client, Clock: n.clock, NodeName: "n1", CSI: n.csi,
		Node: func() *corev1.Node {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.node.DeepCopy()
		},
		OnChange: func(uid types.UID) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.changes = append(n.changes, uid)
		},
		Event: func(_ *corev1.Pod, eventType, reason, message string) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.events = append(n.events, eventType+" "+reason+" "+message)
		},
	})
}

// report does what the agent's Node manager does with VolumesInUse.
func (n *csiNode) report(attached ...corev1.UniqueVolumeName) {
	names, known := n.VolumesInUse()
	n.mu.Lock()
	defer n.mu.Unlock()
	if known {
		n.node.Status.VolumesInUse = names
	}
	n.node.Status.VolumesAttached = nil
	for _, name := range attached {
		n.node.Status.VolumesAttached = append(n.node.Status.VolumesAttached, corev1.AttachedVolume{Name: name})
	}
}

// noAttach is the object of a driver that attaches nothing.
func noAttach(change ...func(*storagev1.CSIDriverSpec)) *storagev1.CSIDriver {
	d := &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: testDriver}, Spec: storagev1.CSIDriverSpec{
		AttachRequired: ptr(false), VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral},
	}}
	for _, f := range change {
		f(&d.Spec)
	}
	return d
}

func csiPV(name string, change ...func(*corev1.PersistentVolumeSpec)) []runtime.Object {
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)},
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pv-" + name},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
	}
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv-" + name}, Spec: corev1.PersistentVolumeSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		ClaimRef:    &corev1.ObjectReference{Namespace: "ns", Name: name, UID: claim.UID},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
			Driver: testDriver, VolumeHandle: "handle-" + name, FSType: "ext4", VolumeAttributes: map[string]string{"pool": "p"},
		}},
	}}
	for _, f := range change {
		f(&pv.Spec)
	}
	return []runtime.Object{claim, pv}
}

func claimOf(name string) corev1.Volume {
	return vol("v", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}})
}

func podCalled(uid types.UID, volumes ...corev1.Volume) *corev1.Pod {
	pod := podWith(volumes...)
	pod.UID, pod.Name, pod.Spec.ServiceAccountName = uid, "pod-"+string(uid), "sa"
	return pod
}

func (n *csiNode) mount(pod *corev1.Pod) string {
	n.t.Helper()
	mounted, err := n.Mount(n.t.Context(), pod, PodFacts{})
	if err != nil {
		n.t.Fatal(err)
	}
	return mounted["v"].HostPath
}

func (n *csiNode) unmount(uid types.UID) {
	n.t.Helper()
	if err := n.Unmount(n.t.Context(), uid); err != nil {
		n.t.Fatal(err)
	}
}

// calls of the methods that change something.
func (n *csiNode) calls() string {
	c := n.driver.AllCalls()
	return fmt.Sprintf("stage %d publish %d unpublish %d unstage %d",
		c["NodeStageVolume"], c["NodePublishVolume"], c["NodeUnpublishVolume"], c["NodeUnstageVolume"])
}

func (n *csiNode) checkCalls(want string) {
	n.t.Helper()
	if got := n.calls(); got != want {
		n.t.Errorf("calls: %s, want %s", got, want)
	}
}

// checkClean: nothing of CSI is left on the node.
func (n *csiNode) checkClean() {
	n.t.Helper()
	err := filepath.WalkDir(n.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.Name() == csiDataFile || e.Name() == csiGlobalFolder || e.Name() == csiMountFolder || e.Type()&fs.ModeSymlink != 0 {
			n.t.Errorf("left behind: %s", path)
		}
		return nil
	})
	if err != nil {
		n.t.Error(err)
	}
	if points, err := mountsBeneath(n.root); err != nil || len(points) != 0 {
		n.t.Errorf("mounts left: %v, %v", points, err)
	}
	if names, known := n.VolumesInUse(); len(names) != 0 || !known {
		n.t.Errorf("in use: %v, known %v", names, known)
	}
}
