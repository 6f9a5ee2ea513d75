package controlplane

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/admission"
	"coracle/pkg/auth"
	"coracle/pkg/auth/rbac"
	"coracle/pkg/registry"
)

// plugins are all admission plugins, in the order in which they run.
func (cp *ControlPlane) plugins() []admission.Plugin {
	objects := cachedObjects{cp}
	list := []admission.Plugin{
		admission.NamespaceLifecycle{Objects: objects},
		admission.ServiceAccount{Objects: objects, CreateDefault: cp.createDefaultAccount, Suffix: cp.nameSuffix},
		admission.NodeRestriction{Objects: objects},
		admission.TaintNodesByCondition{},
		admission.Priority{Objects: objects},
		admission.DefaultTolerationSeconds{},
		admission.CertificateRequester{},
		admission.PrivilegeEscalation{Guard: &rbac.Guard{Authorizer: cp.authz, Rules: cp.rbac}},
	}
	if !cp.cfg.AllowExternalIPs {
		list = append(list, admission.DenyServiceExternalIPs{})
	}
	return list
}

// neverDisabled are the plugins without which a cluster is not safe (CIS
// 1.2.12-1.2.14); envtest asks for ServiceAccount to be left out, which is
// about convenience there.
var neverDisabled = []string{"NamespaceLifecycle", "NodeRestriction", "PrivilegeEscalation", "CertificateRequester"}

// admission is the chain without the plugins that the configuration disables.
func (cp *ControlPlane) admission() (*admission.Chain, error) {
	list := cp.plugins()
	for _, name := range cp.cfg.DisableAdmission {
		if slices.Contains(neverDisabled, name) {
			return nil, fmt.Errorf("admission plugin %s cannot be disabled: take it out of --disable-admission-plugins", name)
		}
		list = slices.DeleteFunc(list, func(p admission.Plugin) bool { return p.Name() == name })
	}
	return admission.NewChain(list...)
}

// createDefaultAccount makes a namespace's default service account.
func (cp *ControlPlane) createDefaultAccount(ctx context.Context, namespace string) error {
	ctx = auth.WithUser(ctx, self())
	_, err := cp.registry.Create(ctx,
		registry.Request{Resource: cp.resource(corev1.SchemeGroupVersion.WithResource("serviceaccounts")), Namespace: namespace},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}},
		registry.WriteOptions{Manager: bootstrapManager, Internal: true})
	return err
}

// nameSuffix is a random end for names made by admission.
func (cp *ControlPlane) nameSuffix() (string, error) { return cp.registry.NameSuffix() }

// cachedObjects reads for admission: from the cache, and from the store what
// the cache does not have.
type cachedObjects struct{ cp *ControlPlane }

// Get implements admission.Objects.
func (c cachedObjects) Get(ctx context.Context, gvr schema.GroupVersionResource, namespace, name string) (runtime.Object, error) {
	res := c.cp.resource(gvr)
	req := registry.Request{Resource: res, Namespace: namespace, Name: name}
	o, err := c.cp.registry.Get(ctx, req, "0")
	if apierrors.IsNotFound(err) {
		o, err = c.cp.registry.Get(ctx, req, "")
	}
	if err != nil {
		return nil, err
	}
	return registry.Shared(res, o)
}

// List implements admission.Objects.
func (c cachedObjects) List(ctx context.Context, gvr schema.GroupVersionResource, namespace string) ([]runtime.Object, error) {
	res := c.cp.resource(gvr)
	page, err := c.cp.registry.List(ctx, registry.Request{Resource: res, Namespace: namespace}, registry.ListOptions{Version: "0"})
	if err != nil {
		return nil, err
	}
	out := make([]runtime.Object, 0, len(page.Items))
	for _, o := range page.Items {
		obj, err := registry.Shared(res, o)
		if err != nil {
			return nil, err
		}
		out = append(out, obj)
	}
	return out, nil
}

var _ admission.Objects = cachedObjects{}
