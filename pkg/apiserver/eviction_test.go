package apiserver_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"coracle/pkg/storage"
	"coracle/pkg/storage/memory"
	"coracle/pkg/testcluster"
)

// runningPod makes a bound, ready pod.
func (s *server) runningPod(t *testing.T, name string, ready corev1.ConditionStatus) *corev1.Pod {
	t.Helper()
	p := s.makePod(t, pod(name, "n"))
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	p, err := s.Client.CoreV1().Pods("default").UpdateStatus(t.Context(), p, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (s *server) evict(t *testing.T, name string, opts *metav1.DeleteOptions) error {
	t.Helper()
	return s.Client.PolicyV1().Evictions("default").Evict(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, DeleteOptions: opts})
}

func (s *server) budget(t *testing.T, allowed, healthy, desired int32) *policyv1.PodDisruptionBudget {
	t.Helper()
	least := intstr.FromInt32(desired)
	b, err := s.Client.PolicyV1().PodDisruptionBudgets("default").Create(t.Context(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &least, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s.setBudget(t, b, allowed, healthy, desired)
}

func (s *server) setBudget(t *testing.T, b *policyv1.PodDisruptionBudget, allowed, healthy, desired int32) *policyv1.PodDisruptionBudget {
	t.Helper()
	b.ResourceVersion = ""
	b.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: b.Generation, DisruptionsAllowed: allowed, CurrentHealthy: healthy, DesiredHealthy: desired, ExpectedPods: healthy}
	fresh, err := s.Client.PolicyV1().PodDisruptionBudgets("default").Get(t.Context(), b.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	fresh.Status = b.Status
	fresh.Status.ObservedGeneration = fresh.Generation
	fresh, err = s.Client.PolicyV1().PodDisruptionBudgets("default").UpdateStatus(t.Context(), fresh, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return fresh
}

// TestEviction: an eviction spends one disruption of the pod's budget, tells
// why on the pod, and is refused when there is none left.
func TestEviction(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		ctx, pods, budgets := t.Context(), s.Client.CoreV1().Pods("default"), s.Client.PolicyV1().PodDisruptionBudgets("default")
		for _, name := range []string{"a", "b", "c"} {
			s.runningPod(t, name, corev1.ConditionTrue)
		}
		b := s.budget(t, 1, 3, 2)
		if err := s.evict(t, "a", &metav1.DeleteOptions{DryRun: []string{"All"}}); err != nil {
			t.Fatal(err)
		}
		if got, err := pods.Get(ctx, "a", metav1.GetOptions{}); err != nil || got.DeletionTimestamp != nil || len(got.Status.Conditions) != 1 {
			t.Fatalf("a dry run changed the pod to %v (%v)", got, err)
		}
		if err := s.evict(t, "a", nil); err != nil {
			t.Fatal(err)
		}
		got, err := pods.Get(ctx, "a", metav1.GetOptions{})
		if err != nil || got.DeletionTimestamp == nil {
			t.Fatalf("an evicted pod: %v (%v)", got, err)
		}
		if c := got.Status.Conditions[len(got.Status.Conditions)-1]; c.Type != corev1.DisruptionTarget || c.Reason != "EvictionByEvictionAPI" || c.Status != corev1.ConditionTrue {
			t.Errorf("the pod's conditions are %v", got.Status.Conditions)
		}
		spent, err := budgets.Get(ctx, "web", metav1.GetOptions{})
		if err != nil || spent.Status.DisruptionsAllowed != 0 || len(spent.Status.DisruptedPods) != 1 {
			t.Fatalf("the budget is %+v (%v)", spent.Status, err)
		}
		err = s.evict(t, "b", nil)
		refused(t, err, 429, metav1.StatusReasonTooManyRequests, "Cannot evict pod as it would violate the pod's disruption budget.")
		if !apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause) {
			t.Errorf("no cause DisruptionBudget: %v", err)
		}
		// A budget whose change was not seen yet allows nothing.
		s.setBudget(t, b, 1, 3, 2)
		if _, err := budgets.Patch(ctx, "web", types.MergePatchType, []byte(`{"spec":{"minAvailable":1}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		// Without client-go, which obeys Retry-After.
		a := s.must(t, 429, "POST", "/api/v1/namespaces/default/pods/b/eviction",
			`{"kind":"Eviction","apiVersion":"policy/v1","metadata":{"name":"b"}}`, contentType(jsonBody))
		if status := a.status(t); a.header.Get("Retry-After") != "10" || status.Details.RetryAfterSeconds != 10 {
			t.Errorf("a stale budget: %v %v", a.header, status)
		}
		other := types.UID("other")
		if err := s.evict(t, "b", &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}}); !apierrors.IsConflict(err) {
			t.Errorf("an eviction of another pod of this name: %v", err)
		}
		if err := s.evict(t, "none", nil); !apierrors.IsNotFound(err) {
			t.Errorf("an eviction of no pod: %v", err)
		}
	})
}

// TestEvictionOfUnhealthy: pods that serve nobody go free.
func TestEvictionOfUnhealthy(t *testing.T) {
	s := newServer(t)
	b := s.budget(t, 0, 1, 2)
	s.makePod(t, pod("pending", ""))
	if err := s.evict(t, "pending", nil); err != nil {
		t.Errorf("a pending pod: %v", err)
	}
	s.runningPod(t, "sick", corev1.ConditionFalse)
	if err := s.evict(t, "sick", nil); !apierrors.IsTooManyRequests(err) {
		t.Errorf("an unready pod of a budget that is not met: %v", err)
	}
	s.setBudget(t, b, 0, 2, 2)
	if err := s.evict(t, "sick", nil); err != nil {
		t.Errorf("an unready pod of a budget that is met: %v", err)
	}
	s.setBudget(t, b, 0, 0, 2)
	if _, err := s.Client.PolicyV1().PodDisruptionBudgets("default").Patch(t.Context(), "web", types.MergePatchType,
		[]byte(`{"spec":{"unhealthyPodEvictionPolicy":"AlwaysAllow"}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	s.runningPod(t, "sicker", corev1.ConditionFalse)
	if err := s.evict(t, "sicker", nil); err != nil {
		t.Errorf("an unready pod with AlwaysAllow: %v", err)
	}
}

// TestEvictionOfAsSeen: a client may insist on the version of the pod that it
// saw, although the eviction itself changes the pod before it is deleted.
func TestEvictionOfAsSeen(t *testing.T) {
	s := newServer(t)
	s.budget(t, 1, 2, 1)
	for _, p := range []*corev1.Pod{s.runningPod(t, "ready", corev1.ConditionTrue), s.makePod(t, pod("pending", ""))} {
		other := p.ResourceVersion + "0"
		if err := s.evict(t, p.Name, &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &other}}); !apierrors.IsConflict(err) {
			t.Errorf("an eviction of another version of %s: %v", p.Name, err)
		}
		if err := s.evict(t, p.Name, &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &p.ResourceVersion, UID: &p.UID}}); err != nil {
			t.Errorf("an eviction of %s as it is: %v", p.Name, err)
		}
	}
	b, err := s.Client.PolicyV1().PodDisruptionBudgets("default").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil || b.Status.DisruptionsAllowed != 0 || len(b.Status.DisruptedPods) != 1 {
		t.Errorf("the budget is %+v (%v), want one disruption spent", b.Status, err)
	}
}

// overtaken is a backend in which somebody else is first.
type overtaken struct {
	storage.Backend
	by atomic.Pointer[func(key string)] // called once, before the next change of an object
}

func (b *overtaken) Put(ctx context.Context, key string, value []byte, expect storage.Revision, ttl time.Duration) (storage.Revision, error) {
	if expect > 0 && strings.HasPrefix(key, "/registry/pods/") {
		if by := b.by.Swap(nil); by != nil {
			(*by)(key)
		}
	}
	return b.Backend.Put(ctx, key, value, expect, ttl)
}

// TestEvictionThatIsOvertaken: what let a pod go at no cost must still hold
// when it goes.
func TestEvictionThatIsOvertaken(t *testing.T) {
	ready := func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	for _, tc := range []struct {
		name    string
		running bool // and not ready, by a budget that is met; else pending
		change  func(*corev1.Pod)
		refused bool
	}{
		{"a pending pod becomes ready", false, ready, true},
		{"a pending pod is told why it is pending", false, func(p *corev1.Pod) { p.Status.Reason = "Slow" }, false},
		{"a sick pod becomes ready", true, ready, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			below := memory.New(memory.Config{})
			t.Cleanup(func() { closeIt(t, below) })
			backend := &overtaken{Backend: below}
			s := newServer(t, testcluster.WithBackend(backend))
			s.budget(t, 0, 2, 2)
			var p *corev1.Pod
			if tc.running {
				p = s.runningPod(t, "a", corev1.ConditionFalse)
			} else {
				p = s.makePod(t, pod("a", ""))
			}
			first := func(string) {
				tc.change(p)
				if _, err := s.Client.CoreV1().Pods("default").UpdateStatus(context.WithoutCancel(t.Context()), p, metav1.UpdateOptions{}); err != nil {
					t.Error(err)
				}
			}
			backend.by.Store(&first)
			a := s.do(t, "POST", "/api/v1/namespaces/default/pods/a/eviction",
				`{"kind":"Eviction","apiVersion":"policy/v1","metadata":{"name":"a"}}`, contentType(jsonBody))
			if refused := a.code == 429; refused != tc.refused || !refused && a.code != 201 {
				t.Errorf("the answer is %d %s", a.code, a.body)
			}
			if backend.by.Load() != nil {
				t.Error("nothing overtook the eviction")
			}
			got, err := s.Client.CoreV1().Pods("default").Get(t.Context(), "a", metav1.GetOptions{})
			if gone := apierrors.IsNotFound(err) || err == nil && got.DeletionTimestamp != nil; gone == tc.refused {
				t.Errorf("the pod is %+v (%v)", got, err)
			}
		})
	}
}

// TestEvictionWithTwoBudgets: nobody knows which of them would have to pay.
func TestEvictionWithTwoBudgets(t *testing.T) {
	s := newServer(t)
	b := s.budget(t, 1, 2, 1)
	b.ObjectMeta = metav1.ObjectMeta{Name: "second"}
	if _, err := s.Client.PolicyV1().PodDisruptionBudgets("default").Create(t.Context(), b, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.runningPod(t, "a", corev1.ConditionTrue)
	status := s.must(t, 500, "POST", "/api/v1/namespaces/default/pods/a/eviction",
		`{"kind":"Eviction","apiVersion":"policy/v1","metadata":{"name":"a"}}`, contentType(jsonBody)).status(t)
	if status.Code != 500 || status.Message != "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support." {
		t.Errorf("the status is %+v", status)
	}
}

// TestEvictionsAtOnce: many evictions spend no more than there is.
func TestEvictionsAtOnce(t *testing.T) {
	onTwoServers(t, func(t *testing.T, a, b *server) {
		const count, allowed = 8, 3
		names := []string{}
		for i := range count {
			names = append(names, a.runningPod(t, string(rune('a'+i)), corev1.ConditionTrue).Name)
		}
		a.budget(t, allowed, count, count-allowed)
		var wg sync.WaitGroup
		evicted := make(chan string, count)
		for i, name := range names {
			s := []*server{a, b}[i%2]
			wg.Go(func() {
				if err := s.evict(t, name, nil); err == nil {
					evicted <- name
				} else if !apierrors.IsTooManyRequests(err) {
					t.Errorf("evict %s: %v", name, err)
				}
			})
		}
		wg.Wait()
		if len(evicted) != allowed {
			t.Errorf("%d pods were evicted, the budget allows %d", len(evicted), allowed)
		}
	})
}
