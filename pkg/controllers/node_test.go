package controllers_test

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/controllers"
	"coracle/pkg/controllers/nodelifecycle"
)

func (c *cluster) getNode(name string) *corev1.Node {
	c.t.Helper()
	n, err := c.Client.CoreV1().Nodes().Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

func (c *cluster) wantTaints(node string, want ...string) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("taints of %s are %v", node, want), func() error {
		var got []string
		for _, t := range c.getNode(node).Spec.Taints {
			got = append(got, t.ToString())
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("they are %v", got)
		}
		return nil
	})
}

func TestNodesGetRangesOfTheirOwn(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.eventually("every node has a range", func() error {
			seen := map[string]bool{}
			for _, name := range c.node.names {
				n := c.getNode(name)
				if n.Spec.PodCIDR == "" || len(n.Spec.PodCIDRs) != 1 || seen[n.Spec.PodCIDR] {
					return fmt.Errorf("node %s has %q %v", name, n.Spec.PodCIDR, n.Spec.PodCIDRs)
				}
				seen[n.Spec.PodCIDR] = true
			}
			return nil
		})
	})
}

// settle waits until all nodes are ready and the start's grace is over.
func (c *cluster) settle() {
	c.t.Helper()
	for _, name := range c.node.names {
		c.wantTaints(name)
	}
	time.Sleep(2 * time.Minute)
}

func TestDeadNodesPodsAreReplaced(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeService("web", map[string]string{"app": "web"})
		c.settle()
		patient := deployment("web", "v1", 6)
		seconds := int64(30)
		for _, key := range []string{corev1.TaintNodeUnreachable, corev1.TaintNodeNotReady} {
			patient.Spec.Template.Spec.Tolerations = append(patient.Spec.Template.Spec.Tolerations, corev1.Toleration{
				Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds,
			})
		}
		if _, err := c.Client.AppsV1().Deployments("default").Create(t.Context(), patient, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.wantComplete("web")
		begin := time.Now()
		c.node.change(func(s *simulator) { s.dead["node-2"] = true })
		c.wantTaints("node-2", "node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute")
		if after := time.Since(begin); after < 40*time.Second || after > time.Minute {
			t.Errorf("the dead node was given up after %v, want about the grace of 50 s", after)
		}
		c.eventually("its pods leave the service", func() error {
			if _, ready := c.slices("web"); len(ready) >= 6 || len(ready) == 0 {
				return fmt.Errorf("%d ready endpoints", len(ready))
			}
			return nil
		})
		c.eventually("its pods are replaced elsewhere", func() error {
			pods, err := c.Client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
			if err != nil {
				return err
			}
			living := 0
			for _, p := range pods.Items {
				if p.DeletionTimestamp == nil && p.Spec.NodeName != "node-2" && p.Status.Phase == corev1.PodRunning {
					living++
				}
			}
			if living != 6 {
				return fmt.Errorf("%d run elsewhere", living)
			}
			return nil
		})
		if after := time.Since(begin); after < 70*time.Second || after > 95*time.Second {
			t.Errorf("replaced after %v, want grace and toleration, 80 s", after)
		}
		c.node.change(func(s *simulator) { s.dead["node-2"] = false })
		c.wantTaints("node-2")
	})
}

func TestShortGraceIsObeyed(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.settle()
		begin := time.Now()
		c.node.change(func(s *simulator) { s.dead["node-3"] = true })
		c.wantTaints("node-3", "node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute")
		if after := time.Since(begin); after > 25*time.Second {
			t.Errorf("given up after %v with a grace of 15 s", after)
		}
	}, func(c *controllers.Config) { c.NodeLifecycle = nodelifecycle.Config{Grace: 15 * time.Second} })
}

func TestNobodyIsEvictedWhenAllNodesAreSilent(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.settle()
		c.deploy("web", "v1", 3)
		c.node.change(func(s *simulator) {
			for _, n := range s.names {
				s.dead[n] = true
			}
		})
		for _, n := range c.node.names {
			c.wantTaints(n, "node.kubernetes.io/unreachable:NoSchedule")
		}
		time.Sleep(20 * time.Minute)
		pods, err := c.Client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pods.Items {
			if p.DeletionTimestamp != nil {
				t.Errorf("pod %s was evicted though there is nowhere to go", p.Name)
			}
		}
	})
}

func TestPodsOfADeletedNodeAreCollected(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.settle()
		c.deploy("web", "v1", 6)
		c.node.change(func(s *simulator) { s.dead["node-1"] = true })
		if err := c.Client.CoreV1().Nodes().Delete(t.Context(), "node-1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("no pod is left on it", func() error {
			pods, err := c.Client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
			if err != nil {
				return err
			}
			for _, p := range pods.Items {
				if p.Spec.NodeName == "node-1" {
					return fmt.Errorf("pod %s is", p.Name)
				}
			}
			return nil
		})
		c.wantComplete("web")
	})
}

func TestRolesAreAggregated(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		roles := c.Client.RbacV1().ClusterRoles()
		rule := rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{"example.org"}, Resources: []string{"widgets"}}
		_, err := roles.Create(t.Context(), &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "widgets", Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
			Rules:      []rbacv1.PolicyRule{rule},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"view", "edit", "admin"} {
			c.eventually(name+" has the rule", func() error {
				r, err := roles.Get(t.Context(), name, metav1.GetOptions{})
				if err != nil {
					return err
				}
				for _, have := range r.Rules {
					if len(have.APIGroups) == 1 && have.APIGroups[0] == "example.org" {
						return nil
					}
				}
				return fmt.Errorf("%d rules, not this one", len(r.Rules))
			})
		}
		if err := roles.Delete(t.Context(), "widgets", metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
	})
}
