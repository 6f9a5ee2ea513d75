package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// notReadySeconds is how long a pod stays on a node that went away, unless it
// says otherwise.
const notReadySeconds = 300

// DefaultTolerationSeconds lets pods stay for a while on a node that is not
// ready or cannot be reached.
type DefaultTolerationSeconds struct{}

// Name implements Plugin.
func (DefaultTolerationSeconds) Name() string { return "DefaultTolerationSeconds" }

// Handles implements Selective.
func (DefaultTolerationSeconds) Handles(r schema.GroupResource) bool {
	return isPods(r)
}

// Admit implements Mutator.
func (DefaultTolerationSeconds) Admit(_ context.Context, a *Attributes) error {
	pod, ok := isPod(a)
	if !ok || a.Operation != Create && a.Operation != Update {
		return nil
	}
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		if !tolerates(pod, key) {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
				Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute,
				TolerationSeconds: new(int64(notReadySeconds)),
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
