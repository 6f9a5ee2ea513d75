package controllers_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func deployment(name, image string, replicas int32) *appsv1.Deployment {
	surge, unavailable := intstr.FromInt32(1), intstr.FromInt32(0)
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable},
			},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: image}}},
			},
		},
	}
}

// deploy creates a Deployment and waits until it is complete.
func (c *cluster) deploy(name, image string, replicas int32) *appsv1.Deployment {
	c.t.Helper()
	d, err := c.Client.AppsV1().Deployments("default").Create(c.t.Context(), deployment(name, image, replicas), metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	c.wantComplete(name)
	return d
}

func (c *cluster) getDeployment(name string) *appsv1.Deployment {
	c.t.Helper()
	d, err := c.Client.AppsV1().Deployments("default").Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return d
}

// wantComplete waits until the rollout has ended well.
func (c *cluster) wantComplete(name string) {
	c.t.Helper()
	c.eventually("deployment "+name+" completes", func() error {
		d := c.getDeployment(name)
		s := d.Status
		if n := *d.Spec.Replicas; s.ObservedGeneration != d.Generation || s.UpdatedReplicas != n || s.Replicas != n || s.AvailableReplicas != n {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
}

// patchDeployment applies a JSON merge patch.
func (c *cluster) patchDeployment(name, patch string) {
	c.t.Helper()
	if _, err := c.Client.AppsV1().Deployments("default").Patch(c.t.Context(), name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) setImage(name, image string) {
	c.t.Helper()
	c.patchDeployment(name, fmt.Sprintf(`{"spec":{"template":{"spec":{"containers":[{"name":"main","image":%q}]}}}}`, image))
}

func (c *cluster) wantPods(want map[string]int) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("ready pods are %v", want), func() error {
		if got := c.readyPods("default"); !maps.Equal(got, want) {
			return fmt.Errorf("they are %v", got)
		}
		return nil
	})
}

func (c *cluster) sets(labels string) []appsv1.ReplicaSet {
	c.t.Helper()
	list, err := c.Client.AppsV1().ReplicaSets("default").List(c.t.Context(), metav1.ListOptions{LabelSelector: labels})
	if err != nil {
		c.t.Fatal(err)
	}
	return list.Items
}

func TestDeploymentScalesRollsAndRollsBack(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.deploy("web", "v1", 3)
		c.wantPods(map[string]int{"v1": 3})
		c.patchDeployment("web", `{"spec":{"replicas":5}}`)
		c.wantPods(map[string]int{"v1": 5})
		c.patchDeployment("web", `{"spec":{"replicas":2}}`)
		c.wantPods(map[string]int{"v1": 2})
		c.setImage("web", "v2")
		c.wantComplete("web")
		c.wantPods(map[string]int{"v2": 2})
		if got := c.getDeployment("web").Annotations["deployment.kubernetes.io/revision"]; got != "2" {
			t.Errorf("revision is %s, want 2", got)
		}
		c.setImage("web", "v1")
		c.wantComplete("web")
		c.wantPods(map[string]int{"v1": 2})
		if got := c.getDeployment("web").Annotations["deployment.kubernetes.io/revision"]; got != "3" {
			t.Errorf("revision is %s, want 3", got)
		}
		if n := len(c.sets("app=web")); n != 2 {
			t.Errorf("%d replica sets, want the two templates' own", n)
		}
	})
}

func TestDeletedPodIsReplaced(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.deploy("web", "v1", 3)
		pods, err := c.Client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		victim := pods.Items[0]
		if err := c.Client.CoreV1().Pods("default").Delete(t.Context(), victim.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("the pod is gone", func() error {
			_, err := c.Client.CoreV1().Pods("default").Get(t.Context(), victim.Name, metav1.GetOptions{})
			if !apierrors.IsNotFound(err) {
				return fmt.Errorf("still there: %v", err)
			}
			return nil
		})
		c.wantPods(map[string]int{"v1": 3})
	})
}

func TestReplicaSetAdoptsAndReleases(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		pods := c.Client.CoreV1().Pods("default")
		_, err := pods.Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "lonely", Labels: map[string]string{"app": "web"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "v1"}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		one := int32(1)
		rs, err := c.Client.AppsV1().ReplicaSets("default").Create(t.Context(), &appsv1.ReplicaSet{
			ObjectMeta: metav1.ObjectMeta{Name: "rs"},
			Spec: appsv1.ReplicaSetSpec{
				Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
				Template: deployment("web", "v1", 1).Spec.Template,
			},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c.eventually("the pod is adopted", func() error {
			p, err := pods.Get(t.Context(), "lonely", metav1.GetOptions{})
			if err != nil || !metav1.IsControlledBy(p, rs) {
				return fmt.Errorf("owners %v, err %v", p.OwnerReferences, err)
			}
			return nil
		})
		if _, err := pods.Patch(t.Context(), "lonely", types.MergePatchType, []byte(`{"metadata":{"labels":{"app":"other"}}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("the pod is released and replaced", func() error {
			p, err := pods.Get(t.Context(), "lonely", metav1.GetOptions{})
			if err != nil || len(p.OwnerReferences) != 0 {
				return fmt.Errorf("owners %v, err %v", p.OwnerReferences, err)
			}
			if n := c.readyPods("default")["v1"]; n != 2 {
				return fmt.Errorf("%d ready pods, want 2", n)
			}
			return nil
		})
	})
}

func TestNamespaceFurniture(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		if _, err := c.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "new"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("account and CA are there", func() error {
			if _, err := c.Client.CoreV1().ServiceAccounts("new").Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
				return err
			}
			m, err := c.Client.CoreV1().ConfigMaps("new").Get(t.Context(), "kube-root-ca.crt", metav1.GetOptions{})
			if err == nil && m.Data["ca.crt"] != "a certificate" {
				err = fmt.Errorf("data is %v", m.Data)
			}
			return err
		})
	})
}

func TestPropagationPolicies(t *testing.T) {
	for _, tc := range []struct {
		policy metav1.DeletionPropagation
		pods   int // ready pods that stay
		sets   int
	}{
		{metav1.DeletePropagationBackground, 0, 0},
		{metav1.DeletePropagationForeground, 0, 0},
		{metav1.DeletePropagationOrphan, 2, 1},
	} {
		t.Run(string(tc.policy), func(t *testing.T) {
			scenario(t, func(t *testing.T, c *cluster) {
				c.deploy("web", "v1", 2)
				if err := c.Client.AppsV1().Deployments("default").Delete(t.Context(), "web", metav1.DeleteOptions{PropagationPolicy: &tc.policy}); err != nil {
					t.Fatal(err)
				}
				c.eventually("the deployment is gone and its dependents as they should be", func() error {
					if _, err := c.Client.AppsV1().Deployments("default").Get(t.Context(), "web", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
						return fmt.Errorf("deployment: %v", err)
					}
					pods, err := c.Client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
					if err != nil {
						return err
					}
					sets := c.sets("app=web")
					if len(pods.Items) != tc.pods || len(sets) != tc.sets {
						return fmt.Errorf("%d pods and %d sets, want %d and %d", len(pods.Items), len(sets), tc.pods, tc.sets)
					}
					for _, rs := range sets {
						if len(rs.OwnerReferences) != 0 {
							return fmt.Errorf("the orphaned set still has owners %v", rs.OwnerReferences)
						}
					}
					return nil
				})
				time.Sleep(time.Minute)
				if n := len(c.sets("app=web")); n != tc.sets {
					t.Errorf("a minute later there are %d sets, want %d", n, tc.sets)
				}
			})
		})
	}
}

func TestForegroundOwnerWaitsForItsPods(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.deploy("web", "v1", 2)
		c.node.change(func(s *simulator) { s.hold = true })
		policy := metav1.DeletePropagationForeground
		if err := c.Client.AppsV1().Deployments("default").Delete(t.Context(), "web", metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		if d := c.getDeployment("web"); d.DeletionTimestamp == nil {
			t.Error("the deployment is not being deleted")
		}
		if n := len(c.sets("app=web")); n != 1 {
			t.Errorf("%d sets while the pods end, want 1", n)
		}
		c.node.change(func(s *simulator) { s.hold = false })
		c.eventually("all is gone", func() error {
			if _, err := c.Client.AppsV1().Deployments("default").Get(t.Context(), "web", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				return fmt.Errorf("deployment: %v", err)
			}
			return nil
		})
	})
}

func TestNamespaceIsEmptiedAndGoes(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		ctx := t.Context()
		if _, err := c.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "doomed"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Client.AppsV1().Deployments("doomed").Create(ctx, deployment("web", "v1", 2), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		held := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "held", Finalizers: []string{"example.org/hold"}}}
		if _, err := c.Client.CoreV1().ConfigMaps("doomed").Create(ctx, held, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("pods run", func() error {
			if n := c.readyPods("doomed")["v1"]; n != 2 {
				return fmt.Errorf("%d ready", n)
			}
			return nil
		})
		if err := c.Client.CoreV1().Namespaces().Delete(ctx, "doomed", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("the condition names the finalizer", func() error {
			ns, err := c.Client.CoreV1().Namespaces().Get(ctx, "doomed", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, cond := range ns.Status.Conditions {
				if cond.Type == corev1.NamespaceFinalizersRemaining && cond.Status == corev1.ConditionTrue &&
					cond.Message == "Some content in the namespace has finalizers remaining: example.org/hold in 1 resource instances" {
					return nil
				}
			}
			return fmt.Errorf("conditions %v", ns.Status.Conditions)
		})
		if _, err := c.Client.CoreV1().ConfigMaps("doomed").Patch(ctx, "held", types.MergePatchType, []byte(`{"metadata":{"finalizers":[]}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("the namespace is gone", func() error {
			ns, err := c.Client.CoreV1().Namespaces().Get(ctx, "doomed", metav1.GetOptions{})
			if !apierrors.IsNotFound(err) {
				return fmt.Errorf("namespace %+v: %v", ns.Status, err)
			}
			return nil
		})
	})
}
