package admission

import (
	"context"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var ingressClassGVR = networkingv1.SchemeGroupVersion.WithResource("ingressclasses")

// ingressClassAnnotation is how an Ingress named its class before it had a
// field for it.
const ingressClassAnnotation = "kubernetes.io/ingress.class"

// DefaultIngressClass gives Ingresses that name no class the newest default
// one.
type DefaultIngressClass struct{ Objects Objects }

// Name implements Plugin.
func (DefaultIngressClass) Name() string { return "DefaultIngressClass" }

// Handles implements Selective.
func (DefaultIngressClass) Handles(r schema.GroupResource) bool {
	return r.Group == networkingv1.GroupName && r.Resource == "ingresses"
}

// Admit implements Mutator.
func (p DefaultIngressClass) Admit(ctx context.Context, a *Attributes) error {
	ingress, ok := a.Object.(*networkingv1.Ingress)
	if !ok || a.Operation != Create || a.Subresource != "" || ingress.Spec.IngressClassName != nil {
		return nil
	}
	if _, named := ingress.Annotations[ingressClassAnnotation]; named {
		return nil
	}
	classes, err := list[*networkingv1.IngressClass](ctx, p.Objects, ingressClassGVR, "")
	if err != nil {
		return forbidden(a, err)
	}
	def := newest(classes, func(c *networkingv1.IngressClass) bool {
		return c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true"
	})
	if def != nil {
		ingress.Spec.IngressClassName = new(def.Name)
	}
	return nil
}
