package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// DefaultTolerationSeconds lets pods stay for a while on a node that is not
// ready or cannot be reached, unless they say otherwise.
type DefaultTolerationSeconds struct {
	// NotReady and Unreachable are how many seconds they stay.
	NotReady, Unreachable int64
}

// Name implements Plugin.
func (DefaultTolerationSeconds) Name() string { return "DefaultTolerationSeconds" }

// Handles implements Selective.
func (DefaultTolerationSeconds) Handles(r schema.GroupResource) bool {
	return isPods(r)
}

// Admit implements Mutator.
func (p DefaultTolerationSeconds) Admit(_ context.Context, a *Attributes) error {
	pod, ok := isPod(a)
	if !ok || a.Operation != Create && a.Operation != Update {
		return nil
	}
	for _, taint := range []struct {
		key     string
		seconds int64
	}{{corev1.TaintNodeNotReady, p.NotReady}, {corev1.TaintNodeUnreachable, p.Unreachable}} {
		if !tolerates(pod, taint.key) {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
				Key: taint.key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute,
				TolerationSeconds: new(taint.seconds),
			})
		}
	}
	return nil
}

// tolerates says that the pod has an answer of its own to a NoExecute taint.
func tolerates(pod *corev1.Pod, key string) bool {
	for _, t := range pod.Spec.Tolerations {
		if (t.Key == key || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "") {
			return true
		}
	}
	return false
}
