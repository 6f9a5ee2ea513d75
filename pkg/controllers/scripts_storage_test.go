package controllers_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/localpath"
)

func scriptsOfStorage() []script {
	return []script{
		{name: "PersistentVolume binder", steps: []func(*cluster){bindVolumes}},
		attachScript(), localPathScript(), protectionScript(), groupScript(),
	}
}

// localPathScript has a folder made, grown and removed.
func localPathScript() script {
	var volume string
	return script{
		name: "local path",
		objects: func(c *cluster) {
			c.offerLocalPath("node-1")
			// A provisioner that has not seen the node yet gives the claim back,
			// and here is no scheduler to choose again.
			time.Sleep(2 * staleness)
		},
		steps: []func(*cluster){
			func(c *cluster) { volume = c.claimOnNode("data", "node-1"); c.wantBound("data", volume) },
			func(c *cluster) {
				if _, err := c.Client.CoreV1().PersistentVolumeClaims("default").Patch(c.t.Context(), "data", types.MergePatchType,
					[]byte(`{"spec":{"resources":{"requests":{"storage":"3Gi"}}}}`), metav1.PatchOptions{}); err != nil {
					c.t.Fatal(err)
				}
				c.eventually("the claim has grown", func() error {
					if got := c.claim("data").Status.Capacity[corev1.ResourceStorage]; got.String() != "3Gi" {
						return fmt.Errorf("its capacity is %s", got.String())
					}
					return nil
				})
			},
			func(c *cluster) { c.deleteClaim("data"); c.wantRemoval("node-1", volume, localpath.Wanted) },
			func(c *cluster) {
				if v := c.volume(volume); v.DeletionTimestamp == nil {
					c.t.Error("the volume is not being deleted while its folder is removed")
				}
				c.annotateNode("node-1", localpath.RemoveKey(volume), localpath.Removed)
				c.wantNoVolume(volume)
				c.wantRemoval("node-1", volume, "")
			},
		},
	}
}

func (c *cluster) makeAttributesClass(name string) {
	c.t.Helper()
	if _, err := c.Client.StorageV1().VolumeAttributesClasses().Create(c.t.Context(), &storagev1.VolumeAttributesClass{
		ObjectMeta: metav1.ObjectMeta{Name: name}, DriverName: csiDriver, Parameters: map[string]string{"iops": "1"}}, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) deleteAttributesClass(name string) {
	c.t.Helper()
	if err := c.Client.StorageV1().VolumeAttributesClasses().Delete(c.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func withAttributes(class string) func(*corev1.PersistentVolumeClaim) {
	return func(p *corev1.PersistentVolumeClaim) { p.Spec.VolumeAttributesClassName = &class }
}

// inUse are those of the protected objects that are there, by their kinds.
func (c *cluster) inUse(claim, volume, class string) map[string]bool {
	c.t.Helper()
	out := map[string]bool{}
	for kind, get := range map[string]func() error{
		"claim": func() error {
			_, err := c.Client.CoreV1().PersistentVolumeClaims("default").Get(c.t.Context(), claim, metav1.GetOptions{})
			return err
		},
		"volume": func() error {
			_, err := c.Client.CoreV1().PersistentVolumes().Get(c.t.Context(), volume, metav1.GetOptions{})
			return err
		},
		"class": func() error {
			_, err := c.Client.StorageV1().VolumeAttributesClasses().Get(c.t.Context(), class, metav1.GetOptions{})
			return err
		},
	} {
		if err := get(); err == nil {
			out[kind] = true
		} else if !apierrors.IsNotFound(err) {
			c.t.Fatal(err)
		}
	}
	return out
}

// protectionScript deletes what is in use, which stays until it is not.
func protectionScript() script {
	return script{
		name: "protection of storage", pods: 1,
		objects: func(c *cluster) {
			c.makeAttributesClass("fast")
			c.makeVolume("v", "1Gi", "none", func(v *corev1.PersistentVolume) {
				v.Spec.VolumeAttributesClassName = new("fast")
				v.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "d.example.com", VolumeHandle: "x"}}
			})
			if _, err := c.Client.StorageV1().CSIDrivers().Create(c.t.Context(), &storagev1.CSIDriver{
				ObjectMeta: metav1.ObjectMeta{Name: "d.example.com"}, Spec: storagev1.CSIDriverSpec{AttachRequired: new(false)}}, metav1.CreateOptions{}); err != nil {
				c.t.Fatal(err)
			}
		},
		steps: []func(*cluster){
			func(c *cluster) { c.makeClaim("data", "1Gi", "none", withAttributes("fast")); c.wantBound("data", "v") },
			func(c *cluster) {
				c.makeUser("p", "data", "node-1")
				c.deleteClaim("data")
				if err := c.Client.CoreV1().PersistentVolumes().Delete(c.t.Context(), "v", metav1.DeleteOptions{}); err != nil {
					c.t.Fatal(err)
				}
				c.deleteAttributesClass("fast")
				time.Sleep(faultPatience / 2)
				if there := c.inUse("data", "v", "fast"); len(there) != 3 {
					c.t.Errorf("of claim, volume and class in use only %v are left", there)
				}
			},
			func(c *cluster) {
				c.deletePod("p")
				c.eventually("all go", func() error {
					if there := c.inUse("data", "v", "fast"); len(there) > 0 {
						return fmt.Errorf("%v are left", there)
					}
					return nil
				})
			},
		},
	}
}

// groupScript deletes a group whose members are there, one of which goes and
// one of which ends.
func groupScript() script {
	there := func(c *cluster) bool {
		c.t.Helper()
		_, err := c.Client.SchedulingV1beta1().PodGroups("default").Get(c.t.Context(), "crew", metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			c.t.Fatal(err)
		}
		return err == nil
	}
	return script{
		name: "protection of a group of pods", pods: 2,
		objects: func(c *cluster) {
			group := &schedulingv1beta1.PodGroup{ObjectMeta: metav1.ObjectMeta{Name: "crew"}}
			group.Spec.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: 2}
			if _, err := c.Client.SchedulingV1beta1().PodGroups("default").Create(c.t.Context(), group, metav1.CreateOptions{}); err != nil {
				c.t.Fatal(err)
			}
		},
		steps: []func(*cluster){
			func(c *cluster) {
				for _, name := range []string{"a", "b"} {
					pod := podLike(name, name)
					pod.Spec.NodeName, pod.Spec.SchedulingGroup = "node-1", &corev1.PodSchedulingGroup{PodGroupName: new("crew")}
					if _, err := c.Client.CoreV1().Pods("default").Create(c.t.Context(), pod, metav1.CreateOptions{}); err != nil {
						c.t.Fatal(err)
					}
				}
				if err := c.Client.SchedulingV1beta1().PodGroups("default").Delete(c.t.Context(), "crew", metav1.DeleteOptions{}); err != nil {
					c.t.Fatal(err)
				}
				c.eventually("the members run", func() error {
					if n := c.readyPods("default")["v1"]; n != 2 {
						return fmt.Errorf("%d are ready", n)
					}
					return nil
				})
			},
			func(c *cluster) {
				c.deletePod("a")
				time.Sleep(faultPatience / 2)
				if !there(c) {
					c.t.Error("the group went before its last member")
				}
			},
			func(c *cluster) {
				if _, err := c.Client.CoreV1().Pods("default").Patch(c.t.Context(), "b", types.StrategicMergePatchType, []byte(`{"status":{"phase":"Succeeded"}}`), metav1.PatchOptions{}, "status"); err != nil {
					c.t.Fatal(err)
				}
				c.eventually("the group goes", func() error {
					if there(c) {
						return errors.New("it is there")
					}
					return nil
				})
			},
		},
	}
}

// TestClassStaysForAClaimThatTheCacheLacks: whether a class is in use the
// server says.
func TestClassStaysForAClaimThatTheCacheLacks(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		t.Cleanup(c.startControllers(transports{read: lateOnly("persistentvolumeclaims")}))
		c.makeAttributesClass("fast")
		c.settle()
		c.makeClaim("data", "1Gi", "none", withAttributes("fast"))
		c.deleteAttributesClass("fast")
		c.settle()
		if there := c.inUse("data", "-", "fast"); !there["class"] {
			t.Error("the class of a claim is gone")
		}
		c.deleteClaim("data")
		c.eventually("the class goes", func() error {
			if there := c.inUse("data", "-", "fast"); there["class"] {
				return errors.New("it is there")
			}
			return nil
		})
	})
}

// TestFolderIsNotForgottenForANodeThatTheCacheLacks: one that has come back has
// its disk.
func TestFolderIsNotForgottenForANodeThatTheCacheLacks(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		t.Cleanup(c.startControllers(transports{read: lateOnly("nodes")}))
		c.offerLocalPath("node-1")
		time.Sleep(2 * lateEcho)
		volume := c.claimOnNode("data", "node-1")
		c.wantBound("data", volume)
		node := c.getNode("node-1")
		if err := c.Client.CoreV1().Nodes().Delete(t.Context(), "node-1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lateEcho)
		node.ObjectMeta = metav1.ObjectMeta{Name: node.Name, Labels: node.Labels, Annotations: node.Annotations}
		if _, err := c.Client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.deleteClaim("data")
		c.wantRemoval("node-1", volume, localpath.Wanted)
	})
}

// TestFolderOfAVolumeThatIsKeptAfterAllStays, also when the cache does not
// show yet that it is kept.
func TestFolderOfAVolumeThatIsKeptAfterAllStays(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		t.Cleanup(c.startControllers(transports{read: lateOnly("persistentvolumes")}))
		c.offerLocalPath("node-1")
		volume := c.claimOnNode("data", "node-1")
		c.wantBound("data", volume)
		c.deleteClaim("data")
		c.eventually("the volume is being deleted", func() error {
			if c.volume(volume).DeletionTimestamp == nil {
				return errors.New("it is not")
			}
			return nil
		})
		time.Sleep(time.Second)
		c.patchVolume(volume, `{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}`)
		c.eventually("the volume goes", func() error {
			if state := localpath.Removals(c.getNode("node-1").Annotations)[volume]; state != "" {
				t.Errorf("the node is asked to remove the folder: %s", state)
			}
			_, err := c.Client.CoreV1().PersistentVolumes().Get(t.Context(), volume, metav1.GetOptions{})
			if !apierrors.IsNotFound(err) {
				return fmt.Errorf("it is there: %v", err)
			}
			return nil
		})
	})
}
