package controllers_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// makeBudget makes a budget of the pods of an app; a bound that is "" is not
// set.
func (c *cluster) makeBudget(app, least, most string) {
	c.t.Helper()
	b := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: app},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}},
	}
	if least != "" {
		b.Spec.MinAvailable = new(intstr.Parse(least))
	}
	if most != "" {
		b.Spec.MaxUnavailable = new(intstr.Parse(most))
	}
	if _, err := c.Client.PolicyV1().PodDisruptionBudgets("default").Create(c.t.Context(), b, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) getBudget(name string) *policyv1.PodDisruptionBudget {
	c.t.Helper()
	b, err := c.Client.PolicyV1().PodDisruptionBudgets("default").Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

func (c *cluster) wantBudget(name string, expected, desired, healthy, allowed int32) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("budget %s allows %d", name, allowed), func() error {
		b := c.getBudget(name)
		s := b.Status
		if s.ExpectedPods != expected || s.DesiredHealthy != desired || s.CurrentHealthy != healthy || s.DisruptionsAllowed != allowed ||
			s.ObservedGeneration != b.Generation || len(s.DisruptedPods) > 0 {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
}

func (c *cluster) evict(name string) error {
	return c.Client.PolicyV1().Evictions("default").Evict(c.t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}})
}

func (c *cluster) podNames(app string) []string {
	c.t.Helper()
	pods, err := c.Client.CoreV1().Pods("default").List(c.t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		c.t.Fatal(err)
	}
	var out []string
	for _, p := range pods.Items {
		if p.DeletionTimestamp == nil {
			out = append(out, p.Name)
		}
	}
	return out
}

func TestBudgetOfADeployment(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeBudget("web", "75%", "")
		c.deploy("web", "v1", 4)
		c.wantBudget("web", 4, 3, 4, 1)
		c.node.change(func(s *simulator) { s.broken["v1"] = true }) // what comes next is not ready
		pods := c.podNames("web")
		if err := c.evict(pods[0]); err != nil {
			t.Fatal(err)
		}
		if err := c.evict(pods[1]); !apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause) {
			t.Errorf("the second eviction: %v", err)
		}
		c.wantBudget("web", 4, 3, 3, 0)
		c.patchDeployment("web", `{"spec":{"replicas":3}}`) // the broken one goes
		c.wantBudget("web", 3, 3, 3, 0)
		c.node.change(func(s *simulator) { delete(s.broken, "v1") })
		c.patchDeployment("web", `{"spec":{"replicas":8}}`)
		c.wantBudget("web", 8, 6, 8, 2)
	})
}

// TestDrainKeepsTheBudget evicts all pods of a node's worth, as a drain does:
// at no time there are fewer ready pods than the budget wants.
func TestDrainKeepsTheBudget(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeBudget("db", "", "1")
		c.makeStatefulSet(statefulSet(3))
		c.wantRolledOut()
		c.wantBudget("db", 3, 2, 3, 1)
		for _, name := range []string{"db-0", "db-1", "db-2"} {
			before, err := c.Client.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			c.eventually(name+" is evicted", func() error {
				err := c.evict(name)
				ready := 0
				for _, image := range c.members() {
					if !strings.HasSuffix(image, "not ready") {
						ready++
					}
				}
				if ready < 2 {
					t.Errorf("%d pods are ready while %s is evicted", ready, name)
				}
				return err
			})
			c.eventually(name+" is there again", func() error {
				p, err := c.Client.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
				if err == nil && p.UID == before.UID {
					err = fmt.Errorf("it is the same still")
				}
				return err
			})
		}
		c.wantBudget("db", 3, 2, 3, 1)
	})
}

// TestBudgetOfACustomOwner: any owner with a scale counts, and one without is
// said to have none.
func TestBudgetOfACustomOwner(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.settle()
		post := func(path, body string) []byte {
			t.Helper()
			var raw []byte
			c.eventually("POST "+path, func() (err error) {
				raw, err = c.Client.Discovery().RESTClient().Post().AbsPath(path).
					SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").Body([]byte(body)).Do(t.Context()).Raw()
				return err
			})
			return raw
		}
		post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition",
			"metadata":{"name":"fleets.example.org"},"spec":{"group":"example.org","scope":"Namespaced","names":{"plural":"fleets","kind":"Fleet"},
			"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}},
			"subresources":{"scale":{"specReplicasPath":".spec.replicas","statusReplicasPath":".status.replicas"}}}]}}`)
		var fleet metav1.PartialObjectMetadata
		if err := json.Unmarshal(post("/apis/example.org/v1/namespaces/default/fleets", `{"apiVersion":"example.org/v1","kind":"Fleet","metadata":{"name":"f"},"spec":{"replicas":5}}`), &fleet); err != nil {
			t.Fatal(err)
		}
		controls := true
		for i := range 3 {
			_, err := c.Client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("f-", i), Labels: map[string]string{"app": "f"}, OwnerReferences: []metav1.OwnerReference{
					{APIVersion: "example.org/v1", Kind: "Fleet", Name: "f", UID: fleet.UID, Controller: &controls},
				}},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "v1"}}},
			}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
		}
		c.makeBudget("f", "", "60%")
		c.wantBudget("f", 5, 2, 3, 1)
		c.makeDaemonSet("agent", "v1")
		c.wantDaemons("agent", "v1", "node-1", "node-2", "node-3")
		c.makeBudget("agent", "50%", "")
		c.eventually("the budget of daemons says that they have no scale", func() error {
			s := c.getBudget("agent").Status
			if len(s.Conditions) != 1 || s.Conditions[0].Reason != policyv1.SyncFailedReason || s.DisruptionsAllowed != 0 ||
				s.Conditions[0].Message != "daemonsets.apps does not implement the scale subresource" {
				return fmt.Errorf("status %+v", s)
			}
			return nil
		})
		if err := c.evict(c.podNames("agent")[0]); err == nil {
			t.Error("a pod of a budget that cannot be computed is evicted")
		}
	})
}

// TestGrantedEvictionThatNeverCame: the pod counts again, and says no longer
// that it will go.
func TestGrantedEvictionThatNeverCame(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.deploy("web", "v1", 2)
		c.makeBudget("web", "1", "")
		c.wantBudget("web", 2, 1, 2, 1)
		name := c.podNames("web")[0]
		c.eventually("an eviction is granted and its server dies", func() error {
			b := c.getBudget("web")
			b.Status.DisruptionsAllowed--
			b.Status.DisruptedPods = map[string]metav1.Time{name: metav1.Now()}
			_, err := c.Client.PolicyV1().PodDisruptionBudgets("default").UpdateStatus(t.Context(), b, metav1.UpdateOptions{})
			return err
		})
		p, err := c.Client.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", LastTransitionTime: metav1.Now(),
		})
		if _, err := c.Client.CoreV1().Pods("default").UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("it does not count", func() error {
			if s := c.getBudget("web").Status; s.CurrentHealthy != 1 || s.DisruptionsAllowed != 0 || len(s.DisruptedPods) != 1 {
				return fmt.Errorf("status %+v", s)
			}
			return nil
		})
		c.settle() // two minutes
		c.wantBudget("web", 2, 1, 2, 1)
		if p, err = c.Client.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, cond := range p.Status.Conditions {
			if cond.Type == corev1.DisruptionTarget && cond.Status != corev1.ConditionFalse {
				t.Errorf("the pod still says %+v", cond)
			}
		}
	})
}
