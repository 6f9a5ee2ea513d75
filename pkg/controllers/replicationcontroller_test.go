package controllers_test

import (
	"fmt"
	"slices"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func (c *cluster) makeReplicationController(name string, replicas int32) *corev1.ReplicationController {
	c.t.Helper()
	template := deployment(name, "v1", 1).Spec.Template
	rc, err := c.Client.CoreV1().ReplicationControllers("default").Create(c.t.Context(), &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ReplicationControllerSpec{Replicas: &replicas, Template: &template},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return rc
}

func (c *cluster) scaleReplicationController(name string, replicas int32) {
	c.t.Helper()
	_, err := c.Client.CoreV1().ReplicationControllers("default").UpdateScale(c.t.Context(), name, &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: autoscalingv1.ScaleSpec{Replicas: replicas},
	}, metav1.UpdateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
}

// wantReplicationController waits until all pods of it are available and its
// status has no failure.
func (c *cluster) wantReplicationController(name string, replicas int32) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%s has %d pods", name, replicas), func() error {
		rc, err := c.Client.CoreV1().ReplicationControllers("default").Get(c.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		s := rc.Status
		if !slices.Equal([]int32{s.Replicas, s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas},
			slices.Repeat([]int32{replicas}, 4)) || s.ObservedGeneration != rc.Generation || len(s.Conditions) > 0 {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
}

func TestReplicationControllerScalesAdoptsAndReleases(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		ctx, pods := t.Context(), c.Client.CoreV1().Pods("default")
		if _, err := pods.Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "lonely", Labels: map[string]string{"app": "rc"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "v1"}}},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		rc := c.makeReplicationController("rc", 2)
		c.wantReplicationController("rc", 2)
		p, err := pods.Get(ctx, "lonely", metav1.GetOptions{})
		if err != nil || !metav1.IsControlledBy(p, rc) {
			t.Fatalf("the ownerless pod has owners %v, err %v", p.OwnerReferences, err)
		}
		if _, err := pods.Patch(ctx, "lonely", types.MergePatchType, []byte(`{"metadata":{"labels":{"app":"other"}}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		c.wantPods(map[string]int{"v1": 3})
		if p, err = pods.Get(ctx, "lonely", metav1.GetOptions{}); err != nil || len(p.OwnerReferences) > 0 {
			t.Errorf("the released pod has owners %v, err %v", p.OwnerReferences, err)
		}
		c.scaleReplicationController("rc", 4)
		c.wantReplicationController("rc", 4)
		c.scaleReplicationController("rc", 1)
		c.wantReplicationController("rc", 1)
		policy := metav1.DeletePropagationBackground
		if err := c.Client.CoreV1().ReplicationControllers("default").Delete(ctx, "rc", metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
			t.Fatal(err)
		}
		c.wantPods(map[string]int{"v1": 1}) // the released one
	})
}

// TestReplicationControllerTellsOfRefusal: what keeps pods from being made is a
// condition, which goes when the cause or the wish goes.
func TestReplicationControllerTellsOfRefusal(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		ctx, limits := t.Context(), c.Client.CoreV1().LimitRanges("default")
		limit := &corev1.LimitRange{
			ObjectMeta: metav1.ObjectMeta{Name: "small"},
			Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
				Type: corev1.LimitTypePod, Max: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m")},
			}}},
		}
		wantRefused := func(name string) {
			t.Helper()
			c.eventually("the condition tells of the refusal", func() error {
				rc, err := c.Client.CoreV1().ReplicationControllers("default").Get(ctx, name, metav1.GetOptions{})
				if err != nil {
					return err
				}
				s := rc.Status
				if s.Replicas != 0 || len(s.Conditions) != 1 || s.Conditions[0].Type != corev1.ReplicationControllerReplicaFailure ||
					s.Conditions[0].Status != corev1.ConditionTrue || s.Conditions[0].Reason != "FailedCreate" {
					return fmt.Errorf("status %+v", s)
				}
				return nil
			})
		}
		if _, err := limits.Create(ctx, limit, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.makeReplicationController("one", 1)
		wantRefused("one")
		c.makeReplicationController("three", 3)
		wantRefused("three")
		c.scaleReplicationController("one", 0)
		c.wantReplicationController("one", 0)
		if err := limits.Delete(ctx, "small", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.wantReplicationController("three", 3)
	})
}

// TestReplicationControllerBeyondItsQuota: a part of the pods fits; scaled to
// that, there is no failure left.
func TestReplicationControllerBeyondItsQuota(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		ctx, controllers := t.Context(), c.Client.CoreV1().ReplicationControllers("default")
		if _, err := c.Client.CoreV1().ResourceQuotas("default").Create(ctx, &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Name: "two"},
			Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("2")}},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("the quota is in force", func() error {
			q, err := c.Client.CoreV1().ResourceQuotas("default").Get(ctx, "two", metav1.GetOptions{})
			if err == nil && len(q.Status.Hard) == 0 {
				err = fmt.Errorf("its status is empty")
			}
			return err
		})
		c.makeReplicationController("rc", 3)
		c.eventually("the condition tells of the quota", func() error {
			rc, err := controllers.Get(ctx, "rc", metav1.GetOptions{})
			if err != nil {
				return err
			}
			s := rc.Status
			if s.Replicas != 2 || len(s.Conditions) != 1 || s.Conditions[0].Reason != "FailedCreate" {
				return fmt.Errorf("status %+v", s)
			}
			return nil
		})
		c.scaleReplicationController("rc", 2)
		c.wantReplicationController("rc", 2)
	})
}
