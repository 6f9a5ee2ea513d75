package resource

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// bindings are pods/binding under a name of its own, as upstream still serves
// it; creating one binds the pod of its name. Nothing is stored.
func bindings() *Resource {
	return define(Resource{
		Version: "v1", Kind: "Binding", Plural: "bindings", Namespaced: true,
		Verbs: []string{"create"},
		New:   func() runtime.Object { return &corev1.Binding{} },
	}, hooks[*corev1.Binding]{Validate: CheckBinding})
}

// CheckBinding returns what is wrong with a binding, whichever way it comes: a
// pod is bound to a node and to nothing else.
func CheckBinding(b *corev1.Binding) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("target")
	if k := b.Target.Kind; k != "" && k != "Node" {
		errs = append(errs, field.NotSupported(path.Child("kind"), k, []string{"Node", "<empty>"}))
	}
	return append(errs, required(path.Child("name"), b.Target.Name)...)
}
