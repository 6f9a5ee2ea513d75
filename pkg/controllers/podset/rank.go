package podset

import (
	"cmp"
	"math/bits"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Victims returns the n pods that go first when there are too many, most
// expendable first: not yet placed, pending, not ready, cheap by their
// deletion-cost annotation, doubled up on one node, ready for a shorter time
// (in powers of two, so that a set does not always lose its youngest), more
// restarts, created later. neighbours counts, by node, the pods that
// serve the same purpose; nil counts those in pods.
func Victims(pods []*corev1.Pod, n int, neighbours map[string]int, now time.Time) []*corev1.Pod {
	if n <= 0 {
		return nil
	}
	if n >= len(pods) {
		return slices.Clone(pods)
	}
	if neighbours == nil {
		neighbours = map[string]int{}
		for _, p := range pods {
			neighbours[p.Spec.NodeName]++
		}
	}
	sorted := slices.Clone(pods)
	slices.SortStableFunc(sorted, func(a, b *corev1.Pod) int {
		return cmp.Or(
			boolFirst(a.Spec.NodeName == "", b.Spec.NodeName == ""),
			cmp.Compare(phaseRank(a), phaseRank(b)),
			boolFirst(!Ready(a), !Ready(b)),
			cmp.Compare(deletionCost(a), deletionCost(b)),
			-cmp.Compare(neighbours[a.Spec.NodeName], neighbours[b.Spec.NodeName]),
			compareAge(readySince(a), readySince(b), now),
			-cmp.Compare(restarts(a), restarts(b)),
			compareAge(a.CreationTimestamp.Time, b.CreationTimestamp.Time, now),
			cmp.Compare(a.UID, b.UID),
		)
	})
	return sorted[:n]
}

func boolFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

func phaseRank(p *corev1.Pod) int {
	switch p.Status.Phase {
	case corev1.PodRunning:
		return 2
	case corev1.PodUnknown:
		return 1
	default:
		return 0
	}
}

func deletionCost(p *corev1.Pod) int64 {
	n, err := strconv.ParseInt(p.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0 // validated on write; anything else counts as unset
	}
	return n
}

func readySince(p *corev1.Pod) time.Time {
	if c := Condition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return c.LastTransitionTime.Time
	}
	return time.Time{}
}

// compareAge puts the younger first and treats ages of one power of two as
// equal. An unknown time is youngest.
func compareAge(a, b, now time.Time) int {
	return cmp.Compare(ageBucket(a, now), ageBucket(b, now))
}

func ageBucket(t, now time.Time) int {
	if t.IsZero() {
		return -1
	}
	return bits.Len64(uint64(max(now.Sub(t)/time.Second, 0)))
}

func restarts(p *corev1.Pod) (n int32) {
	for i := range p.Status.ContainerStatuses {
		n += p.Status.ContainerStatuses[i].RestartCount
	}
	return n
}
