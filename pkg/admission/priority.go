package admission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var priorityClassGVR = schedulingv1.SchemeGroupVersion.WithResource("priorityclasses")

// Priority gives pods and their groups the number that their PriorityClass
// stands for, and keeps a second default class out.
type Priority struct{ Objects Objects }

// Name implements Plugin.
func (Priority) Name() string { return "Priority" }

// Handles implements Selective.
func (Priority) Handles(r schema.GroupResource) bool {
	return r.Group == "" && r.Resource == "pods" || r.Group == schedulingv1.GroupName && (r.Resource == "priorityclasses" || r.Resource == "podgroups")
}

// Admit implements Mutator.
func (p Priority) Admit(ctx context.Context, a *Attributes) error {
	if group, ok := a.Object.(*schedulingv1beta1.PodGroup); ok && a.Operation == Create && a.Subresource == "" {
		return p.admitGroup(ctx, a, group)
	}
	pod, ok := isPod(a)
	if !ok {
		return nil
	}
	if a.Operation == Update {
		if old, ok := a.Old().(*corev1.Pod); ok {
			keepPriority(&pod.Spec, &old.Spec)
		}
		return nil
	}
	if a.Operation != Create {
		return nil
	}
	class, err := p.class(ctx, a, pod.Spec.PriorityClassName)
	if err != nil {
		return err
	}
	value, policy := int32(0), corev1.PreemptLowerPriority
	if class != nil {
		pod.Spec.PriorityClassName, value = class.Name, class.Value
		if class.PreemptionPolicy != nil {
			policy = *class.PreemptionPolicy
		}
	}
	if pod.Spec.Priority != nil && *pod.Spec.Priority != value {
		return apierrors.NewForbidden(a.Resource.GroupResource(), a.Name, fmt.Errorf(
			"the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name",
			*pod.Spec.Priority, value))
	}
	if pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy != policy {
		return apierrors.NewForbidden(a.Resource.GroupResource(), a.Name, fmt.Errorf(
			"the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name",
			*pod.Spec.PreemptionPolicy, policy))
	}
	pod.Spec.Priority, pod.Spec.PreemptionPolicy = &value, &policy
	return nil
}

// keepPriority puts back what an update leaves out: clients that do not know it,
// or that send the pod as they created it, mean no change.
func keepPriority(spec, old *corev1.PodSpec) {
	if spec.Priority == nil {
		spec.Priority = old.Priority
	}
	if spec.PreemptionPolicy == nil {
		spec.PreemptionPolicy = old.PreemptionPolicy
	}
}

// admitGroup gives a group the priority of its class, as its pods have it.
func (p Priority) admitGroup(ctx context.Context, a *Attributes, group *schedulingv1beta1.PodGroup) error {
	class, err := p.class(ctx, a, group.Spec.PriorityClassName)
	if err != nil {
		return err
	}
	value := int32(0)
	if class != nil {
		group.Spec.PriorityClassName, value = class.Name, class.Value
	}
	if group.Spec.Priority != nil && *group.Spec.Priority != value {
		return apierrors.NewForbidden(a.Resource.GroupResource(), a.Name, fmt.Errorf(
			"priority set in the pod group (%d) must match the priority computed (%d) based on the priority class set in the spec",
			*group.Spec.Priority, value))
	}
	group.Spec.Priority = &value
	return nil
}

// class is the class of a name, the default one when there is no name, else nil.
func (p Priority) class(ctx context.Context, a *Attributes, name string) (*schedulingv1.PriorityClass, error) {
	if name != "" {
		class, err := get[*schedulingv1.PriorityClass](ctx, p.Objects, priorityClassGVR, "", name)
		if apierrors.IsNotFound(err) {
			return nil, apierrors.NewForbidden(a.Resource.GroupResource(), a.Name, fmt.Errorf("no PriorityClass with name %v was found", name))
		}
		return class, err
	}
	classes, err := p.Objects.List(ctx, priorityClassGVR, "")
	if err != nil {
		return nil, err
	}
	var def *schedulingv1.PriorityClass
	for _, obj := range classes {
		class := obj.(*schedulingv1.PriorityClass)
		// Of several defaults the lowest counts, so that order does not matter.
		if class.GlobalDefault && (def == nil || class.Value < def.Value) {
			def = class
		}
	}
	return def, nil
}

// Validate implements Validator: there is one default class.
func (p Priority) Validate(ctx context.Context, a *Attributes) error {
	class, ok := a.Object.(*schedulingv1.PriorityClass)
	if !ok || !class.GlobalDefault || a.Operation != Create && a.Operation != Update {
		return nil
	}
	classes, err := p.Objects.List(ctx, priorityClassGVR, "")
	if err != nil {
		return err
	}
	for _, obj := range classes {
		if other := obj.(*schedulingv1.PriorityClass); other.GlobalDefault && other.Name != class.Name {
			return apierrors.NewForbidden(a.Resource.GroupResource(), a.Name, fmt.Errorf(
				"PriorityClass %v is already marked as default. Only one default can exist", other.Name))
		}
	}
	return nil
}
