package match

import (
	"context"
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/admission"
	"coracle/pkg/resource"
)

// Criteria say which requests somebody wants to be asked about.
type Criteria struct {
	// Rules name resources and operations; one has to cover the request, and
	// none of Except.
	Rules, Except []admissionv1.NamedRuleWithOperations
	// Exact wants rules to name the version in which the client wrote. Without
	// it, they may name any in which the object is served.
	Exact bool
	// Namespaces selects by the labels of the object's namespace, or of the
	// Namespace that the request is about; objects outside namespaces are
	// always selected. Objects selects by the labels of the object, as it is
	// to become or as it was. Nil selects everything.
	Namespaces, Objects labels.Selector
}

// Matcher knows what criteria are compared with.
type Matcher struct {
	// Objects reads namespaces.
	Objects admission.Objects
	// Table returns the resources that are served at the moment.
	Table func() *resource.Table
}

// Request is one request while it is compared with many criteria.
type Request struct {
	*admission.Attributes
	m     *Matcher
	asked *Form
	other []*Form // nil until wanted
	known bool    // other is set
	// shown are the objects in the forms that were asked for.
	shown map[*Form]*pair
	ns    *corev1.Namespace // set by Namespace
}

type pair struct{ object, old runtime.Object }

// Request begins to compare a request.
func (m *Matcher) Request(a *admission.Attributes) *Request {
	return &Request{Attributes: a, m: m, asked: asked(a), shown: map[*Form]*pair{}}
}

// Asked is the form in which the client made the request.
func (r *Request) Asked() *Form { return r.asked }

// InNamespace is the namespace that the request is in: for a Namespace, itself.
func (r *Request) InNamespace() string {
	if r.isNamespace() {
		return r.Name
	}
	return r.Attributes.Namespace
}

func (r *Request) isNamespace() bool {
	return r.Resource.Group == "" && r.Resource.Plural == "namespaces"
}

// Match returns the form in which the author of c wants to see the request,
// nil when it is none of those. Errors are API status errors.
func (r *Request) Match(ctx context.Context, c *Criteria) (*Form, error) {
	form := r.covered(ctx, c.Rules, c.Exact)
	if form == nil || len(c.Except) > 0 && r.covered(ctx, c.Except, c.Exact) != nil || !r.objectMatches(c.Objects) {
		return nil, nil
	}
	ok, err := r.namespaceMatches(ctx, c.Namespaces)
	if !ok || err != nil {
		return nil, err
	}
	return form, nil
}

// covered returns the form in which a rule names the request: before all
// others that in which the client made it.
func (r *Request) covered(ctx context.Context, rules []admissionv1.NamedRuleWithOperations, exact bool) *Form {
	for i := range rules {
		if covers(&rules[i], r.Attributes, r.asked.Resource) {
			return r.asked
		}
	}
	if exact {
		return nil
	}
	if !r.known {
		r.other, r.known = others(ctx, r.Attributes, r.m.Table()), true
	}
	for i := range rules {
		for _, f := range r.other {
			if covers(&rules[i], r.Attributes, f.Resource) {
				return f
			}
		}
	}
	return nil
}

func (r *Request) objectMatches(s labels.Selector) bool {
	if s == nil || s.Empty() {
		return true
	}
	for _, obj := range []runtime.Object{r.Object, r.Old()} {
		if obj == nil {
			continue
		}
		if acc, err := meta.Accessor(obj); err == nil && s.Matches(labels.Set(acc.GetLabels())) {
			return true
		}
	}
	return false
}

func (r *Request) namespaceMatches(ctx context.Context, s labels.Selector) (bool, error) {
	if s == nil || s.Empty() {
		return true, nil
	}
	if r.isNamespace() {
		obj := r.Object
		if r.Operation == admission.Delete || r.Subresource != "" && r.Old() != nil {
			obj = r.Old() // what is stored
		}
		acc, err := meta.Accessor(obj)
		if err != nil {
			return false, apierrors.NewInternalError(err)
		}
		return s.Matches(labels.Set(acc.GetLabels())), nil
	}
	if r.Attributes.Namespace == "" {
		return true, nil
	}
	ns, err := r.Namespace(ctx)
	if err != nil {
		return false, err
	}
	return s.Matches(labels.Set(ns.Labels)), nil
}

// Namespace is the stored namespace of an object that is in one, nil for
// others. It is shared.
func (r *Request) Namespace(ctx context.Context) (*corev1.Namespace, error) {
	if r.ns != nil || r.Attributes.Namespace == "" || r.isNamespace() {
		return r.ns, nil
	}
	obj, err := r.m.Objects.Get(ctx, corev1.SchemeGroupVersion.WithResource("namespaces"), "", r.Attributes.Namespace)
	if err != nil {
		return nil, err
	}
	ns, ok := obj.(*corev1.Namespace)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("namespace %s is a %T", r.Attributes.Namespace, obj))
	}
	r.ns = ns
	return ns, nil
}

// Prepare shows the request's objects in a form: the new one, nil on Delete,
// and the stored one, nil where there is none. They carry their kind.
func (r *Request) Prepare(f *Form) (object, old runtime.Object, err error) {
	p := r.shown[f]
	if p == nil {
		p = &pair{}
		r.shown[f] = p
	}
	if p.object == nil && r.Object != nil {
		if p.object, err = f.showOne(r.Object); err != nil {
			return nil, nil, err
		}
	}
	if p.old == nil && r.Old() != nil {
		if p.old, err = f.showOne(r.Old()); err != nil {
			return nil, nil, err
		}
	}
	return p.object, p.old, nil
}

func (f *Form) showOne(obj runtime.Object) (runtime.Object, error) {
	out, err := f.show(obj)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("show it as %s: %w", f.Kind, err))
	}
	if out.GetObjectKind().GroupVersionKind() != f.Kind {
		out.GetObjectKind().SetGroupVersionKind(f.Kind)
	}
	return out, nil
}

// Replace makes next, which is of a form, the request's object. It takes next
// over.
func (r *Request) Replace(f *Form, next runtime.Object) error {
	got, err := f.take(next, r.Object)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("take it from %s: %w", f.Kind, err))
	}
	if r.Resource.Custom == nil {
		got.GetObjectKind().SetGroupVersionKind(r.Object.GetObjectKind().GroupVersionKind())
	}
	if err := replace(r.Object, got); err != nil {
		return apierrors.NewInternalError(err)
	}
	if r.Resource.Default != nil && r.isWhole() {
		r.Resource.Default(r.Object)
	}
	for _, p := range r.shown {
		p.object = nil
	}
	return nil
}

// isWhole says that the request's object is of the resource's own kind, and
// not of a subresource's.
func (r *Request) isWhole() bool {
	sub, ok := r.Resource.Subresource(r.Subresource)
	return !ok || sub.Kind.Kind == "" || sub.Name == "scale"
}
