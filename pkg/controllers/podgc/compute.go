package podgc

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"coracle/pkg/controllers/podset"
)

// reason is why a pod is collected.
type reason int

const (
	finished    reason = iota // too many pods have ended; the oldest go
	orphaned                  // its node does not exist
	outOfAction               // its node was declared out of service
	unplaced                  // deleted before it had a node
)

// item is one pod to collect.
type item struct {
	pod *corev1.Pod
	why reason
}

// observed is what one sweep sees.
type observed struct {
	pods  []*corev1.Pod
	nodes map[string]*corev1.Node
	// missing is since when nodes that pods name do not exist.
	missing map[string]time.Time
}

// limits are when pods are collected.
type limits struct {
	finished   int           // how many finished pods may stay; negative: all
	quarantine time.Duration // how long a node must be missing
}

// compute lists the pods to collect.
func compute(o observed, l limits, now time.Time) []item {
	var out []item
	var ended []*corev1.Pod
	for _, pod := range o.pods {
		switch {
		case isOrphan(pod, o, l, now):
			out = append(out, item{pod, orphaned})
		case pod.DeletionTimestamp != nil && pod.Spec.NodeName == "":
			out = append(out, item{pod, unplaced})
		case pod.DeletionTimestamp != nil && outOfService(o.nodes[pod.Spec.NodeName]):
			out = append(out, item{pod, outOfAction})
		case pod.DeletionTimestamp == nil && podset.Finished(pod):
			ended = append(ended, pod)
		}
	}
	if l.finished >= 0 && len(ended) > l.finished {
		slices.SortStableFunc(ended, func(a, b *corev1.Pod) int {
			return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
		})
		for _, pod := range ended[:len(ended)-l.finished] {
			out = append(out, item{pod, finished})
		}
	}
	return out
}

func isOrphan(pod *corev1.Pod, o observed, l limits, now time.Time) bool {
	since, ok := o.missing[pod.Spec.NodeName]
	return ok && now.Sub(since) >= l.quarantine
}

// outOfService reports whether an operator has said that n is off and will
// not touch its pods' storage, and n is indeed not ready.
func outOfService(n *corev1.Node) bool {
	if n == nil {
		return false
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			return false
		}
	}
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

// missingNodes updates since when the nodes that pods name are missing.
func missingNodes(o observed, now time.Time) map[string]time.Time {
	out := map[string]time.Time{}
	for _, pod := range o.pods {
		name := pod.Spec.NodeName
		if name == "" || o.nodes[name] != nil {
			continue
		}
		since, ok := o.missing[name]
		if !ok {
			since = now
		}
		out[name] = since
	}
	return out
}
