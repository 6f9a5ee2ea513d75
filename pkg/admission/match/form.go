package match

import (
	"context"
	"fmt"
	"reflect"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/admission"
	"coracle/pkg/resource"
)

// Form is one version in which a request's objects can be shown: that in which
// the client wrote, or another in which the same objects are served.
type Form struct {
	// Kind is that of the objects. A subresource may have its own: a Scale, a
	// Binding, PodExecOptions.
	Kind schema.GroupVersionKind
	// Resource is what a rule names.
	Resource schema.GroupVersionResource

	// show makes the form of an object of admission. The result may share
	// everything but itself with it.
	show func(obj runtime.Object) (runtime.Object, error)
	// take makes an object of admission of the form's. base is what admission
	// has at present.
	take func(shown, base runtime.Object) (runtime.Object, error)
	// fresh makes an empty object of the form, nil where it is of the type that
	// admission has. accept prunes a custom resource by the schema of the form.
	fresh  func() runtime.Object
	accept func(u *unstructured.Unstructured) (unknown []string, err error)
}

// asked is the form in which the client made the request.
func asked(a *admission.Attributes) *Form {
	res := a.Resource
	f := ownForm(res)
	if v := a.View; v != nil {
		f = viewForm(res, v)
	}
	sub, ok := res.Subresource(a.Subresource)
	if !ok || sub.Kind.Kind == "" {
		return f
	}
	f = &Form{Kind: sub.Kind, Resource: f.Resource, show: same, take: taken}
	if sub.Name == "scale" && res.Scale != nil {
		f.show = func(obj runtime.Object) (runtime.Object, error) { return res.ScaleOf(obj), nil }
		f.take = func(shown, base runtime.Object) (runtime.Object, error) { return takeScale(res, shown, base) }
	}
	return f
}

// others are the further forms that the objects of a request have.
func others(ctx context.Context, a *admission.Attributes, table *resource.Table) []*Form {
	var out []*Form
	res := a.Resource
	sub, isSub := res.Subresource(a.Subresource)
	ownKind := isSub && sub.Kind.Kind != ""
	add := func(f *Form) {
		if ownKind { // of which there is one version, whatever that of the parent
			own := asked(a)
			own.Resource = f.Resource
			f = own
		}
		out = append(out, f)
	}
	if a.View != nil {
		add(ownForm(res))
	}
	for i := range res.Views {
		if v := &res.Views[i]; v != a.View {
			add(viewForm(res, v))
		}
	}
	if res.Custom == nil {
		return out
	}
	for _, other := range table.All() {
		if other.Custom == nil || other.GroupResource() != res.GroupResource() || other.Version == res.Version {
			continue
		}
		if _, has := other.Subresource(a.Subresource); has || a.Subresource == "" {
			if other.Custom.For != nil {
				other = other.Custom.For(ctx)
			}
			add(customForm(res, other))
		}
	}
	return out
}

func same(obj runtime.Object) (runtime.Object, error) { return shallow(obj), nil }

func taken(shown, _ runtime.Object) (runtime.Object, error) { return shown, nil }

// ownForm is that of the resource's own version.
func ownForm(res *resource.Resource) *Form {
	f := &Form{Kind: res.GVK(), Resource: res.GVR(), show: same, take: taken}
	if res.Custom != nil {
		f.accept = accepts(res)
	}
	return f
}

func accepts(res *resource.Resource) func(u *unstructured.Unstructured) ([]string, error) {
	return func(u *unstructured.Unstructured) ([]string, error) { return res.Custom.Accept(u, false) }
}

func viewForm(res *resource.Resource, v *resource.View) *Form {
	gv := schema.GroupVersion{Group: v.Group, Version: v.Version}
	return &Form{
		Kind: gv.WithKind(v.Kind), Resource: gv.WithResource(res.Plural), show: v.To, fresh: v.New,
		take: func(shown, _ runtime.Object) (runtime.Object, error) { return v.From(shown) },
	}
}

// customForm shows objects of one version of a custom resource in another.
func customForm(from, to *resource.Resource) *Form {
	convert := func(obj runtime.Object, from, to *resource.Resource) (runtime.Object, error) {
		u, ok := obj.DeepCopyObject().(*unstructured.Unstructured)
		if !ok {
			return nil, fmt.Errorf("a custom resource is wanted, not a %T", obj)
		}
		stored, err := from.Custom.ToStored(u)
		if err != nil {
			return nil, err
		}
		return to.Custom.FromStored(stored)
	}
	return &Form{
		Kind: to.GVK(), Resource: to.GVR(), accept: accepts(to),
		show: func(obj runtime.Object) (runtime.Object, error) { return convert(obj, from, to) },
		take: func(shown, _ runtime.Object) (runtime.Object, error) { return convert(shown, to, from) },
	}
}

func takeScale(res *resource.Resource, shown, base runtime.Object) (runtime.Object, error) {
	scale, ok := shown.(*autoscalingv1.Scale)
	if !ok {
		return nil, fmt.Errorf("a Scale is wanted, not a %T", shown)
	}
	next := base.DeepCopyObject()
	if errs := res.SetScale(next, scale); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	return next, nil
}

// shallow copies the top of an object, where its kind is. Custom resources
// have theirs already and stay as they are.
func shallow(obj runtime.Object) runtime.Object {
	if _, ok := obj.(*unstructured.Unstructured); ok {
		return obj
	}
	v := reflect.ValueOf(obj).Elem()
	out := reflect.New(v.Type())
	out.Elem().Set(v)
	return out.Interface().(runtime.Object)
}

// replace puts what next is into obj, to which others hold pointers.
func replace(obj, next runtime.Object) error {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		v, ok := next.(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("a custom resource cannot become a %T", next)
		}
		u.Object = v.Object
		return nil
	}
	to, from := reflect.ValueOf(obj).Elem(), reflect.ValueOf(next).Elem()
	if to.Type() != from.Type() {
		return fmt.Errorf("a %T cannot become a %T", obj, next)
	}
	to.Set(from)
	return nil
}
