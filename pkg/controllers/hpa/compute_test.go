package hpa

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = time.Date(2026, 1, 1, 2, 0, 0, 0, time.UTC)

// pod is ready since long and requests one CPU.
func pod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &metav1.Time{Time: now.Add(-time.Hour)},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Time{Time: now.Add(-time.Hour)}}}}}
	for _, f := range change {
		f(p)
	}
	return p
}

func pending(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }
func ended(p *corev1.Pod)   { p.Status.Phase = corev1.PodFailed }
func deleted(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: now} }
func greedy(p *corev1.Pod)  { p.Spec.Containers[0].Resources.Requests = nil }
func unready(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }

// young has been ready for so long only.
func young(d time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.StartTime = &metav1.Time{Time: now.Add(-d - time.Second)}
		p.Status.Conditions[0].LastTransitionTime = metav1.Time{Time: now.Add(-d)}
	}
}

// neverReady became unready soon after its start.
func neverReady(p *corev1.Pod) {
	unready(p)
	p.Status.Conditions[0].LastTransitionTime = metav1.Time{Time: p.Status.StartTime.Add(5 * time.Second)}
}

// uses are samples of a minute, now.
func uses(values map[string]int64) map[string]sample {
	out := map[string]sample{}
	for name, v := range values {
		out[name] = sample{value: v, at: now, window: time.Minute}
	}
	return out
}

func TestUtilization(t *testing.T) {
	for _, c := range []struct {
		name    string
		pods    []*corev1.Pod
		uses    map[string]int64 // in thousandths of a CPU
		spec    int32
		target  int32
		want    int32
		percent int32
		err     string
	}{
		{name: "twice too busy", pods: []*corev1.Pod{pod("a"), pod("b")}, uses: map[string]int64{"a": 1000, "b": 1000}, spec: 2, target: 50, want: 4, percent: 100},
		{name: "half idle", pods: []*corev1.Pod{pod("a"), pod("b")}, uses: map[string]int64{"a": 250, "b": 250}, spec: 2, target: 50, want: 1, percent: 25},
		{name: "within tolerance", pods: []*corev1.Pod{pod("a"), pod("b")}, uses: map[string]int64{"a": 550, "b": 540}, spec: 2, target: 50, want: 2, percent: 54},
		{name: "rounded up", pods: []*corev1.Pod{pod("a"), pod("b"), pod("c")}, uses: map[string]int64{"a": 600, "b": 600, "c": 600}, spec: 3, target: 50, want: 4, percent: 60},
		{name: "missing pods count as idle on the way up", pods: []*corev1.Pod{pod("a"), pod("b"), pod("c")}, uses: map[string]int64{"a": 1000, "b": 1000}, spec: 3, target: 50, want: 4, percent: 100},
		{name: "and as busy on the way down", pods: []*corev1.Pod{pod("a"), pod("b"), pod("c")}, uses: map[string]int64{"a": 100, "b": 100}, spec: 3, target: 50, want: 3, percent: 10},
		{name: "busy is the target when that is more than all", pods: []*corev1.Pod{pod("a"), pod("b"), pod("c"), pod("d")}, uses: map[string]int64{"a": 100, "b": 100, "c": 100}, spec: 4, target: 200, want: 2, percent: 10},
		{name: "unready pods count as idle on the way up", pods: []*corev1.Pod{pod("a"), pod("b"), pod("c", pending)}, uses: map[string]int64{"a": 800, "b": 800}, spec: 3, target: 60, want: 3, percent: 80},
		{name: "and not at all on the way down", pods: []*corev1.Pod{pod("a"), pod("b"), pod("c", pending)}, uses: map[string]int64{"a": 200, "b": 200}, spec: 3, target: 50, want: 1, percent: 20},
		{name: "a pod that starts is no evidence", pods: []*corev1.Pod{pod("a"), pod("b", young(30*time.Second))}, uses: map[string]int64{"a": 500, "b": 2000}, spec: 2, target: 50, want: 2, percent: 50},
		{name: "a pod that has started is", pods: []*corev1.Pod{pod("a"), pod("b", young(2*time.Minute))}, uses: map[string]int64{"a": 500, "b": 1500}, spec: 2, target: 50, want: 4, percent: 100},
		{name: "a pod that was never ready is none", pods: []*corev1.Pod{pod("a"), pod("b", neverReady)}, uses: map[string]int64{"a": 500, "b": 1500}, spec: 2, target: 50, want: 2, percent: 50},
		{name: "one that became unready by its load is", pods: []*corev1.Pod{pod("a"), pod("b", unready, func(p *corev1.Pod) { p.Status.Conditions[0].LastTransitionTime.Time = now.Add(-time.Minute) })}, uses: map[string]int64{"a": 500, "b": 1500}, spec: 2, target: 50, want: 4, percent: 100},
		{name: "pods that go do not count", pods: []*corev1.Pod{pod("a"), pod("b", deleted), pod("c", ended)}, uses: map[string]int64{"a": 1000, "b": 5000, "c": 5000}, spec: 1, target: 50, want: 2, percent: 100},
		{name: "no pods", uses: map[string]int64{"a": 1}, spec: 1, target: 50, err: "no pods returned by selector"},
		{name: "no metrics of these pods", pods: []*corev1.Pod{pod("a", pending)}, uses: map[string]int64{"a": 1}, spec: 1, target: 50, err: "did not receive metrics"},
		{name: "no request", pods: []*corev1.Pod{pod("a", greedy)}, uses: map[string]int64{"a": 1}, spec: 1, target: 50, err: "missing request for cpu in container main of Pod a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &situation{spec: c.spec, status: c.spec, pods: c.pods, tolerances: tolerances{tolerance, tolerance}, now: now}
			spec := autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
				Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &c.target}}}
			p := s.propose(&spec, reading{samples: uses(c.uses)}, nil)
			if c.err != "" {
				if p.err == nil || !strings.Contains(p.err.Error(), c.err) {
					t.Fatalf("error %v, want %q", p.err, c.err)
				}
				return
			}
			if p.err != nil || p.replicas != c.want || *p.status.Resource.Current.AverageUtilization != c.percent {
				t.Errorf("%d replicas, %+v, %v; want %d at %d%%", p.replicas, p.status.Resource, p.err, c.want, c.percent)
			}
		})
	}
}

func quantityOf(s string) *resource.Quantity { q := resource.MustParse(s); return &q }

func TestOtherMetrics(t *testing.T) {
	three := []*corev1.Pod{pod("a"), pod("b"), pod("c")}
	id := autoscalingv2.MetricIdentifier{Name: "qps"}
	object := func(t autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{Metric: id, Target: t}}
	}
	external := func(t autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: id, Target: t}}
	}
	value := autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: quantityOf("10")}
	average := autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: quantityOf("10")}
	for _, c := range []struct {
		name string
		spec autoscalingv2.MetricSpec
		r    reading
		from int32
		want int32
	}{
		{"pods", autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{Metric: id, Target: average}}, reading{samples: uses(map[string]int64{"a": 20000, "b": 10000, "c": 30000})}, 3, 6},
		{"memory", autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceMemory, Target: average}}, reading{samples: uses(map[string]int64{"a": 5000, "b": 5000, "c": 5000})}, 3, 2},
		{"object's value", object(value), reading{values: []int64{20000}}, 3, 6},
		{"object's value in tolerance", object(value), reading{values: []int64{10900}}, 3, 3},
		{"object's share", object(average), reading{values: []int64{61000}}, 3, 7},
		{"external value, of none", external(value), reading{values: []int64{20000, 5000}}, 0, 3},
		{"external share", external(average), reading{values: []int64{20000, 21000}}, 3, 5},
		{"external share in tolerance", external(average), reading{values: []int64{32000}}, 3, 3},
		{"beyond all bounds", external(average), reading{values: []int64{math.MaxInt64, math.MaxInt64}}, 3, math.MaxInt32},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &situation{spec: c.from, status: c.from, pods: three, tolerances: tolerances{tolerance, tolerance}, now: now}
			if p := s.propose(&c.spec, c.r, nil); p.err != nil || p.replicas != c.want {
				t.Errorf("%d replicas, %v; want %d", p.replicas, p.err, c.want)
			}
			p := s.propose(&c.spec, reading{}, errors.New("boom"))
			if p.err == nil || !strings.HasPrefix(p.reason, "FailedGet") || !strings.Contains(p.cause.Error(), "boom") {
				t.Errorf("a metric that cannot be read: %+v", p)
			}
		})
	}
}

func policies(choose autoscalingv2.ScalingPolicySelect, window int32, list ...autoscalingv2.HPAScalingPolicy) *autoscalingv2.HPAScalingRules {
	return &autoscalingv2.HPAScalingRules{SelectPolicy: &choose, StabilizationWindowSeconds: &window, Policies: list}
}

func TestLimits(t *testing.T) {
	four := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 60}
	half := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: 50, PeriodSeconds: 60}
	up := func(r *autoscalingv2.HPAScalingRules) *autoscalingv2.HorizontalPodAutoscalerBehavior {
		return &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: r, ScaleDown: policies(autoscalingv2.MaxChangePolicySelect, 0, half)}
	}
	down := func(r *autoscalingv2.HPAScalingRules) *autoscalingv2.HorizontalPodAutoscalerBehavior {
		return &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: policies(autoscalingv2.MaxChangePolicySelect, 0, half), ScaleDown: r}
	}
	for _, c := range []struct {
		name         string
		behavior     *autoscalingv2.HorizontalPodAutoscalerBehavior
		h            history
		current, ask int32
		want         int32
		reason       string
	}{
		{name: "twice, without behavior", current: 10, ask: 50, want: 20, reason: "ScaleUpLimit"},
		{name: "four at least", current: 1, ask: 50, want: 4, reason: "ScaleUpLimit"},
		{name: "as many as may be", current: 60, ask: 500, want: 100, reason: "TooManyReplicas"},
		{name: "as few as may be", current: 60, ask: 1, want: 2, reason: "TooFewReplicas"},
		{name: "as asked", current: 10, ask: 12, want: 12, reason: "DesiredWithinRange"},
		{name: "the most", behavior: up(policies(autoscalingv2.MaxChangePolicySelect, 0, four, half)), current: 10, ask: 50, want: 15, reason: "ScaleUpLimit"},
		{name: "the least", behavior: up(policies(autoscalingv2.MinChangePolicySelect, 0, four, half)), current: 10, ask: 50, want: 14, reason: "ScaleUpLimit"},
		{name: "not at all", behavior: up(policies(autoscalingv2.DisabledPolicySelect, 0, four, half)), current: 10, ask: 50, want: 10, reason: "ScaleUpLimit"},
		{name: "what was added counts", behavior: up(policies(autoscalingv2.MaxChangePolicySelect, 0, four)), h: history{ups: []moment{{3, now.Add(-30 * time.Second)}, {9, now.Add(-2 * time.Minute)}}}, current: 10, ask: 50, want: 11, reason: "ScaleUpLimit"},
		{name: "fewer: the most", behavior: down(policies(autoscalingv2.MaxChangePolicySelect, 0, four, half)), current: 10, ask: 2, want: 5, reason: "ScaleDownLimit"},
		{name: "fewer: the least", behavior: down(policies(autoscalingv2.MinChangePolicySelect, 0, four, half)), current: 10, ask: 2, want: 6, reason: "ScaleDownLimit"},
		{name: "fewer: not at all", behavior: down(policies(autoscalingv2.DisabledPolicySelect, 0, four)), current: 10, ask: 2, want: 10, reason: "ScaleDownLimit"},
		{name: "fewer: what was taken counts", behavior: down(policies(autoscalingv2.MaxChangePolicySelect, 0, four)), h: history{downs: []moment{{3, now.Add(-30 * time.Second)}}}, current: 10, ask: 2, want: 9, reason: "ScaleDownLimit"},
		{name: "fewer: the minimum", behavior: down(policies(autoscalingv2.MaxChangePolicySelect, 0, four)), current: 4, ask: 1, want: 2, reason: "TooFewReplicas"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.h.limit(c.ask, limits{current: c.current, min: 2, max: 100, behavior: c.behavior, now: now})
			if got.replicas != c.want || got.reason != c.reason || got.changed != (c.want != c.ask) {
				t.Errorf("limit = %+v, want %d, %s", got, c.want, c.reason)
			}
		})
	}
}

func TestStabilize(t *testing.T) {
	slow := &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: policies(autoscalingv2.MaxChangePolicySelect, 60), ScaleDown: policies(autoscalingv2.MaxChangePolicySelect, 120)}
	for _, c := range []struct {
		name         string
		behavior     *autoscalingv2.HorizontalPodAutoscalerBehavior
		recommended  []moment
		current, ask int32
		want         int32
		reason       string
	}{
		{name: "fewer waits five minutes", recommended: []moment{{8, now.Add(-4 * time.Minute)}, {9, now.Add(-6 * time.Minute)}}, current: 9, ask: 3, want: 8, reason: "ScaleDownStabilized"},
		{name: "fewer has waited", recommended: []moment{{9, now.Add(-6 * time.Minute)}}, current: 9, ask: 3, want: 3, reason: "ReadyForNewScale"},
		{name: "more at once", recommended: []moment{{3, now.Add(-time.Minute)}}, current: 3, ask: 9, want: 9, reason: "ReadyForNewScale"},
		{name: "more waits where behavior says so", behavior: slow, recommended: []moment{{5, now.Add(-30 * time.Second)}, {3, now.Add(-2 * time.Minute)}}, current: 3, ask: 9, want: 5, reason: "ScaleUpStabilized"},
		{name: "fewer as behavior says", behavior: slow, recommended: []moment{{7, now.Add(-90 * time.Second)}, {9, now.Add(-3 * time.Minute)}}, current: 9, ask: 3, want: 7, reason: "ScaleDownStabilized"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := history{recommended: c.recommended}
			got := h.stabilize(c.ask, limits{current: c.current, min: 1, max: 100, behavior: c.behavior, now: now})
			if got.replicas != c.want || got.reason != c.reason {
				t.Errorf("stabilize = %+v, want %d, %s", got, c.want, c.reason)
			}
			if last := h.recommended[len(h.recommended)-1]; last != (moment{c.ask, now}) {
				t.Errorf("what was asked for is not remembered: %+v", h.recommended)
			}
		})
	}
}

func autoscaler(low, high int32, metrics int) *autoscalingv2.HorizontalPodAutoscaler {
	return &autoscalingv2.HorizontalPodAutoscaler{Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MinReplicas: &low, MaxReplicas: high, Metrics: make([]autoscalingv2.MetricSpec, metrics)}}
}

func good(n int32) proposal { return proposal{replicas: n, name: fmt.Sprint("metric ", n)} }

func TestWeigh(t *testing.T) {
	bad := failed("FailedGetPodsMetric", "failed to get pods metric value", errors.New("boom"))
	for _, c := range []struct {
		name      string
		proposals []proposal
		want      plan
		ok        bool
		active    string
		events    int
	}{
		{"the highest", []proposal{good(5), good(7), good(6)}, plan{7, "metric 7 above target"}, true, "ValidMetricFound", 0},
		{"all metrics failed", []proposal{bad, bad}, plan{}, false, "FailedGetPodsMetric", 3},
		{"some failed: not fewer", []proposal{bad, good(2)}, plan{}, false, "FailedGetPodsMetric", 2},
		{"some failed: more", []proposal{bad, good(5)}, plan{5, "metric 5 above target"}, true, "ValidMetricFound", 1},
		{"nothing to do", []proposal{good(4)}, plan{4, ""}, true, "ValidMetricFound", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &work{hpa: autoscaler(1, 10, len(c.proposals)), now: now}
			got, ok := w.weigh(4, c.proposals, &history{})
			if got != c.want || ok != c.ok || len(w.events) != c.events {
				t.Errorf("weigh = %+v, %v, events %v; want %+v, %v", got, ok, w.events, c.want, c.ok)
			}
			for _, cond := range w.hpa.Status.Conditions {
				if cond.Type == autoscalingv2.ScalingActive && cond.Reason != c.active {
					t.Errorf("ScalingActive is %+v, want %s", cond, c.active)
				}
			}
		})
	}
}

func TestBounds(t *testing.T) {
	asleep := autoscaler(0, 10, 0)
	asleep.Spec.Metrics = []autoscalingv2.MetricSpec{{Type: autoscalingv2.ExternalMetricSourceType}}
	asleep.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.ScaledToZero, Status: corev1.ConditionTrue}}
	for _, c := range []struct {
		name    string
		hpa     *autoscalingv2.HorizontalPodAutoscaler
		current int32
		want    int32
		done    bool
	}{
		{"too many", autoscaler(2, 10, 1), 12, 10, true},
		{"too few", autoscaler(2, 10, 1), 1, 2, true},
		{"switched off", autoscaler(2, 10, 1), 0, 0, true},
		{"put to sleep", asleep, 0, 0, false},
		{"up to the metrics", autoscaler(2, 10, 1), 5, 0, false},
	} {
		w := &work{hpa: c.hpa.DeepCopy(), now: now}
		if p, done := w.bounds(c.current); p.replicas != c.want || done != c.done {
			t.Errorf("%s: %+v, %v", c.name, p, done)
		}
	}
}

// TestNeverBeyond lets metrics ask for anything at any time: the size stays
// within its bounds, and no change leads further from where the target was when
// the policies' period began than they allow.
func TestNeverBeyond(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		low := int32(1 + rnd.IntN(5))
		high := low + int32(rnd.IntN(100))
		w := &work{hpa: autoscaler(low, high, 1)}
		step := int32(1 + rnd.IntN(6))
		by := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: step, PeriodSeconds: 60}
		limited := rnd.IntN(2) == 0
		if limited {
			w.hpa.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{
				ScaleUp: policies(autoscalingv2.MaxChangePolicySelect, int32(rnd.IntN(60)), by), ScaleDown: policies(autoscalingv2.MinChangePolicySelect, int32(rnd.IntN(60)), by)}
		}
		h, size, at := &history{}, low+int32(rnd.IntN(int(high-low+1))), now
		sizes := []moment{{size, at}}
		for range 80 {
			at = at.Add(time.Duration(1+rnd.IntN(30)) * time.Second)
			w.now = at
			h.begin(size, at)
			p, ok := w.weigh(size, []proposal{good(int32(rnd.Uint32() >> (1 + rnd.IntN(31))))}, h)
			if !ok || p.replicas < low || p.replicas > high {
				t.Fatalf("seed %d: from %d to %+v, %v; bounds %d and %d", seed, size, p, ok, low, high)
			}
			if p.replicas != size {
				h.scaled(w.hpa.Spec.Behavior, size, p.replicas, at)
				size = p.replicas
			}
			sizes = append(sizes, moment{size, at})
			began := sizes[0].replicas // the size when the policies' period began
			for _, was := range sizes {
				if !was.at.After(at.Add(-time.Minute)) {
					began = was.replicas
				}
			}
			before := sizes[len(sizes)-2].replicas
			if d := size - began; limited && (size > before && d > step || size < before && -d > step) {
				t.Fatalf("seed %d: from %d to %d, and %d a minute ago, by a policy of %d", seed, before, size, began, step)
			}
		}
		if n := len(h.recommended) + len(h.ups) + len(h.downs); n > 1000 {
			t.Fatalf("seed %d: %d moments are remembered", seed, n)
		}
	}
}

func TestTolerances(t *testing.T) {
	h := autoscaler(1, 10, 1)
	if got := tolerancesOf(h); got != (tolerances{0.1, 0.1}) {
		t.Errorf("by default %+v", got)
	}
	h.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: &autoscalingv2.HPAScalingRules{Tolerance: quantityOf("0.5")}, ScaleDown: &autoscalingv2.HPAScalingRules{}}
	got := tolerancesOf(h)
	if diff := cmp.Diff([]bool{true, false, false}, []bool{got.within(1.4), got.within(1.6), got.within(0.8)}); diff != "" {
		t.Errorf("within (-want +got):\n%s", diff)
	}
}
