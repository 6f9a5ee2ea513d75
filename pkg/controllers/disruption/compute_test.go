package disruption

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func at(d time.Duration) metav1.Time { return metav1.Time{Time: now.Add(d)} }

func pod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	for _, c := range change {
		c(p)
	}
	return p
}

func unready(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }
func dying(p *corev1.Pod)   { p.DeletionTimestamp = &metav1.Time{Time: now} }

func budget(least, most string) *policyv1.PodDisruptionBudget {
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Generation: 3}}
	if least != "" {
		b.Spec.MinAvailable = new(intstr.Parse(least))
	}
	if most != "" {
		b.Spec.MaxUnavailable = new(intstr.Parse(most))
	}
	return b
}

func TestCompute(t *testing.T) {
	three := []*corev1.Pod{pod("a"), pod("b"), pod("c")}
	sick := []*corev1.Pod{pod("a"), pod("b", unready), pod("c", dying)}
	for _, tc := range []struct {
		name                               string
		least, most                        string
		pods                               []*corev1.Pod
		scale                              int
		granted                            map[string]metav1.Time
		expected, desired, healthy, spares int32 // spares: disruptions allowed
		left                               map[string]metav1.Time
		spared                             int
		wake                               time.Duration
	}{
		{name: "a number", least: "2", pods: three, expected: 3, desired: 2, healthy: 3, spares: 1},
		{name: "a number too high", least: "5", pods: three, expected: 3, desired: 5, healthy: 3},
		{name: "a share, rounded up", least: "50%", pods: three, scale: 3, expected: 3, desired: 2, healthy: 3, spares: 1},
		{name: "a share of what is wanted", least: "50%", pods: three, scale: 6, expected: 6, desired: 3, healthy: 3},
		{name: "at most", most: "1", pods: three, scale: 3, expected: 3, desired: 2, healthy: 3, spares: 1},
		{name: "at most a share, rounded up", most: "34%", pods: three, scale: 3, expected: 3, desired: 1, healthy: 3, spares: 2},
		{name: "at most more than there are", most: "9", pods: three, scale: 3, expected: 3, healthy: 3, spares: 3},
		{name: "unhealthy and dying pods do not count", most: "1", pods: sick, scale: 3, expected: 3, desired: 2, healthy: 1},
		{name: "no pods allow nothing", least: "0", expected: 0},
		{name: "neither bound", pods: three, healthy: 3},
		{name: "granted evictions count as done", least: "1", pods: three, granted: map[string]metav1.Time{"a": at(-30 * time.Second), "gone": at(0)},
			expected: 3, desired: 1, healthy: 2, spares: 1, left: map[string]metav1.Time{"a": at(-30 * time.Second)}, wake: 90 * time.Second},
		{name: "until they are seen", least: "1", pods: sick, granted: map[string]metav1.Time{"c": at(0)}, expected: 3, desired: 1, healthy: 1},
		{name: "or did not happen", least: "1", pods: three, granted: map[string]metav1.Time{"a": at(-2 * time.Minute)}, expected: 3, desired: 1, healthy: 3, spares: 2, spared: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := budget(tc.least, tc.most)
			b.Status.DisruptedPods = tc.granted
			p, err := compute(observed{b, tc.pods, tc.scale}, now)
			if err != nil {
				t.Fatal(err)
			}
			c := metav1.Condition{Type: "DisruptionAllowed", Status: metav1.ConditionFalse, Reason: "InsufficientPods", ObservedGeneration: 3, LastTransitionTime: at(0)}
			if tc.spares > 0 {
				c.Status, c.Reason = metav1.ConditionTrue, "SufficientPods"
			}
			want := policyv1.PodDisruptionBudgetStatus{
				ObservedGeneration: 3, ExpectedPods: tc.expected, DesiredHealthy: tc.desired, CurrentHealthy: tc.healthy,
				DisruptionsAllowed: tc.spares, DisruptedPods: tc.left, Conditions: []metav1.Condition{c},
			}
			if diff := cmp.Diff(want, p.status, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("status (-want +got):\n%s", diff)
			}
			if len(p.spared) != tc.spared || p.wake != tc.wake {
				t.Errorf("%d pods are spared and it wakes in %v, want %d and %v", len(p.spared), p.wake, tc.spared, tc.wake)
			}
		})
	}
}

func TestFailedAllowsNothing(t *testing.T) {
	b := budget("1", "")
	p, err := compute(observed{budget: b, pods: []*corev1.Pod{pod("a"), pod("b")}}, now)
	if err != nil || p.status.DisruptionsAllowed != 1 {
		t.Fatalf("it allows %d, err %v", p.status.DisruptionsAllowed, err)
	}
	b.Status = p.status
	s := failed(b, errors.New("no idea"), now)
	if s.DisruptionsAllowed != 0 || len(s.Conditions) != 1 || s.Conditions[0].Reason != "SyncFailed" || s.Conditions[0].Message != "no idea" || s.CurrentHealthy != 2 {
		t.Errorf("the status is %+v", s)
	}
	b.Status = s
	if p, err = compute(observed{budget: b, pods: []*corev1.Pod{pod("a"), pod("b")}}, now); err != nil || p.status.Conditions[0].Reason != "SufficientPods" || p.status.Conditions[0].Message != "" {
		t.Errorf("after it worked again the condition is %+v, err %v", p.status.Conditions, err)
	}
}

func TestUntouched(t *testing.T) {
	told := func(reason string, since time.Duration) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{
				Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, LastTransitionTime: at(-since),
			})
		}
	}
	for _, tc := range []struct {
		name string
		pod  *corev1.Pod
		yes  bool
		wait time.Duration
	}{
		{"nothing was said", pod("a"), false, 0},
		{"just said", pod("a", told("EvictionByEvictionAPI", time.Second)), true, 119 * time.Second},
		{"long ago", pod("a", told("EvictionByEvictionAPI", time.Hour)), true, 0},
		{"it is going", pod("a", told("EvictionByEvictionAPI", time.Hour), dying), false, 0},
		{"it has ended", pod("a", told("EvictionByEvictionAPI", time.Hour), func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), false, 0},
		{"its node says so", pod("a", told(corev1.PodReasonTerminationByKubelet, time.Hour)), false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			yes, wait := untouched(tc.pod, now)
			if yes != tc.yes || wait != tc.wait {
				t.Fatalf("it is %v for %v, want %v for %v", yes, wait, tc.yes, tc.wait)
			}
			if !yes {
				return
			}
			if again, _ := untouched(spare(tc.pod, now), now); again {
				t.Error("a spared pod is spared again")
			}
		})
	}
}

// TestNeverBelowDesired evicts at random, as servers that see the budget and a
// controller that sees the pods late would: the pods that are left never get
// fewer than the budget wants by an eviction.
func TestNeverBelowDesired(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		n := r.IntN(8)
		b := []*policyv1.PodDisruptionBudget{
			budget(fmt.Sprint(r.IntN(9)), ""), budget(fmt.Sprintf("%d%%", r.IntN(101)), ""),
			budget("", fmt.Sprint(r.IntN(9))), budget("", fmt.Sprintf("%d%%", r.IntN(101))),
		}[seed%4]
		var seen []*corev1.Pod // by the controller
		alive := map[string]bool{}
		for i := range n {
			seen = append(seen, pod(fmt.Sprint(i)))
			alive[fmt.Sprint(i)] = true
		}
		for range 20 {
			p, err := compute(observed{b, seen, n}, now)
			if err != nil {
				t.Fatal(err)
			}
			b.Status = p.status
			for i := range n {
				name := fmt.Sprint(i)
				if b.Status.DisruptionsAllowed == 0 || !alive[name] || r.IntN(2) == 0 {
					continue
				}
				b.Status.DisruptionsAllowed--
				b.Status.DisruptedPods[name] = metav1.Time{Time: now}
				delete(alive, name)
				if len(alive) < int(b.Status.DesiredHealthy) {
					t.Fatalf("seed %d: %d of %d pods are left, want %d", seed, len(alive), n, b.Status.DesiredHealthy)
				}
			}
			for i, p := range seen { // some of what happened is seen
				if !alive[p.Name] && r.IntN(2) == 0 {
					seen[i] = pod(p.Name, dying)
				}
			}
		}
	}
}
