package namespace

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// remains is what one pass of deletion found and left behind.
type remains struct {
	discovery error   // some resource types are unknown
	failures  []error // types whose objects could not be deleted or listed
	// count is how many objects of a type are left, finalizers how many carry
	// a finalizer, by its name.
	count      map[schema.GroupVersionResource]int
	finalizers map[string]int
	// grace is the longest time that a remaining pod has to end.
	grace time.Duration
}

// verdict is what follows from it.
type verdict struct {
	conditions []corev1.NamespaceCondition
	done       bool // nothing is left, and this is certain
	wait       time.Duration
}

const (
	minWait = 500 * time.Millisecond
	maxWait = 15 * time.Second
)

// compute judges what is left of a namespace that is being deleted. It is done
// only if every type is known and every list came back empty: a type that
// could not be asked counts as not empty.
func compute(have []corev1.NamespaceCondition, r remains, age time.Duration, now time.Time) verdict {
	content := 0
	for _, n := range r.count {
		content += n
	}
	v := verdict{done: r.discovery == nil && len(r.failures) == 0 && content == 0}
	set := func(t corev1.NamespaceConditionType, bad bool, good, reason, fine, message string) {
		c := corev1.NamespaceCondition{Type: t, Status: corev1.ConditionFalse, Reason: good, Message: fine}
		if bad {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, reason, message
		}
		v.conditions = append(v.conditions, c)
	}
	set(corev1.NamespaceDeletionDiscoveryFailure, r.discovery != nil, "ResourcesDiscovered", "DiscoveryFailed",
		"All resources successfully discovered", text("Discovery failed for some groups", r.discovery))
	set(corev1.NamespaceDeletionGVParsingFailure, false, "ParsedGroupVersions", "GroupVersionParsingFailed",
		"All legacy kube types successfully parsed", "")
	set(corev1.NamespaceDeletionContentFailure, len(r.failures) > 0, "ContentDeleted", "ContentDeletionFailed",
		"All content successfully deleted, may be waiting on finalization", text("Failed to delete some content", r.failures...))
	set(corev1.NamespaceContentRemaining, content > 0, "ContentRemoved", "SomeResourcesRemain",
		"All content successfully removed", "Some resources are remaining: "+contentText(r.count))
	set(corev1.NamespaceFinalizersRemaining, len(r.finalizers) > 0, "ContentHasNoFinalizers", "SomeFinalizersRemain",
		"All content-preserving finalizers finished", "Some content in the namespace has finalizers remaining: "+finalizerText(r.finalizers))
	v.conditions = merged(have, v.conditions, now)
	if !v.done {
		// Something long-lived blocks an old namespace: look less often.
		v.wait = min(max(age/4, r.grace/2, minWait), maxWait)
	}
	return v
}

func text(what string, errs ...error) string {
	parts := make([]string, 0, len(errs))
	for _, err := range errs {
		if err != nil {
			parts = append(parts, err.Error())
		}
	}
	slices.Sort(parts)
	return what + ": " + strings.Join(parts, "; ")
}

func contentText(count map[schema.GroupVersionResource]int) string {
	parts := make([]string, 0, len(count))
	for _, gvr := range slices.SortedFunc(maps.Keys(count), func(a, b schema.GroupVersionResource) int {
		return cmp.Compare(a.String(), b.String())
	}) {
		if n := count[gvr]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s has %d resource instances", gvr.GroupResource(), n))
		}
	}
	return strings.Join(parts, ", ")
}

func finalizerText(count map[string]int) string {
	parts := make([]string, 0, len(count))
	for _, name := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, fmt.Sprintf("%s in %d resource instances", name, count[name]))
	}
	return strings.Join(parts, ", ")
}

// merged returns have with the conditions of want put in. Times move only when
// a status does.
func merged(have, want []corev1.NamespaceCondition, now time.Time) []corev1.NamespaceCondition {
	out := slices.Clone(have)
	for _, w := range want {
		i := slices.IndexFunc(out, func(c corev1.NamespaceCondition) bool { return c.Type == w.Type })
		switch {
		case i < 0:
			w.LastTransitionTime = metav1.Time{Time: now}
			out = append(out, w)
		case out[i].Status != w.Status:
			w.LastTransitionTime = metav1.Time{Time: now}
			out[i] = w
		default:
			w.LastTransitionTime = out[i].LastTransitionTime
			out[i] = w
		}
	}
	return out
}
