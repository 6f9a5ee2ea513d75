package tainteviction

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
)

// verdict says what the taints of its node mean for a pod.
type verdict struct {
	evict bool          // delete it now
	wait  time.Duration // otherwise, when positive, look again after this time
}

// compute judges one pod. A taint without a toleration evicts at once; one
// whose toleration is limited evicts when it has been there for the shortest
// limit of all tolerations in use. since says when a taint appeared.
func compute(pod *corev1.Pod, taints []corev1.Taint, since func(corev1.Taint) time.Time, now time.Time) verdict {
	var deadline time.Time
	for _, taint := range taints {
		if taint.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		limit, ok := tolerated(pod.Spec.Tolerations, &taint)
		if !ok {
			return verdict{evict: true}
		}
		if limit == nil {
			continue
		}
		at := since(taint).Add(max(*limit, 0))
		if deadline.IsZero() || at.Before(deadline) {
			deadline = at
		}
	}
	switch left := deadline.Sub(now); {
	case deadline.IsZero():
		return verdict{}
	case left <= 0:
		return verdict{evict: true}
	default:
		return verdict{wait: left}
	}
}

// tolerated reports whether a toleration matches, and the shortest limit of
// those that do; nil means without limit.
func tolerated(tolerations []corev1.Toleration, taint *corev1.Taint) (limit *time.Duration, ok bool) {
	for i := range tolerations {
		t := &tolerations[i]
		if !t.ToleratesTaint(klog.Logger{}, taint, true) {
			continue
		}
		ok = true
		if t.TolerationSeconds == nil {
			continue
		}
		d := time.Duration(*t.TolerationSeconds) * time.Second
		if limit == nil || d < *limit {
			limit = &d
		}
	}
	return limit, ok
}
