package controllers_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var once = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}

func storage(size string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
}

func (c *cluster) makeVolume(name, size, class string, change ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	c.t.Helper()
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: storage(size), AccessModes: once, StorageClassName: class,
		PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
		PersistentVolumeSource:        corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp/" + name}}}}
	for _, f := range change {
		f(v)
	}
	made, err := c.Client.CoreV1().PersistentVolumes().Create(c.t.Context(), v, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return made
}

// makeClaim makes a claim of a class; "-" leaves the class out.
func (c *cluster) makeClaim(name, size, class string, change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c.t.Helper()
	p := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: once, Resources: corev1.VolumeResourceRequirements{Requests: storage(size)}}}
	if class != "-" {
		p.Spec.StorageClassName = &class
	}
	for _, f := range change {
		f(p)
	}
	made, err := c.Client.CoreV1().PersistentVolumeClaims("default").Create(c.t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return made
}

func (c *cluster) makeClass(name, provisioner string, mode storagev1.VolumeBindingMode, change ...func(*storagev1.StorageClass)) {
	c.t.Helper()
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, VolumeBindingMode: &mode}
	for _, f := range change {
		f(class)
	}
	if _, err := c.Client.StorageV1().StorageClasses().Create(c.t.Context(), class, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) claim(name string) *corev1.PersistentVolumeClaim {
	c.t.Helper()
	p, err := c.Client.CoreV1().PersistentVolumeClaims("default").Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

func (c *cluster) volume(name string) *corev1.PersistentVolume {
	c.t.Helper()
	v, err := c.Client.CoreV1().PersistentVolumes().Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return v
}

// wantBound waits until claim and volume say that they belong together.
func (c *cluster) wantBound(claim, volume string) {
	c.t.Helper()
	c.eventually(claim+" has "+volume, func() error {
		p := c.claim(claim)
		if p.Status.Phase != corev1.ClaimBound || p.Spec.VolumeName != volume {
			return fmt.Errorf("the claim is %s with volume %q", p.Status.Phase, p.Spec.VolumeName)
		}
		v := c.volume(volume)
		if v.Status.Phase != corev1.VolumeBound || v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID != p.UID {
			return fmt.Errorf("the volume is %s for %v", v.Status.Phase, v.Spec.ClaimRef)
		}
		want := v.Spec.Capacity[corev1.ResourceStorage]
		if got := p.Status.Capacity[corev1.ResourceStorage]; got.Cmp(want) != 0 || len(p.Status.AccessModes) == 0 {
			return fmt.Errorf("the claim's status is %+v", p.Status)
		}
		return nil
	})
}

func (c *cluster) wantVolume(name string, phase corev1.PersistentVolumePhase) {
	c.t.Helper()
	c.eventually(name+" is "+string(phase), func() error {
		if v := c.volume(name); v.Status.Phase != phase {
			return fmt.Errorf("it is %s", v.Status.Phase)
		}
		return nil
	})
}

// wantEvent waits for an event about an object that has text in its message.
func (c *cluster) wantEvent(namespace, name, reason, text string) {
	c.t.Helper()
	c.eventually("event "+reason+" of "+name, func() error {
		list, err := c.Client.CoreV1().Events(namespace).List(c.t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		var seen []string
		for _, e := range list.Items {
			if e.InvolvedObject.Name == name {
				if e.Reason == reason && strings.Contains(e.Message, text) {
					return nil
				}
				seen = append(seen, e.Reason+": "+e.Message)
			}
		}
		return fmt.Errorf("there are %q", seen)
	})
}

func (c *cluster) patchVolume(name, patch string) {
	c.t.Helper()
	if _, err := c.Client.CoreV1().PersistentVolumes().Patch(c.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) annotateClaim(name, key, value string) {
	c.t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, key, value)
	if _, err := c.Client.CoreV1().PersistentVolumeClaims("default").Patch(c.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) deleteClaim(name string) {
	c.t.Helper()
	if err := c.Client.CoreV1().PersistentVolumeClaims("default").Delete(c.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// TestClaimGetsTheSmallestVolumeThatFits also follows the volume through its
// life: released when its claim goes, free for the next when its claimRef is
// taken off.
func TestClaimGetsTheSmallestVolumeThatFits(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeVolume("large", "9Gi", "manual")
		c.makeVolume("small", "2Gi", "manual")
		c.makeVolume("other", "1Gi", "elsewhere")
		for _, name := range []string{"large", "small", "other"} {
			c.wantVolume(name, corev1.VolumeAvailable)
		}
		c.makeClaim("data", "1Gi", "manual")
		c.wantBound("data", "small")
		p, v := c.claim("data"), c.volume("small")
		for _, key := range []string{"pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller"} {
			if p.Annotations[key] != "yes" {
				t.Errorf("the claim's annotations are %v", p.Annotations)
			}
		}
		if v.Annotations["pv.kubernetes.io/bound-by-controller"] != "yes" || v.Spec.ClaimRef.Kind != "PersistentVolumeClaim" {
			t.Errorf("the volume has %v and %v", v.Annotations, v.Spec.ClaimRef)
		}
		c.makeClaim("second", "1Gi", "manual")
		c.wantBound("second", "large")
		c.makeClaim("third", "1Gi", "manual")
		c.wantEvent("default", "third", "ProvisioningFailed", `storageclass.storage.k8s.io "manual" not found`)
		c.deleteClaim("data")
		c.wantVolume("small", corev1.VolumeReleased)
		c.settle()
		c.wantVolume("small", corev1.VolumeReleased)
		c.patchVolume("small", `{"spec":{"claimRef":null}}`)
		c.wantBound("third", "small")
	})
}

func TestClaimsAndVolumesThatNameEachOther(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeVolume("mine", "9Gi", "manual", func(v *corev1.PersistentVolume) {
			v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "default", Name: "owner"}
		})
		c.makeVolume("tiny", "1Gi", "manual")
		c.wantVolume("mine", corev1.VolumeAvailable)
		c.makeClaim("stranger", "5Gi", "manual")
		c.makeClaim("greedy", "5Gi", "manual", func(p *corev1.PersistentVolumeClaim) { p.Spec.VolumeName = "tiny" })
		c.wantEvent("default", "greedy", "VolumeMismatch", `Cannot bind to requested volume "tiny": requested PV is too small`)
		c.makeClaim("owner", "1Gi", "manual")
		c.wantBound("owner", "mine")
		if _, chosen := c.volume("mine").Annotations["pv.kubernetes.io/bound-by-controller"]; chosen {
			t.Error("the user's choice is marked as the controller's")
		}
		c.makeClaim("early", "1Gi", "manual", func(p *corev1.PersistentVolumeClaim) { p.Spec.VolumeName = "late" })
		c.settle()
		if got := c.claim("early").Status.Phase; got != corev1.ClaimPending {
			t.Errorf("a claim whose volume is not there is %s", got)
		}
		c.makeVolume("late", "1Gi", "manual")
		c.wantBound("early", "late")
		c.makeClaim("thief", "1Gi", "manual", func(p *corev1.PersistentVolumeClaim) { p.Spec.VolumeName = "late" })
		c.wantEvent("default", "thief", "FailedBinding", `volume "late" already bound to a different claim.`)
		if got := c.claim("stranger").Status.Phase; got != corev1.ClaimPending {
			t.Errorf("the stranger is %s", got)
		}
	})
}

func TestClaimWaitsForItsConsumerAndProvisioner(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeClass("later", "example.com/disks", storagev1.VolumeBindingWaitForFirstConsumer)
		c.makeVolume("free", "1Gi", "later")
		c.makeClaim("data", "1Gi", "later")
		c.wantEvent("default", "data", "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
		if _, err := c.Client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{
			SchedulerName: "nobody", Containers: []corev1.Container{{Name: "c", Image: "i"}},
			Volumes: []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.wantEvent("default", "data", "WaitForPodScheduled", "waiting for pod p to be scheduled")
		c.settle()
		if p := c.claim("data"); p.Status.Phase != corev1.ClaimPending || p.Annotations["volume.kubernetes.io/storage-provisioner"] != "" {
			t.Fatalf("the claim does not wait: %v %v", p.Status, p.Annotations)
		}
		c.annotateClaim("data", "volume.kubernetes.io/selected-node", "node-1")
		c.wantEvent("default", "data", "ExternalProvisioning", "'example.com/disks'")
		p := c.claim("data")
		for _, key := range []string{"volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"} {
			if p.Annotations[key] != "example.com/disks" {
				t.Errorf("the claim's annotations are %v", p.Annotations)
			}
		}
		c.makeVolume("pvc-"+string(p.UID), "1Gi", "later", func(v *corev1.PersistentVolume) {
			v.Annotations = map[string]string{"pv.kubernetes.io/provisioned-by": "example.com/disks"}
			v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
			v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "default", Name: "data", UID: p.UID}
		})
		c.wantBound("data", "pvc-"+string(p.UID))
		if err := c.Client.CoreV1().Pods("default").Delete(t.Context(), "p", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
			t.Fatal(err)
		}
		c.deleteClaim("data")
		// Its provisioner is to delete it now.
		c.wantVolume("pvc-"+string(p.UID), corev1.VolumeReleased)
	})
}

func TestClaimWithoutClassGetsALaterDefault(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeClaim("data", "1Gi", "-")
		c.makeClaim("none", "1Gi", "")
		c.wantEvent("default", "data", "FailedBinding", "no persistent volumes available for this claim and no storage class is set")
		c.makeClass("disks", "example.com/disks", storagev1.VolumeBindingImmediate, func(s *storagev1.StorageClass) {
			s.Annotations = map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}
		})
		c.wantEvent("default", "data", "ExternalProvisioning", "example.com/disks")
		if p := c.claim("data"); p.Spec.StorageClassName == nil || *p.Spec.StorageClassName != "disks" {
			t.Errorf("the class is %v", p.Spec.StorageClassName)
		}
		if p := c.claim("none"); *p.Spec.StorageClassName != "" {
			t.Errorf("a claim that wants no class got %q", *p.Spec.StorageClassName)
		}
		c.makeClass("old", "kubernetes.io/no-provisioner", storagev1.VolumeBindingImmediate)
		c.makeClaim("static", "1Gi", "old")
		c.wantEvent("default", "static", "ProvisioningFailed", "no volume plugin matched name: kubernetes.io/no-provisioner")
	})
}

func TestLostAndFailedVolumes(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		for name, policy := range map[string]corev1.PersistentVolumeReclaimPolicy{
			"recycled": corev1.PersistentVolumeReclaimRecycle, "deleted": corev1.PersistentVolumeReclaimDelete,
		} {
			c.makeVolume(name, "1Gi", name, func(v *corev1.PersistentVolume) { v.Spec.PersistentVolumeReclaimPolicy = policy })
			c.makeClaim(name, "1Gi", name)
			c.wantBound(name, name)
			c.deleteClaim(name)
			c.wantVolume(name, corev1.VolumeFailed)
		}
		c.wantEvent("default", "recycled", "VolumeFailedRecycle", "No recycler plugin found for the volume!")
		c.wantEvent("default", "deleted", "VolumeFailedDelete", "no deletable volume plugin matched")
		if v := c.volume("recycled"); v.Status.Message != "No recycler plugin found for the volume!" {
			t.Errorf("the message is %q", v.Status.Message)
		}
		c.makeVolume("gone", "1Gi", "lost")
		c.makeClaim("lost", "1Gi", "lost")
		c.wantBound("lost", "gone")
		if err := c.Client.CoreV1().PersistentVolumes().Delete(t.Context(), "gone", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.patchVolume("gone", `{"metadata":{"finalizers":null}}`)
		c.wantEvent("default", "lost", "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
		if p := c.claim("lost"); p.Status.Phase != corev1.ClaimLost {
			t.Errorf("the claim is %s", p.Status.Phase)
		}
		c.makeVolume("gone", "1Gi", "lost")
		c.wantBound("lost", "gone")
	})
}
