package kubelet_test

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"coracle/pkg/attachment"
	"coracle/pkg/auth"
	"coracle/pkg/kubelet"
	"coracle/pkg/kubelet/crifake"
	"coracle/pkg/kubelet/csifake"
	"coracle/pkg/kubelet/eviction"
	"coracle/pkg/testcluster"
)

const inMountNamespace = "CORACLE_TEST_KUBELET_MOUNT_NAMESPACE"

// inNamespace runs the test in a mount namespace of its own, in a process of
// its own, and reports whether this is that process.
func inNamespace(t *testing.T) bool {
	if os.Getenv(inMountNamespace) != "" {
		return true
	}
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts file systems: run it as root")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=3m")
	cmd.Env = append(os.Environ(), inMountNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// csiCluster is a control plane, and a node whose agent mounts for real over a
// runtime that pretends.
type csiCluster struct {
	*testcluster.Cluster
	t       *testing.T
	runtime *crifake.Runtime
	root    string
	stop    func()
}

var csiVolumeName = attachment.InStatus("d.example", "handle")

func newCSICluster(t *testing.T) *csiCluster {
	return &csiCluster{Cluster: testcluster.Start(t, testcluster.WithRoles()), t: t, runtime: crifake.New(crifake.Config{}), root: t.TempDir()}
}

// start runs an agent until stop.
func (c *csiCluster) start() {
	c.t.Helper()
	config := c.RESTConfig(&auth.User{Name: "system:node:node-1", Groups: []string{auth.GroupNodes, auth.GroupAuthenticated}})
	agent, err := kubelet.New(kubelet.Config{
		NodeName: "node-1", NodeIPs: []string{"192.0.2.1"}, Client: kubernetes.NewForConfigOrDie(config), Runtime: c.runtime,
		RootDir: filepath.Join(c.root, "kubelet"), LogDir: filepath.Join(c.root, "logs"), NoCgroups: true, Thresholds: &eviction.Thresholds{},
		Log: slog.New(slog.NewTextHandler(c.t.Output(), nil)),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx); close(done) }()
	c.stop = func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Error(err)
		}
	}
	c.t.Cleanup(c.stop)
}

func (c *csiCluster) wait(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	pod, err := c.Client.CoreV1().Pods("default").Get(c.t.Context(), "p", metav1.GetOptions{})
	c.t.Fatalf("waiting in vain for %s; the pod is %+v, %v", what, pod.Status, err)
}

func (c *csiCluster) node() *corev1.Node {
	node, err := c.Client.CoreV1().Nodes().Get(c.t.Context(), "node-1", metav1.GetOptions{})
	if err != nil {
		return &corev1.Node{}
	}
	return node
}

func (c *csiCluster) phase(name string) corev1.PodPhase {
	pod, err := c.Client.CoreV1().Pods("default").Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	return pod.Status.Phase
}

func (c *csiCluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// volume makes a claim that is bound to a volume of the driver.
func (c *csiCluster) volume() {
	c.t.Helper()
	ctx, core := c.t.Context(), c.Client.CoreV1()
	quantity := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	once := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	class := ""
	claim, err := core.PersistentVolumeClaims("default").Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: once, VolumeName: "pv-data", StorageClassName: &class, Resources: corev1.VolumeResourceRequirements{Requests: quantity},
		},
	}, metav1.CreateOptions{})
	c.must(err)
	_, err = core.PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv-data"}, Spec: corev1.PersistentVolumeSpec{
			AccessModes: once, Capacity: quantity, ClaimRef: &corev1.ObjectReference{Namespace: "default", Name: "data", UID: claim.UID},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "d.example", VolumeHandle: "handle"}},
		},
	}, metav1.CreateOptions{})
	c.must(err)
}

// attacher does what a driver's external-attacher does, until the test ends.
func (c *csiCluster) attacher() {
	ctx := c.t.Context()
	attachments := c.Client.StorageV1().VolumeAttachments()
	go func() {
		for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
			list, err := attachments.List(ctx, metav1.ListOptions{})
			if err != nil {
				continue
			}
			for i := range list.Items {
				if a := &list.Items[i]; !a.Status.Attached && a.Spec.Attacher == "d.example" {
					a.Status = storagev1.VolumeAttachmentStatus{Attached: true, AttachmentMetadata: map[string]string{"device": "/dev/x"}}
					_, _ = attachments.UpdateStatus(ctx, a, metav1.UpdateOptions{}) // or the next time round
				}
			}
		}
	}()
}

func (c *csiCluster) attachments() []storagev1.VolumeAttachment {
	list, err := c.Client.StorageV1().VolumeAttachments().List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return list.Items
}

// TestCSIAgainstTheRealAPIServer follows a volume of a CSI driver from the
// driver's registration to its end, under the node's own identity, through a
// restart of the agent. Scheduler and controllers are the project's own; only
// the driver's attacher is played.
func TestCSIAgainstTheRealAPIServer(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	c := newCSICluster(t)
	c.start()
	d := csifake.New(csifake.Config{
		Name: "d.example", Dir: t.TempDir(), Registry: filepath.Join(c.root, "kubelet", "plugins_registry"),
		NodeID: "id", Max: 9, Topology: map[string]string{"d.example/zone": "z"},
		Capabilities: []spec.NodeServiceCapability_RPC_Type{spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME},
	})
	t.Cleanup(d.Stop)
	c.must(d.Start())
	drivers := func() []storagev1.CSINodeDriver {
		n, err := c.Client.StorageV1().CSINodes().Get(t.Context(), "node-1", metav1.GetOptions{})
		if err != nil {
			return nil
		}
		return n.Spec.Drivers
	}
	c.wait("the driver's registration", func() bool { return len(drivers()) == 1 })
	if got := drivers()[0]; got.NodeID != "id" || *got.Allocatable.Count != 9 || !slices.Equal(got.TopologyKeys, []string{"d.example/zone"}) {
		t.Errorf("driver %+v", got)
	}
	if node := c.node(); node.Labels["d.example/zone"] != "z" || node.Annotations["csi.volume.kubernetes.io/nodeid"] != `{"d.example":"id"}` {
		t.Errorf("labels %v, annotations %v", node.Labels, node.Annotations)
	}

	c.volume()
	_, err := c.Client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64), AutomountServiceAccountToken: new(bool),
			Containers: []corev1.Container{{Name: "c", Image: "img:1", VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/data"}}}},
			Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}},
		},
	}, metav1.CreateOptions{})
	c.must(err)
	c.wait("the node to say that it uses the volume", func() bool {
		return slices.Contains(c.node().Status.VolumesInUse, csiVolumeName) && len(c.attachments()) == 1
	})
	if d.Calls("NodeStageVolume") != 0 {
		t.Error("the driver was called before the volume was attached")
	}
	c.attacher()
	c.wait("the pod to run", func() bool { return c.phase("p") == corev1.PodRunning })
	if got := d.Request("NodePublishVolume").(*spec.NodePublishVolumeRequest).GetPublishContext()["device"]; got != "/dev/x" {
		t.Errorf("publish context %q", got)
	}

	events, err := c.Client.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{})
	c.must(err)
	for _, e := range events.Items {
		if e.Reason == "FailedMount" {
			t.Errorf("waiting for the attachment made an Event: %s", e.Message)
		}
	}

	c.stop()
	c.start()
	c.wait("the registration with the next agent", func() bool { return len(d.Statuses()) == 2 })
	if !slices.Contains(c.node().Status.VolumesInUse, csiVolumeName) || len(drivers()) != 1 || c.phase("p") != corev1.PodRunning {
		t.Errorf("after a restart: in use %v, drivers %v, pod %s", c.node().Status.VolumesInUse, drivers(), c.phase("p"))
	}
	c.must(c.Client.CoreV1().Pods("default").Delete(t.Context(), "p", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}))
	c.wait("the end of the use", func() bool {
		return d.Calls("NodeUnstageVolume") > 0 && len(c.node().Status.VolumesInUse) == 0 && len(c.attachments()) == 0
	})
	d.Stop()
	c.wait("the driver's end", func() bool {
		return len(drivers()) == 0 && c.node().Annotations["csi.volume.kubernetes.io/nodeid"] == ""
	})
}
