package admission

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// ExtendedResourceToleration lets pods that ask for an extended resource run
// on nodes that are tainted with its name and kept for such pods.
type ExtendedResourceToleration struct{}

// Name implements Plugin.
func (ExtendedResourceToleration) Name() string { return "ExtendedResourceToleration" }

// Handles implements Selective.
func (ExtendedResourceToleration) Handles(r schema.GroupResource) bool {
	return isPods(r)
}

// Admit implements Mutator.
func (ExtendedResourceToleration) Admit(_ context.Context, a *Attributes) error {
	p, ok := isPod(a)
	if !ok || a.Operation != Create && a.Operation != Update {
		return nil
	}
	var names []string
	for _, c := range (pod{p}).containers() {
		for name := range c.Resources.Requests {
			if strings.Contains(string(name), "/") && !strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix) {
				names = append(names, string(name))
			}
		}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		tolerate(p, corev1.Toleration{Key: name, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule})
	}
	return nil
}

// tolerate adds t, or puts it in the place of one that differs in its seconds
// only.
func tolerate(pod *corev1.Pod, t corev1.Toleration) {
	for i, had := range pod.Spec.Tolerations {
		if had.MatchToleration(&t) {
			pod.Spec.Tolerations[i] = t
			return
		}
	}
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, t)
}
