package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var runtimeClassGVR = nodev1.SchemeGroupVersion.WithResource("runtimeclasses")

// RuntimeClass gives pods the overhead of their runtime and sends them to the
// nodes that have it.
type RuntimeClass struct{ Objects Objects }

// Name implements Plugin.
func (RuntimeClass) Name() string { return "RuntimeClass" }

// Handles implements Selective.
func (RuntimeClass) Handles(r schema.GroupResource) bool {
	return isPods(r)
}

// class is the class that the pod names, nil when it names none.
func (p RuntimeClass) class(ctx context.Context, a *Attributes, pod *corev1.Pod) (*nodev1.RuntimeClass, error) {
	if pod.Spec.RuntimeClassName == nil {
		return nil, nil
	}
	name := *pod.Spec.RuntimeClassName
	class, err := get[*nodev1.RuntimeClass](ctx, p.Objects, runtimeClassGVR, "", name)
	if apierrors.IsNotFound(err) {
		return nil, forbidden(a, fmt.Errorf("pod rejected: RuntimeClass %q not found", name))
	}
	return class, err
}

// Admit implements Mutator.
func (p RuntimeClass) Admit(ctx context.Context, a *Attributes) error {
	pod, ok := isPod(a)
	if !ok || a.Operation != Create {
		return nil
	}
	class, err := p.class(ctx, a, pod)
	if err != nil || class == nil {
		return err
	}
	if class.Overhead != nil {
		if len(pod.Spec.Overhead) > 0 && !equality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead) {
			return forbidden(a, errOverhead)
		}
		pod.Spec.Overhead = class.Overhead.PodFixed.DeepCopy()
	}
	if class.Scheduling != nil {
		return place(a, pod, class.Scheduling)
	}
	return nil
}

var errOverhead = errors.New("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")

// place adds the class's node selector and tolerations to the pod's own.
func place(a *Attributes, pod *corev1.Pod, s *nodev1.Scheduling) error {
	names := make([]string, 0, len(s.NodeSelector))
	for name := range s.NodeSelector {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		value := s.NodeSelector[name]
		if had, ok := pod.Spec.NodeSelector[name]; ok && had != value {
			return forbidden(a, fmt.Errorf("conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", name, value, name, had))
		}
		if pod.Spec.NodeSelector == nil {
			pod.Spec.NodeSelector = map[string]string{}
		}
		pod.Spec.NodeSelector[name] = value
	}
	pod.Spec.Tolerations = mergeTolerations(pod.Spec.Tolerations, s.Tolerations)
	return nil
}

// Validate implements Validator: an overhead is the class's, or there is none.
func (p RuntimeClass) Validate(ctx context.Context, a *Attributes) error {
	pod, ok := isPod(a)
	if !ok || a.Operation != Create {
		return nil
	}
	class, err := p.class(ctx, a, pod)
	switch {
	case err != nil:
		return err
	case class != nil && class.Overhead != nil:
		if !equality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead) {
			return forbidden(a, errOverhead)
		}
	case pod.Spec.Overhead != nil:
		return forbidden(a, errors.New("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
	}
	return nil
}
