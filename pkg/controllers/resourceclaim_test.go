package controllers_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// gpuTemplate makes a template whose claims ask for one device.
func (c *cluster) gpuTemplate(name string) {
	c.t.Helper()
	_, err := c.Client.ResourceV1().ResourceClaimTemplates("default").Create(c.t.Context(), &resourcev1.ResourceClaimTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: resourcev1.ResourceClaimTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"kind": "gpu"}},
			Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{
				{Name: "gpu", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu"}}}}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
}

// podWithClaims makes a pod that the simulated nodes leave alone.
func (c *cluster) podWithClaims(name string, claims ...corev1.PodResourceClaim) *corev1.Pod {
	c.t.Helper()
	pod, err := c.Client.CoreV1().Pods("default").Create(c.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "c", Image: "i"}}, ResourceClaims: claims,
			SchedulingGates: []corev1.PodSchedulingGate{{Name: "example.com/later"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return pod
}

// wantClaim waits for the claim that was made for a pod's reference.
func (c *cluster) wantClaim(pod, reference string) *resourcev1.ResourceClaim {
	c.t.Helper()
	var claim *resourcev1.ResourceClaim
	c.eventually("pod "+pod+" has claim "+reference, func() error {
		p, err := c.Client.CoreV1().Pods("default").Get(c.t.Context(), pod, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, s := range p.Status.ResourceClaimStatuses {
			if s.Name == reference && s.ResourceClaimName != nil {
				claim, err = c.Client.ResourceV1().ResourceClaims("default").Get(c.t.Context(), *s.ResourceClaimName, metav1.GetOptions{})
				return err
			}
		}
		return fmt.Errorf("its status says %v", p.Status.ResourceClaimStatuses)
	})
	return claim
}

// allocate does as a scheduler does: a finalizer, devices and a user.
func (c *cluster) allocate(claim *resourcev1.ResourceClaim, pods ...*corev1.Pod) *resourcev1.ResourceClaim {
	c.t.Helper()
	claims := c.Client.ResourceV1().ResourceClaims(claim.Namespace)
	claim.Finalizers = append(claim.Finalizers, resourcev1.Finalizer)
	claim, err := claims.Update(c.t.Context(), claim, metav1.UpdateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	claim.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{
		Results: []resourcev1.DeviceRequestAllocationResult{{Request: "gpu", Driver: "gpu.example.com", Pool: "p", Device: "d"}}}}
	for _, p := range pods {
		claim.Status.ReservedFor = append(claim.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: p.Name, UID: p.UID})
	}
	if claim, err = claims.UpdateStatus(c.t.Context(), claim, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	return claim
}

// wantFree waits until a claim is there and nobody has it.
func (c *cluster) wantFree(name string) {
	c.t.Helper()
	c.eventually("claim "+name+" is free", func() error {
		claim, err := c.Client.ResourceV1().ResourceClaims("default").Get(c.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if claim.Status.Allocation != nil || len(claim.Status.ReservedFor) > 0 || len(claim.Finalizers) > 0 {
			return fmt.Errorf("it has finalizers %v and status %+v", claim.Finalizers, claim.Status)
		}
		return nil
	})
}

// wantNoClaim waits until a claim is gone.
func (c *cluster) wantNoClaim(name string) {
	c.t.Helper()
	c.eventually("claim "+name+" goes", func() error {
		_, err := c.Client.ResourceV1().ResourceClaims("default").Get(c.t.Context(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(errors.New("it is there"), err)
	})
}

func (c *cluster) deletePod(name string) {
	c.t.Helper()
	if err := c.Client.CoreV1().Pods("default").Delete(c.t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		c.t.Fatal(err)
	}
}

func ofTemplate(name, template string) corev1.PodResourceClaim {
	return corev1.PodResourceClaim{Name: name, ResourceClaimTemplateName: &template}
}

func ofClaim(name, claim string) corev1.PodResourceClaim {
	return corev1.PodResourceClaim{Name: name, ResourceClaimName: &claim}
}

// TestResourceClaimsOfATemplate: each reference has a claim of its own, which
// the pod's status names and which goes with the pod, devices or not.
func TestResourceClaimsOfATemplate(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		pod := c.podWithClaims("a", ofTemplate("left", "gpu"), ofTemplate("right", "gpu"))
		c.wantEvent("default", "a", "FailedResourceClaimCreation", `PodResourceClaim left: resource claim template "gpu": resourceclaimtemplate.resource.k8s.io "gpu" not found`)
		c.gpuTemplate("gpu")
		left, right := c.wantClaim("a", "left"), c.wantClaim("a", "right")
		if left.Name == right.Name || !metav1.IsControlledBy(left, pod) || left.Labels["kind"] != "gpu" ||
			left.Annotations[resourcev1.PodResourceClaimAnnotation] != "left" || left.GenerateName != "a-left-" {
			t.Errorf("claims %+v and %s", left.ObjectMeta, right.Name)
		}
		c.allocate(left, pod)
		c.deletePod("a")
		c.wantNoClaim(left.Name)
		c.wantNoClaim(right.Name)
	})
}

// TestResourceClaimOfAPodThatIsDone: a claim made for the pod goes although the
// pod stays, and one that others may use again is freed.
func TestResourceClaimOfAPodThatIsDone(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.gpuTemplate("gpu")
		spec := resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{
			{Name: "gpu", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu"}}}}}
		shared, err := c.Client.ResourceV1().ResourceClaims("default").Create(t.Context(), &resourcev1.ResourceClaim{
			ObjectMeta: metav1.ObjectMeta{Name: "shared"}, Spec: spec}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		a := c.podWithClaims("a", ofTemplate("own", "gpu"), ofClaim("shared", "shared"))
		b := c.podWithClaims("b", ofClaim("shared", "shared"))
		own := c.allocate(c.wantClaim("a", "own"), a)
		c.allocate(shared, a, b)
		a, err = c.Client.CoreV1().Pods("default").Get(t.Context(), "a", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		a.Status.Phase = corev1.PodSucceeded
		if _, err := c.Client.CoreV1().Pods("default").UpdateStatus(t.Context(), a, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.wantNoClaim(own.Name)
		c.eventually("the other pod keeps the shared claim", func() error {
			claim, err := c.Client.ResourceV1().ResourceClaims("default").Get(t.Context(), "shared", metav1.GetOptions{})
			if err != nil {
				return err
			}
			if r := claim.Status.ReservedFor; len(r) != 1 || r[0].UID != b.UID || claim.Status.Allocation == nil || !slices.Contains(claim.Finalizers, resourcev1.Finalizer) {
				return fmt.Errorf("finalizers %v, status %+v", claim.Finalizers, claim.Status)
			}
			return nil
		})
		c.deletePod("b")
		c.wantFree("shared")
	})
}

// TestDeletedResourceClaimStaysWhileItIsUsed: its protection goes with its last
// user.
func TestDeletedResourceClaimStaysWhileItIsUsed(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.gpuTemplate("gpu")
		pod := c.podWithClaims("a", ofTemplate("gpu", "gpu"))
		claim := c.allocate(c.wantClaim("a", "gpu"), pod)
		if err := c.Client.ResourceV1().ResourceClaims("default").Delete(t.Context(), claim.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.settle()
		claim, err := c.Client.ResourceV1().ResourceClaims("default").Get(t.Context(), claim.Name, metav1.GetOptions{})
		if err != nil || claim.Status.Allocation == nil || len(claim.Status.ReservedFor) != 1 {
			t.Fatalf("the claim is %+v, error %v", claim, err)
		}
		c.deletePod("a")
		c.wantNoClaim(claim.Name)
	})
}

// TestResourceClaimsOfAPodAreMadeOnce kills the controllers at their writes: no
// second claim is made for a reference.
func TestResourceClaimsOfAPodAreMadeOnce(t *testing.T) {
	crashAt(t, 16, 31, 3, func(t *testing.T, c *cluster) {
		c.settle()
		c.gpuTemplate("gpu")
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"} {
			c.podWithClaims(name, ofTemplate("gpu", "gpu"))
			c.wantClaim(name, "gpu")
		}
		list, err := c.Client.ResourceV1().ResourceClaims("default").List(t.Context(), metav1.ListOptions{})
		if err != nil || len(list.Items) != 10 {
			t.Errorf("%d claims for ten pods, error %v", len(list.Items), err)
		}
	})
}

// TestTaintedDeviceEvicts: a rule ends the pods that have its devices when it says
// NoExecute, not before.
func TestTaintedDeviceEvicts(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.gpuTemplate("gpu")
		onNode := func(name string) {
			p, err := c.Client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: name},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}, NodeName: "node-1",
					ResourceClaims: []corev1.PodResourceClaim{ofTemplate("gpu", "gpu")}},
			}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			c.allocate(c.wantClaim(name, "gpu"), p)
		}
		onNode("a")
		driver, pool := "gpu.example.com", "p"
		rule := &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "rule"}, Spec: resourcev1.DeviceTaintRuleSpec{
			DeviceSelector: &resourcev1.DeviceTaintSelector{Driver: &driver},
			Taint:          resourcev1.DeviceTaint{Key: "broken", Effect: resourcev1.DeviceTaintEffectNoSchedule}}}
		rules := c.Client.ResourceV1().DeviceTaintRules()
		rule, err := rules.Create(t.Context(), rule, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c.settle()
		if p, err := c.Client.CoreV1().Pods("default").Get(t.Context(), "a", metav1.GetOptions{}); err != nil || p.DeletionTimestamp != nil {
			t.Fatalf("a taint that only keeps pods off ended one: %v", err)
		}
		rule.Spec.DeviceSelector.Pool, rule.Spec.Taint.Effect = &pool, resourcev1.DeviceTaintEffectNoExecute
		if _, err := rules.Update(t.Context(), rule, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.wantEvent("default", "a", "DeviceTaintManagerEviction", "Marking for deletion")
		c.eventually("the pod is gone", func() error {
			_, err := c.Client.CoreV1().Pods("default").Get(t.Context(), "a", metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("it is there (%v)", err)
		})
	})
}
