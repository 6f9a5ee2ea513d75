package admission

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// namespaceNodeSelector is the annotation of a Namespace that PodNodeSelector
// reads: "key=value,key=value".
const namespaceNodeSelector = "scheduler.alpha.kubernetes.io/node-selector"

// PodNodeSelector sends all pods of a namespace to the nodes that its
// annotation selects.
type PodNodeSelector struct{ Objects Objects }

// Name implements Plugin.
func (PodNodeSelector) Name() string { return "PodNodeSelector" }

// Handles implements Selective.
func (PodNodeSelector) Handles(r schema.GroupResource) bool {
	return isPods(r)
}

// Admit implements Mutator.
func (p PodNodeSelector) Admit(ctx context.Context, a *Attributes) error {
	pod, ok := isPod(a)
	if !ok || a.Operation != Create {
		return nil
	}
	wanted, err := p.selector(ctx, a)
	if err != nil {
		return err
	}
	if labels.Conflicts(wanted, labels.Set(pod.Spec.NodeSelector)) {
		return forbidden(a, errNodeSelector)
	}
	if len(wanted) > 0 {
		pod.Spec.NodeSelector = labels.Merge(wanted, pod.Spec.NodeSelector)
	}
	return nil
}

var errNodeSelector = errors.New("pod node label selector conflicts with its namespace node label selector")

// Validate implements Validator.
func (p PodNodeSelector) Validate(ctx context.Context, a *Attributes) error {
	pod, ok := isPod(a)
	if !ok || a.Operation != Create {
		return nil
	}
	wanted, err := p.selector(ctx, a)
	if err != nil {
		return err
	}
	for k, v := range wanted {
		if pod.Spec.NodeSelector[k] != v {
			return forbidden(a, errNodeSelector)
		}
	}
	return nil
}

func (p PodNodeSelector) selector(ctx context.Context, a *Attributes) (labels.Set, error) {
	ns, err := get[*corev1.Namespace](ctx, p.Objects, namespaceGVR, "", a.Namespace)
	if err != nil {
		return nil, err
	}
	set, err := labels.ConvertSelectorToLabelsMap(ns.Annotations[namespaceNodeSelector])
	if err != nil {
		return nil, forbidden(a, err)
	}
	return set, nil
}
