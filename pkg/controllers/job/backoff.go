package job

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"coracle/pkg/controllers/podset"
)

// The pod after n failures in a row waits firstDelay doubled n-1 times, at
// most lastDelay, from the last failure on.
const (
	firstDelay = 10 * time.Second
	lastDelay  = 10 * time.Minute
)

// failures counts those since the last success.
type failures struct {
	count int
	last  time.Time // the newest
}

// after adds what the newly finished pods say.
func (f failures) after(succeeded, failed []*corev1.Pod) failures {
	var success time.Time
	for _, p := range succeeded {
		if t := finishedAt(p); t.After(success) {
			success = t
		}
	}
	if len(succeeded) > 0 {
		f = failures{}
	}
	for _, p := range failed {
		t := finishedAt(p)
		if len(succeeded) > 0 && !t.After(success) {
			continue
		}
		f.count++
		if t.After(f.last) {
			f.last = t
		}
	}
	return f
}

// wait returns how long no pod may be made yet.
func (f failures) wait(now time.Time) time.Duration {
	if f.count == 0 {
		return 0
	}
	delay := lastDelay
	if f.count < 8 { // beyond, it is more than the last
		delay = min(firstDelay<<(f.count-1), lastDelay)
	}
	// A clock that went back does not make the wait longer than its measure.
	return min(max(f.last.Add(delay).Sub(now), 0), delay)
}

// finishedAt tells when pod ended: when its last container did, or else the
// best that is known.
func finishedAt(pod *corev1.Pod) time.Time {
	var last time.Time
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range list {
			if t := list[i].State.Terminated; t != nil && t.FinishedAt.After(last) {
				last = t.FinishedAt.Time
			}
		}
	}
	if !last.IsZero() {
		return last
	}
	if c := podset.Condition(pod, corev1.PodReady); c != nil && c.Status == corev1.ConditionFalse && !c.LastTransitionTime.IsZero() {
		return c.LastTransitionTime.Time
	}
	if pod.DeletionTimestamp != nil {
		var grace int64
		if pod.DeletionGracePeriodSeconds != nil {
			grace = *pod.DeletionGracePeriodSeconds
		}
		return pod.DeletionTimestamp.Add(-time.Duration(grace) * time.Second)
	}
	return pod.CreationTimestamp.Time
}
