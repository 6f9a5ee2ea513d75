package controllers_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/localpath"
)

func (c *cluster) annotateNode(name, key, value string) {
	c.t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, key, value)
	if _, err := c.Client.CoreV1().Nodes().Patch(c.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// offerLocalPath makes the class, and nodes that keep volumes.
func (c *cluster) offerLocalPath(nodes ...string) {
	c.t.Helper()
	if _, err := c.Client.StorageV1().StorageClasses().Create(c.t.Context(), localpath.Class(), metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	for _, name := range nodes {
		patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q},"annotations":{%q:"/var/lib/kubelet/local-volumes"}}}`, corev1.LabelHostname, name, localpath.Folder)
		if _, err := c.Client.CoreV1().Nodes().Patch(c.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			c.t.Fatal(err)
		}
	}
}

// wantRemoval waits until the node is asked to remove the volume, or, when no
// state is wanted, no more.
func (c *cluster) wantRemoval(node, volume, state string) {
	c.t.Helper()
	c.eventually("removal on "+node, func() error {
		n, err := c.Client.CoreV1().Nodes().Get(c.t.Context(), node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got := localpath.Removals(n.Annotations)[volume]; got != state {
			return fmt.Errorf("it is %q, want %q", got, state)
		}
		return nil
	})
}

func (c *cluster) wantNoVolume(name string) {
	c.t.Helper()
	c.eventually("volume "+name+" goes", func() error {
		v, err := c.Client.CoreV1().PersistentVolumes().Get(c.t.Context(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there (%v): %s %v", err, v.Status.Phase, v.Finalizers)
	})
}

// claimOnNode makes a claim of the local class and plays the scheduler.
func (c *cluster) claimOnNode(name, node string, change ...func(*corev1.PersistentVolumeClaim)) (volume string) {
	c.t.Helper()
	p := c.makeClaim(name, "1Gi", "-", change...)
	c.annotateClaim(name, "volume.kubernetes.io/selected-node", node)
	return "pvc-" + string(p.UID)
}

func TestLocalPathVolumeLivesAndGrowsAndGoes(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.offerLocalPath("node-1")
		name := c.claimOnNode("data", "node-1")
		c.wantBound("data", name)
		v := c.volume(name)
		if v.Spec.Local == nil || v.Spec.Local.Path != "/var/lib/kubelet/local-volumes/"+name || v.Spec.NodeAffinity == nil ||
			v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
			t.Errorf("the volume is %+v", v.Spec)
		}
		c.wantEvent("default", "data", "ProvisioningSucceeded", "Successfully provisioned volume "+name)
		if _, err := c.Client.CoreV1().PersistentVolumeClaims("default").Patch(t.Context(), "data", types.MergePatchType,
			[]byte(`{"spec":{"resources":{"requests":{"storage":"3Gi"}}}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("the claim has grown", func() error {
			p := c.claim("data")
			if got := p.Status.Capacity[corev1.ResourceStorage]; got.String() != "3Gi" {
				return fmt.Errorf("its capacity is %s", got.String())
			}
			return nil
		})
		c.deleteClaim("data")
		c.wantRemoval("node-1", name, localpath.Wanted)
		c.settle()
		if v := c.volume(name); v.DeletionTimestamp == nil {
			t.Errorf("the volume is %s", v.Status.Phase)
		}
		c.annotateNode("node-1", localpath.RemoveKey(name), localpath.Removed)
		c.wantNoVolume(name)
		c.wantRemoval("node-1", name, "")
	})
}

func TestLocalPathRefusesWhatAFolderCannotBe(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.offerLocalPath("node-1")
		c.claimOnNode("shared", "node-1", func(p *corev1.PersistentVolumeClaim) {
			p.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
		})
		c.wantEvent("default", "shared", "ProvisioningFailed", "a folder of one node cannot be ReadWriteMany")
		c.claimOnNode("device", "node-1", func(p *corev1.PersistentVolumeClaim) { p.Spec.VolumeMode = new(corev1.PersistentVolumeBlock) })
		c.wantEvent("default", "device", "ProvisioningFailed", "a folder cannot be a raw block device")
		c.claimOnNode("elsewhere", "node-2")
		c.wantEvent("default", "elsewhere", "ProvisioningFailed", `node "node-2" keeps no volumes`)
		c.eventually("the scheduler may choose again", func() error {
			if node := c.claim("elsewhere").Annotations["volume.kubernetes.io/selected-node"]; node != "" {
				return fmt.Errorf("the node is still %s", node)
			}
			return nil
		})
	})
}

// TestLocalPathVolumeOfALostNodeGoes: with the node went its disk. A volume
// that is to be kept leaves its folder alone.
func TestLocalPathVolumeOfALostNodeGoes(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.offerLocalPath("node-1", "node-2")
		lost, kept := c.claimOnNode("lost", "node-1"), c.claimOnNode("kept", "node-2")
		c.wantBound("lost", lost)
		c.wantBound("kept", kept)
		c.patchVolume(kept, `{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}`)
		c.deleteClaim("lost")
		c.deleteClaim("kept")
		c.wantRemoval("node-1", lost, localpath.Wanted)
		if err := c.Client.CoreV1().Nodes().Delete(t.Context(), "node-1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.wantNoVolume(lost)
		c.wantVolume(kept, corev1.VolumeReleased)
		if err := c.Client.CoreV1().PersistentVolumes().Delete(t.Context(), kept, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.wantNoVolume(kept)
		c.wantRemoval("node-2", kept, "")
	})
}
