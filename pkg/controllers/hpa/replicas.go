package hpa

import (
	"errors"
	"fmt"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
)

const (
	// cpuInitialization is how long after a pod's start its CPU usage counts
	// only from when the pod is ready: starting takes more than working does.
	cpuInitialization = 5 * time.Minute
	// initialReadiness is how soon after its start a pod's readiness settles: one
	// that became unready before was never ready.
	initialReadiness = 30 * time.Second
)

// sample is what one pod uses, in thousandths.
type sample struct {
	value  int64
	at     time.Time
	window time.Duration // that the value is the average of
}

// tolerances are the parts by which usage may miss its target before anything
// is done.
type tolerances struct{ down, up float64 }

func (t tolerances) within(ratio float64) bool { return 1-t.down <= ratio && ratio <= 1+t.up }

// situation is what a proposal is computed from, besides the metric.
type situation struct {
	spec, status int32 // replicas that the target wants, and has
	pods         []*corev1.Pod
	tolerances   tolerances
	now          time.Time
}

// gauge is a metric of pods and how it relates to its target.
type gauge struct {
	resource corev1.ResourceName // empty for metrics that are no resource
	samples  map[string]sample   // by pod; fit changes it
	// ratio is usage divided by target.
	ratio func(map[string]sample) (float64, error)
	// full is what a pod without a sample is taken to use when there would be
	// fewer pods.
	full func(pod string) int64
}

var (
	errNoPods    = errors.New("no pods returned by selector while calculating replica count")
	errNoMetrics = errors.New("did not receive metrics for targeted pods (pods might be unready)")
)

// fit says how many replicas bring a metric of pods to its target. Pods that
// say nothing, or not yet something of worth, are taken to hold against a
// change: as idle when there would be more pods, as busy when there would be
// fewer. Where that turns the direction around, nothing changes.
func (s *situation) fit(g gauge) (int32, error) {
	if len(s.pods) == 0 {
		return 0, errNoPods
	}
	ready, unready, missing := s.sort(g)
	if len(g.samples) == 0 {
		return 0, errNoMetrics
	}
	ratio, err := g.ratio(g.samples)
	if err != nil {
		return 0, err
	}
	upWithUnready := len(unready) > 0 && ratio > 1
	if !upWithUnready && len(missing) == 0 {
		if s.tolerances.within(ratio) {
			return s.spec, nil
		}
		return count(ratio * float64(ready)), nil
	}
	for pod := range missing {
		switch {
		case ratio < 1:
			g.samples[pod] = sample{value: g.full(pod)}
		case ratio > 1:
			g.samples[pod] = sample{}
		}
	}
	if upWithUnready {
		for pod := range unready {
			g.samples[pod] = sample{}
		}
	}
	careful, err := g.ratio(g.samples)
	if err != nil {
		return 0, err
	}
	if s.tolerances.within(careful) || ratio < 1 && careful > 1 || ratio > 1 && careful < 1 {
		return s.spec, nil
	}
	n := count(careful * float64(len(g.samples)))
	if careful < 1 && n > s.spec || careful > 1 && n < s.spec {
		return s.spec, nil
	}
	return n, nil
}

// sort counts the pods whose samples count, removes the samples of the others,
// and names those that are not ready and those that have none.
func (s *situation) sort(g gauge) (ready int, unready, missing sets.Set[string]) {
	unready, missing = sets.New[string](), sets.New[string]()
	for _, pod := range s.pods {
		got, found := g.samples[pod.Name]
		switch {
		case pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodFailed:
			delete(g.samples, pod.Name)
		case pod.Status.Phase == corev1.PodPending:
			unready.Insert(pod.Name)
			delete(g.samples, pod.Name)
		case !found:
			missing.Insert(pod.Name)
		case g.resource == corev1.ResourceCPU && !settled(pod, got, s.now):
			unready.Insert(pod.Name)
			delete(g.samples, pod.Name)
		default:
			ready++
		}
	}
	return ready, unready, missing
}

// settled says whether a pod's CPU usage says something about its work.
func settled(pod *corev1.Pod, got sample, now time.Time) bool {
	c := readyCondition(pod)
	if c == nil || pod.Status.StartTime == nil {
		return false
	}
	start, since := pod.Status.StartTime.Time, c.LastTransitionTime.Time
	if start.Add(cpuInitialization).After(now) {
		// The whole window must lie after the last change.
		return c.Status != corev1.ConditionFalse && !got.at.Before(since.Add(got.window))
	}
	return c.Status != corev1.ConditionFalse || !start.Add(initialReadiness).After(since)
}

func readyCondition(pod *corev1.Pod) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodReady {
			return c
		}
	}
	return nil
}

// whole says how many replicas bring a metric of the whole to its target.
func (s *situation) whole(usage, target int64) (int32, error) {
	ratio := float64(usage) / float64(target)
	if s.spec == 0 {
		return count(ratio), nil // no pod has a share yet
	}
	if s.tolerances.within(ratio) {
		return s.spec, nil
	}
	if len(s.pods) == 0 {
		return 0, fmt.Errorf("unable to calculate ready pods: %w", errNoPods)
	}
	ready := 0
	for _, pod := range s.pods {
		if c := readyCondition(pod); pod.Status.Phase == corev1.PodRunning && c != nil && c.Status == corev1.ConditionTrue {
			ready++
		}
	}
	return count(ratio * float64(ready)), nil
}

// shared says how many replicas a metric of the whole needs when each has a
// share, and how much that is now.
func (s *situation) shared(usage, target int64) (replicas int32, average int64) {
	replicas = s.status
	ratio := float64(usage) / (float64(target) * float64(replicas))
	if !s.tolerances.within(ratio) {
		replicas = count(float64(usage) / float64(target))
	}
	return replicas, round(float64(usage) / float64(s.status))
}

// count makes a number of replicas of f, which may be beyond all bounds.
func count(f float64) int32 {
	switch f = math.Ceil(f); {
	case math.IsNaN(f) || f < 0:
		return 0
	case f > math.MaxInt32:
		return math.MaxInt32
	}
	return int32(f)
}

// round makes a metric of f, which may be beyond all bounds.
func round(f float64) int64 {
	if f = math.Ceil(f); f >= math.MaxInt64 {
		return math.MaxInt64
	} else if math.IsNaN(f) || f < 0 {
		return 0
	}
	return int64(f)
}

// sum adds metrics up, which may be beyond all bounds.
func sum(values []int64) int64 {
	var total int64
	for _, v := range values {
		if v > 0 && total > math.MaxInt64-v {
			return math.MaxInt64
		}
		total += v
	}
	return total
}

// averageOf is the average of samples, of which there must be some.
func averageOf(samples map[string]sample) int64 {
	var total int64
	for _, s := range samples {
		total += s.value
	}
	return total / int64(len(samples))
}

// utilization is usage in percent of what the pods request, and its average.
func utilization(samples map[string]sample, requests map[string]int64) (percent int32, average int64, err error) {
	var used, requested, n int64
	for pod, s := range samples {
		if request, ok := requests[pod]; ok {
			used, requested, n = used+s.value, requested+request, n+1
		}
	}
	if requested == 0 {
		return 0, 0, errors.New("no metrics returned matched known pods")
	}
	return int32(used * 100 / requested), used / n, nil
}

// requestsOf are the pods' requests of a resource in thousandths: those of one
// container, of the pod itself, or of all its containers that go on running.
func requestsOf(pods []*corev1.Pod, container string, resource corev1.ResourceName) (map[string]int64, error) {
	out := make(map[string]int64, len(pods))
	for _, pod := range pods {
		request, err := requestOf(pod, container, resource)
		if err != nil {
			return nil, err
		}
		out[pod.Name] = request
	}
	return out, nil
}

func requestOf(pod *corev1.Pod, container string, resource corev1.ResourceName) (int64, error) {
	if container == "" && pod.Spec.Resources != nil {
		if q, ok := pod.Spec.Resources.Requests[resource]; ok {
			return q.MilliValue(), nil
		}
	}
	var total int64
	found := false
	each := func(c *corev1.Container) error {
		if container != "" && container != c.Name {
			return nil
		}
		q, ok := c.Resources.Requests[resource]
		if !ok {
			return fmt.Errorf("missing request for %s in container %s of Pod %s", resource, c.Name, pod.Name)
		}
		total, found = total+q.MilliValue(), true
		return nil
	}
	for i := range pod.Spec.Containers {
		if err := each(&pod.Spec.Containers[i]); err != nil {
			return 0, err
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			if err := each(c); err != nil {
				return 0, err
			}
		}
	}
	if container != "" && !found {
		return 0, fmt.Errorf("container %s not found in Pod %s", container, pod.Name)
	}
	return total, nil
}
