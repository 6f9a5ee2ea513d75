package controlplane

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"coracle/pkg/admission/celpolicy"
	"coracle/pkg/registry"
	"coracle/pkg/resource"
	"coracle/pkg/storage/cache"
)

// policyConfig is what the plugins of admission policies are made of.
func (cp *ControlPlane) policyConfig() celpolicy.Config {
	return celpolicy.Config{
		Objects: policyObjects{cachedObjects{cp}}, Table: func() *resource.Table { return cp.registry.Table() },
		Compiler: cp.expressions, Authorizer: cp.authz,
	}
}

// fieldTypes are the types of a served kind's fields.
func (cp *ControlPlane) fieldTypes(kind schema.GroupVersionKind) (managedfields.TypeConverter, error) {
	return cp.registry.FieldTypes(kind)
}

// policyObjects reads for admission policies.
type policyObjects struct{ cachedObjects }

// Marks implements celpolicy.Objects.
func (p policyObjects) Marks(gvr schema.GroupVersionResource) func() any {
	// The registry comes after the chain that it admits by.
	prefix := sync.OnceValue(func() string { return registry.Prefix(p.cp.resource(gvr), "") })
	return func() any { return p.cp.cache.Mark(prefix()) }
}

// GetOf implements celpolicy.Objects.
func (p policyObjects) GetOf(ctx context.Context, res *resource.Resource, namespace, name string) (runtime.Object, error) {
	return p.get(ctx, registry.ForRequest(ctx, res), namespace, name)
}

// ListOf implements celpolicy.Objects.
func (p policyObjects) ListOf(ctx context.Context, res *resource.Resource, namespace string, selector labels.Selector) ([]runtime.Object, error) {
	return p.list(ctx, registry.ForRequest(ctx, res), namespace, selector)
}

// get reads from the cache, and from the store what the cache does not have.
func (c cachedObjects) get(ctx context.Context, res *resource.Resource, namespace, name string) (runtime.Object, error) {
	o, err := c.stored(ctx, res, namespace, name)
	if err != nil {
		return nil, err
	}
	return registry.Shared(res, o)
}

// stored is get of the object as it is kept.
func (c cachedObjects) stored(ctx context.Context, res *resource.Resource, namespace, name string) (*cache.Object, error) {
	req := registry.Request{Resource: res, Namespace: namespace, Name: name}
	o, err := c.cp.registry.Get(ctx, req, "0")
	if apierrors.IsNotFound(err) {
		o, err = c.cp.registry.Get(ctx, req, "")
	}
	return o, err
}

// nodeLabels are a node's, which need not be decoded for them.
func (c cachedObjects) nodeLabels(ctx context.Context, name string) (map[string]string, error) {
	o, err := c.stored(ctx, c.cp.resource(corev1.SchemeGroupVersion.WithResource("nodes")), "", name)
	if err != nil {
		return nil, err
	}
	return o.Labels, nil
}

// list reads from the cache what a selector selects.
func (c cachedObjects) list(ctx context.Context, res *resource.Resource, namespace string, selector labels.Selector) ([]runtime.Object, error) {
	page, err := c.cp.registry.List(ctx, registry.Request{Resource: res, Namespace: namespace}, registry.ListOptions{Version: "0"})
	if err != nil {
		return nil, err
	}
	out := make([]runtime.Object, 0, len(page.Items))
	for _, o := range page.Items {
		if !selector.Matches(labels.Set(o.Labels)) {
			continue
		}
		obj, err := registry.Shared(res, o)
		if err != nil {
			return nil, err
		}
		out = append(out, obj)
	}
	return out, nil
}
