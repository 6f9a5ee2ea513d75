package admission

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/resource"
)

// The namespace annotations that PodTolerationRestriction reads: JSON lists of
// tolerations.
const (
	namespaceTolerations     = "scheduler.alpha.kubernetes.io/defaultTolerations"
	namespaceTolerationsList = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"
)

// PodTolerationRestriction gives pods the default tolerations of their
// namespace and refuses those that the namespace does not list.
type PodTolerationRestriction struct{ Objects Objects }

// Name implements Plugin.
func (PodTolerationRestriction) Name() string { return "PodTolerationRestriction" }

// Handles implements Selective.
func (PodTolerationRestriction) Handles(r schema.GroupResource) bool {
	return isPods(r)
}

// Admit implements Mutator.
func (p PodTolerationRestriction) Admit(ctx context.Context, a *Attributes) error {
	pod, ok := isPod(a)
	if !ok || a.Operation != Create && a.Operation != Update {
		return nil
	}
	var extra []corev1.Toleration
	if a.Operation == Create {
		var err error
		if extra, err = p.tolerations(ctx, a, namespaceTolerations); err != nil {
			return err
		}
	}
	if resource.QOSClass(&pod.Spec) != corev1.PodQOSBestEffort {
		extra = append(extra, corev1.Toleration{
			Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule,
		})
	}
	if len(extra) > 0 {
		pod.Spec.Tolerations = mergeTolerations(pod.Spec.Tolerations, extra)
	}
	return p.Validate(ctx, a)
}

// Validate implements Validator.
func (p PodTolerationRestriction) Validate(ctx context.Context, a *Attributes) error {
	pod, ok := isPod(a)
	if !ok || a.Operation != Create && a.Operation != Update || len(pod.Spec.Tolerations) == 0 {
		return nil
	}
	allowed, err := p.tolerations(ctx, a, namespaceTolerationsList)
	if err != nil || len(allowed) == 0 {
		return err
	}
	for _, t := range pod.Spec.Tolerations {
		if !slices.ContainsFunc(allowed, func(by corev1.Toleration) bool { return includes(by, t) }) {
			return forbidden(a, errors.New("pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist"))
		}
	}
	return nil
}

// tolerations reads one annotation of the pod's namespace.
func (p PodTolerationRestriction) tolerations(ctx context.Context, a *Attributes, annotation string) ([]corev1.Toleration, error) {
	ns, err := get[*corev1.Namespace](ctx, p.Objects, namespaceGVR, "", a.Namespace)
	if err != nil {
		return nil, err
	}
	text := ns.Annotations[annotation]
	if text == "" {
		return nil, nil
	}
	var out []corev1.Toleration
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		return nil, forbidden(a, errors.New("annotation "+annotation+" of its namespace is not a JSON list of tolerations"))
	}
	return out, nil
}
