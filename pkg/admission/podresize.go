package admission

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	resourcehelper "k8s.io/component-helpers/resource"
)

// PodResizeValidator refuses to resize a running pod to more than its node
// has, which no waiting would cure.
type PodResizeValidator struct{ Objects Objects }

// Name implements Plugin.
func (PodResizeValidator) Name() string { return "PodResizeValidator" }

// Handles implements Selective.
func (PodResizeValidator) Handles(r schema.GroupResource) bool {
	return isPods(r)
}

// Validate implements Validator.
func (p PodResizeValidator) Validate(ctx context.Context, a *Attributes) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || a.Operation != Update || a.Subresource != "resize" || pod.Spec.NodeName == "" {
		return nil
	}
	if old, ok := a.Old().(*corev1.Pod); ok && old.Generation == pod.Generation {
		return nil // the spec stays as it is
	}
	node, err := get[*corev1.Node](ctx, p.Objects, nodeGVR, "", pod.Spec.NodeName)
	if apierrors.IsNotFound(err) {
		return forbidden(a, fmt.Errorf("node %q not found", pod.Spec.NodeName))
	}
	if err != nil {
		return forbidden(a, fmt.Errorf("failed to get node %q: %w", pod.Spec.NodeName, err))
	}
	if os := node.Labels[corev1.LabelOSStable]; os != "" && os != string(corev1.Linux) {
		return refuseResize(a, "UnsupportedPlatform", fmt.Errorf("pod resize is only supported on linux nodes, node %q is %q", node.Name, os))
	}
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	var over []string
	if want, has := requests.Cpu(), node.Status.Allocatable.Cpu(); want.Cmp(*has) > 0 {
		over = append(over, fmt.Sprintf("cpu, requested: %d, allocatable: %d", want.MilliValue(), has.MilliValue()))
	}
	if want, has := requests.Memory(), node.Status.Allocatable.Memory(); want.Cmp(*has) > 0 {
		over = append(over, fmt.Sprintf("memory, requested: %d, allocatable: %d", want.Value(), has.Value()))
	}
	if len(over) > 0 {
		return refuseResize(a, "NodeCapacity", fmt.Errorf("node didn't have enough allocatable resources: %s", strings.Join(over, "; ")))
	}
	return nil
}

func refuseResize(a *Attributes, cause metav1.CauseType, err error) error {
	refused := apierrors.NewForbidden(a.Resource.GroupResource(), a.Name, err)
	refused.ErrStatus.Details.Causes = append(refused.ErrStatus.Details.Causes, metav1.StatusCause{Type: cause})
	return refused
}
