package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Objects reads stored objects for plugins. Get returns an API NotFound error
// when there is none; what it returns is shared and never changed. It asks
// the store when the cache does not have the object, so that one which was
// created just before, by whatever server, is found.
type Objects interface {
	Get(ctx context.Context, gvr schema.GroupVersionResource, namespace, name string) (runtime.Object, error)
	List(ctx context.Context, gvr schema.GroupVersionResource, namespace string) ([]runtime.Object, error)
}

var (
	namespaceGVR = corev1.SchemeGroupVersion.WithResource("namespaces")
	podGVR       = corev1.SchemeGroupVersion.WithResource("pods")
	nodeGVR      = corev1.SchemeGroupVersion.WithResource("nodes")
	accountGVR   = corev1.SchemeGroupVersion.WithResource("serviceaccounts")
)

// isPod says that a is about the pod itself and not one of its subresources,
// and returns the new pod.
func isPod(a *Attributes) (*corev1.Pod, bool) {
	if a.Subresource != "" {
		return nil, false
	}
	pod, ok := a.Object.(*corev1.Pod)
	return pod, ok
}

// bringsContainers returns the pod of a request by which a pod may come to
// containers: its own, or that for ephemeral ones.
func bringsContainers(a *Attributes) (*corev1.Pod, bool) {
	if a.Subresource == "ephemeralcontainers" {
		pod, ok := a.Object.(*corev1.Pod)
		return pod, ok
	}
	return isPod(a)
}

// isPods says that a resource is that of pods.
func isPods(r schema.GroupResource) bool { return r.Group == "" && r.Resource == "pods" }

// get reads an object of a known type.
func get[T runtime.Object](ctx context.Context, objects Objects, gvr schema.GroupVersionResource, namespace, name string) (T, error) {
	obj, err := objects.Get(ctx, gvr, namespace, name)
	if err != nil {
		var none T
		return none, err
	}
	return obj.(T), nil
}

// list reads all objects of a known type in a namespace.
func list[T runtime.Object](ctx context.Context, objects Objects, gvr schema.GroupVersionResource, namespace string) ([]T, error) {
	found, err := objects.List(ctx, gvr, namespace)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(found))
	for i, obj := range found {
		out[i] = obj.(T)
	}
	return out, nil
}

// forbidden is a plugin's refusal of a.
func forbidden(a *Attributes, err error) error {
	return apierrors.NewForbidden(a.Resource.GroupResource(), a.Name, err)
}
