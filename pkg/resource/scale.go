package resource

import (
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// scaleSubresource is the /scale of workloads.
func scaleSubresource() Subresource {
	return Subresource{
		Name: "scale", Kind: autoscalingv1.SchemeGroupVersion.WithKind("Scale"),
		Verbs: []string{"get", "patch", "update"},
	}
}

// ScaleOf is the scale of an object. That of a custom resource which lacks the
// field of its replicas has none.
func (r *Resource) ScaleOf(obj runtime.Object) *autoscalingv1.Scale {
	if scale := r.Scale(obj); scale != nil {
		return scale
	}
	scale := &autoscalingv1.Scale{}
	if acc, err := meta.Accessor(obj); err == nil {
		scale.Name, scale.Namespace, scale.UID = acc.GetName(), acc.GetNamespace(), acc.GetUID()
		scale.ResourceVersion = acc.GetResourceVersion()
	}
	return scale
}

// makeScale shows a workload as its number of replicas. The selector is text,
// so that an autoscaler can list the pods with it.
func makeScale(meta *metav1.ObjectMeta, want *int32, have int32, selector *metav1.LabelSelector) *autoscalingv1.Scale {
	text := ""
	if s, err := metav1.LabelSelectorAsSelector(selector); err == nil {
		text = s.String()
	}
	return &autoscalingv1.Scale{
		TypeMeta: metav1.TypeMeta{Kind: "Scale", APIVersion: autoscalingv1.SchemeGroupVersion.String()},
		ObjectMeta: metav1.ObjectMeta{
			Name: meta.Name, Namespace: meta.Namespace, UID: meta.UID,
			ResourceVersion: meta.ResourceVersion, CreationTimestamp: meta.CreationTimestamp,
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: count(want, 0)},
		Status: autoscalingv1.ScaleStatus{Replicas: have, Selector: text},
	}
}

// takeScale writes a valid scale's replicas to the workload's.
func takeScale(replicas **int32, scale *autoscalingv1.Scale) field.ErrorList {
	if scale.Spec.Replicas < 0 {
		return field.ErrorList{field.Invalid(field.NewPath("spec", "replicas"), scale.Spec.Replicas,
			"must be greater than or equal to 0")}
	}
	*replicas = new(scale.Spec.Replicas)
	return nil
}

// count is *n, or unset where n is nil.
func count(n *int32, unset int32) int32 {
	if n == nil {
		return unset
	}
	return *n
}
