package custom

import (
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"coracle/pkg/resource"
)

// addScale gives r the subresource /scale.
func (o *objects) addScale(r *resource.Resource) {
	r.Subresources = append(r.Subresources, resource.Subresource{
		Name: "scale", Kind: autoscalingv1.SchemeGroupVersion.WithKind("Scale"), Verbs: []string{"get", "patch", "update"},
	})
	r.Custom.ReplicasPath = splitPath(o.scale.SpecReplicasPath)
	r.Scale, r.SetScale = o.readScale, o.writeScale
}

// readScale implements resource.Resource.Scale: nil for an object that does
// not have the field that says how many replicas are wanted.
func (o *objects) readScale(obj runtime.Object) *autoscalingv1.Scale {
	u := obj.(*unstructured.Unstructured)
	wanted, found, err := unstructured.NestedInt64(u.Object, splitPath(o.scale.SpecReplicasPath)...)
	if err != nil || !found {
		return nil
	}
	// What status lacks is 0, and no selector selects nothing in particular.
	actual, _, _ := unstructured.NestedInt64(u.Object, splitPath(o.scale.StatusReplicasPath)...)
	selector := ""
	if p := o.scale.LabelSelectorPath; p != nil {
		selector, _, _ = unstructured.NestedString(u.Object, splitPath(*p)...)
	}
	return &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Name: u.GetName(), Namespace: u.GetNamespace(), UID: u.GetUID(),
			ResourceVersion: u.GetResourceVersion(), CreationTimestamp: u.GetCreationTimestamp(),
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: int32(wanted)},
		Status: autoscalingv1.ScaleStatus{Replicas: int32(actual), Selector: selector},
	}
}

// writeScale implements resource.Resource.SetScale.
func (o *objects) writeScale(obj runtime.Object, scale *autoscalingv1.Scale) field.ErrorList {
	u := obj.(*unstructured.Unstructured)
	path := splitPath(o.scale.SpecReplicasPath)
	if err := unstructured.SetNestedField(u.Object, int64(scale.Spec.Replicas), path...); err != nil {
		return field.ErrorList{field.Invalid(field.NewPath(o.scale.SpecReplicasPath), scale.Spec.Replicas, err.Error())}
	}
	return nil
}
