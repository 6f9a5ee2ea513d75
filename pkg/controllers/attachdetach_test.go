package controllers_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/attachment"
	"coracle/pkg/testcluster/sidecar"
)

const csiDriver = "disks.example.com"

// startDriver starts a CSI driver and makes its class.
func (c *cluster) startDriver(class string) *sidecar.Driver {
	c.t.Helper()
	d := sidecar.Start(c.t, c.Client, csiDriver)
	c.makeClass(class, csiDriver, storagev1.VolumeBindingImmediate)
	return d
}

// makeUser makes a pod of a claim on a node.
func (c *cluster) makeUser(name, claim, node string, change ...func(*corev1.Pod)) {
	c.t.Helper()
	pod := podLike(name, name)
	pod.Spec.NodeName = node
	pod.Spec.Volumes = []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}}
	for _, f := range change {
		f(pod)
	}
	if _, err := c.Client.CoreV1().Pods("default").Create(c.t.Context(), pod, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// dropPod deletes a pod unless somebody else has.
func (c *cluster) dropPod(name string) {
	c.t.Helper()
	if err := c.Client.CoreV1().Pods("default").Delete(c.t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil && !apierrors.IsNotFound(err) {
		c.t.Fatal(err)
	}
}

// makeDisk makes a claim and returns the handle of its volume.
func (c *cluster) makeDisk(claim, class string, change ...func(*corev1.PersistentVolumeClaim)) (handle string) {
	c.t.Helper()
	p := c.makeClaim(claim, "1Gi", class, change...)
	c.wantBound(claim, "pvc-"+string(p.UID))
	return "disk-" + string(p.UID)
}

// wantAttached waits until exactly these nodes have the disk mounted, an
// attachment says so for each, and each says so itself.
func (c *cluster) wantAttached(d *sidecar.Driver, handle string, nodes ...string) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("disk %s is on %v", handle, nodes), func() error {
		list, err := c.Client.StorageV1().VolumeAttachments().List(c.t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		var has []string
		for _, a := range list.Items {
			if a.Name == attachment.Name(csiDriver, handle, a.Spec.NodeName) && a.Status.Attached && a.DeletionTimestamp == nil {
				has = append(has, a.Spec.NodeName)
			}
		}
		slices.Sort(has)
		mounted, attached, reported := d.Mounted(handle), d.Attached(handle), c.reporting(handle)
		slices.Sort(mounted)
		slices.Sort(attached)
		if !slices.Equal(has, nodes) || !slices.Equal(mounted, nodes) || !slices.Equal(attached, nodes) || !slices.Equal(reported, nodes) {
			return fmt.Errorf("attachments %v, attached %v, in status %v, mounted %v", has, attached, reported, mounted)
		}
		return nil
	})
	for _, wrong := range d.Wrongs() {
		c.t.Error(wrong)
	}
}

// reporting are the nodes whose status says that the disk is attached.
func (c *cluster) reporting(handle string) []string {
	c.t.Helper()
	list, err := c.Client.CoreV1().Nodes().List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	var out []string
	for _, n := range list.Items {
		if slices.ContainsFunc(n.Status.VolumesAttached, func(v corev1.AttachedVolume) bool { return v.Name == attachment.InStatus(csiDriver, handle) }) {
			out = append(out, n.Name)
		}
	}
	return out
}

func (c *cluster) wantNoAttachments() {
	c.t.Helper()
	c.eventually("all attachments go", func() error {
		list, err := c.Client.StorageV1().VolumeAttachments().List(c.t.Context(), metav1.ListOptions{})
		if err == nil && len(list.Items) > 0 {
			a := list.Items[0]
			err = fmt.Errorf("%d are there, one of node %s with %v, deleted %v", len(list.Items), a.Spec.NodeName, a.Finalizers, a.DeletionTimestamp)
		}
		return err
	})
}

// TestVolumeFollowsItsPod from node to node, is attached to many where it may
// be, and leaves with the last pod.
func TestVolumeFollowsItsPod(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		d := c.startDriver("disks")
		handle := c.makeDisk("data", "disks")
		c.makeUser("a", "data", "node-1")
		c.wantAttached(d, handle, "node-1")
		volume := c.claim("data").Spec.VolumeName
		c.wantEvent("default", "a", "SuccessfulAttachVolume", fmt.Sprintf("AttachVolume.Attach succeeded for volume %q ", volume))
		a, err := c.Client.StorageV1().VolumeAttachments().Get(t.Context(), attachment.Name(csiDriver, handle, "node-1"), metav1.GetOptions{})
		if err != nil || a.Spec.Attacher != csiDriver || a.Spec.Source.PersistentVolumeName == nil || *a.Spec.Source.PersistentVolumeName != volume {
			t.Errorf("the attachment is %+v (%v)", a, err)
		}
		c.makeUser("b", "data", "node-2")
		c.wantEvent("default", "b", "FailedAttachVolume", fmt.Sprintf("Waiting for detach for volume %q Volume is already used by pod(s) a", volume))
		c.settle()
		c.wantAttached(d, handle, "node-1")
		d.Silence("node-1", true) // it takes its time to unmount
		c.deletePod("a")
		c.wantEvent("default", "b", "FailedAttachVolume", "Volume is already exclusively attached to one node")
		c.settle()
		if on := d.Attached(handle); !slices.Equal(on, []string{"node-1"}) {
			t.Errorf("what a healthy node has mounted is on %v", on)
		}
		d.Silence("node-1", false)
		c.wantAttached(d, handle, "node-2")
		before := c.versions()
		c.settle()
		for what, v := range c.versions() {
			if before[what] != v {
				t.Errorf("%s was written while nothing happened", what)
			}
		}
		c.deletePod("b")
		c.wantAttached(d, handle)
		c.wantNoAttachments()
		many := c.makeDisk("many", "disks", func(p *corev1.PersistentVolumeClaim) {
			p.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
		})
		c.makeUser("c", "many", "node-1")
		c.makeUser("d", "many", "node-3")
		c.wantAttached(d, many, "node-1", "node-3")
	})
}

// TestAttachersTroubleIsToldToPods: what it says, and that it says nothing.
func TestAttachersTroubleIsToldToPods(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		d := c.startDriver("disks")
		handle := c.makeDisk("data", "disks")
		d.Refuse("the shelf is full")
		c.makeUser("a", "data", "node-1")
		volume := c.claim("data").Spec.VolumeName
		c.wantEvent("default", "a", "FailedAttachVolume", fmt.Sprintf("AttachVolume.Attach failed for volume %q : the shelf is full", volume))
		d.Refuse("")
		c.wantAttached(d, handle, "node-1")
		d.Mute(true)
		mute := c.makeDisk("mute", "disks")
		c.makeUser("b", "mute", "node-1")
		c.patience = 3 * time.Minute
		c.wantEvent("default", "b", "FailedAttachVolume", "timed out waiting for external-attacher of disks.example.com CSI driver to attach volume "+mute)
		d.Mute(false)
		c.wantAttached(d, mute, "node-1")
	})
}

// TestDriverThatDoesNotAttach gets no attachments, and when it says so late,
// those that there are go once nothing is mounted.
func TestDriverThatDoesNotAttach(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		d := c.startDriver("disks")
		handle := c.makeDisk("data", "disks")
		c.makeUser("a", "data", "node-1")
		c.wantAttached(d, handle, "node-1")
		driver := &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: csiDriver}, Spec: storagev1.CSIDriverSpec{AttachRequired: new(false)}}
		if _, err := c.Client.StorageV1().CSIDrivers().Create(t.Context(), driver, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.settle()
		c.wantAttached(d, handle, "node-1")
		c.deletePod("a")
		c.wantNoAttachments()
		c.makeUser("b", "data", "node-2")
		c.settle()
		c.wantNoAttachments()
	})
}

// TestSilentNodeKeepsAVolumeForSixMinutes, whatever became of its pods.
func TestSilentNodeKeepsAVolumeForSixMinutes(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		d := c.startDriver("disks")
		handle := c.makeDisk("data", "disks")
		c.makeUser("a", "data", "node-1")
		c.wantAttached(d, handle, "node-1")
		c.node.change(func(s *simulator) { s.dead["node-1"] = true })
		d.Silence("node-1", true)
		c.patience = 2 * time.Minute
		c.wantTaints("node-1", "node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute")
		c.dropPod("a")
		gone := time.Now()
		c.makeUser("b", "data", "node-2")
		c.wantEvent("default", "b", "FailedAttachVolume", "Volume is already exclusively attached to one node")
		time.Sleep(5*time.Minute + 50*time.Second - time.Since(gone))
		if on := d.Attached(handle); !slices.Equal(on, []string{"node-1"}) {
			t.Errorf("after %v it is on %v", time.Since(gone), on)
		}
		d.PowerOff("node-1")
		c.wantAttached(d, handle, "node-2")
		if d := time.Since(gone); d < 6*time.Minute || d > 6*time.Minute+10*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

// TestNodeOutOfServiceGivesItsVolumesUp at once: somebody has seen to it that
// it is off.
func TestNodeOutOfServiceGivesItsVolumesUp(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		d := c.startDriver("disks")
		handle := c.makeDisk("data", "disks")
		c.makeUser("a", "data", "node-1")
		c.wantAttached(d, handle, "node-1")
		c.node.change(func(s *simulator) { s.dead["node-1"] = true })
		d.PowerOff("node-1")
		c.wantTaints("node-1", "node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute")
		off := time.Now()
		c.eventually("the taint is on", func() error {
			n, err := c.Client.CoreV1().Nodes().Get(t.Context(), "node-1", metav1.GetOptions{})
			if err == nil {
				n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: corev1.TaintNodeOutOfService, Value: "nodeshutdown", Effect: corev1.TaintEffectNoExecute})
				_, err = c.Client.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{})
			}
			return err
		})
		c.dropPod("a")
		c.makeUser("b", "data", "node-2")
		c.wantAttached(d, handle, "node-2")
		if took := time.Since(off); took > time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

// TestAttachmentOutlivesItsVolume and goes nevertheless, also when nobody was
// there to see the volume go.
func TestAttachmentOutlivesItsVolume(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		stop := c.startControllers(transports{})
		d := c.startDriver("disks")
		handle := c.makeDisk("data", "disks")
		c.makeUser("a", "data", "node-1")
		c.wantAttached(d, handle, "node-1")
		volume := c.claim("data").Spec.VolumeName
		stop()
		c.deletePod("a")
		if err := c.Client.CoreV1().PersistentVolumes().Delete(t.Context(), volume, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.patchVolume(volume, `{"metadata":{"finalizers":null}}`)
		if _, err := c.Client.CoreV1().PersistentVolumes().Get(t.Context(), volume, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Fatalf("the volume is there: %v", err)
		}
		t.Cleanup(c.startControllers(transports{}))
		c.wantNoAttachments()
		c.eventually("no node reports it", func() error {
			if on := c.reporting(handle); len(on) > 0 {
				return fmt.Errorf("%v do", on)
			}
			return nil
		})
	})
}

// TestOthersAttachmentsAreLeftAlone, and so is what other plugins attached.
func TestOthersAttachmentsAreLeftAlone(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		pv := "elsewhere"
		mine := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Spec: storagev1.VolumeAttachmentSpec{
			Attacher: csiDriver, NodeName: "node-1", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &pv}}}
		if _, err := c.Client.StorageV1().VolumeAttachments().Create(t.Context(), mine, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		const list = `{"status":{"volumesAttached":[{"name":"example.com/other","devicePath":"/dev/x"},{"name":"kubernetes.io/csi/disks.example.com^gone","devicePath":""}]}}`
		if _, err := c.Client.CoreV1().Nodes().Patch(t.Context(), "node-1", types.MergePatchType, []byte(list), metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
		c.eventually("what is not attached is not listed", func() error {
			n, err := c.Client.CoreV1().Nodes().Get(t.Context(), "node-1", metav1.GetOptions{})
			if err == nil && !slices.Equal(n.Status.VolumesAttached, []corev1.AttachedVolume{{Name: "example.com/other", DevicePath: "/dev/x"}}) {
				err = fmt.Errorf("the list is %v", n.Status.VolumesAttached)
			}
			return err
		})
		c.settle()
		if _, err := c.Client.StorageV1().VolumeAttachments().Get(t.Context(), "mine", metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// TestVolumeComesAfterItsAttachment, as one that is behind sees it: what the
// node says that it uses stays, and is listed once its name is known.
func TestVolumeComesAfterItsAttachment(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		const use = `{"status":{"volumesInUse":["kubernetes.io/csi/disks.example.com^late"]}}`
		if _, err := c.Client.CoreV1().Nodes().Patch(t.Context(), "node-1", types.MergePatchType, []byte(use), metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
		pv, api := "late", c.Client.StorageV1().VolumeAttachments()
		a, err := api.Create(t.Context(), &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: attachment.Name(csiDriver, "late", "node-1")}, Spec: storagev1.VolumeAttachmentSpec{
			Attacher: csiDriver, NodeName: "node-1", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &pv}}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		a.Status.Attached = true
		if _, err := api.UpdateStatus(t.Context(), a, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.settle()
		c.makeVolume(pv, "1Gi", "none", func(v *corev1.PersistentVolume) {
			v.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: csiDriver, VolumeHandle: "late"}}
		})
		c.eventually("the node lists it", func() error {
			if on := c.reporting("late"); len(on) != 1 {
				return fmt.Errorf("%v do", on)
			}
			return nil
		})
	})
}

// attachScript moves a pod's volume from one node to another and away.
func attachScript() script {
	var d *sidecar.Driver
	var handle string
	check := func(c *cluster, nodes ...string) {
		c.t.Helper()
		c.wantAttached(d, handle, nodes...)
	}
	return script{
		name: "attach and detach", pods: 2,
		objects: func(c *cluster) {
			d = c.startDriver("disks")
			handle = c.makeDisk("data", "disks")
		},
		steps: []func(*cluster){
			func(c *cluster) { c.makeUser("a", "data", "node-1"); check(c, "node-1") },
			func(c *cluster) { c.deletePod("a"); c.makeUser("b", "data", "node-2"); check(c, "node-2") },
			func(c *cluster) { c.deletePod("b"); check(c); c.wantNoAttachments() },
			func(c *cluster) {
				c.deleteClaim("data")
				c.eventually("the disk goes", func() error {
					if n := d.Disks(); n > 0 {
						return errors.New("it is there")
					}
					return nil
				})
			},
		},
	}
}
