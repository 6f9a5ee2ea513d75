package match

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"

	admissionv1 "k8s.io/api/admission/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	kjson "sigs.k8s.io/json"

	"coracle/pkg/admission"
)

// Encode returns the JSON of an object that Prepare has shown.
func Encode(obj runtime.Object) ([]byte, error) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return json.Marshal(u.Object)
	}
	return json.Marshal(obj)
}

// Decode reads an object of a form, to Replace the request's with. Like a
// client's it is pruned by its schema, and unknown fields are dropped.
func (r *Request) Decode(f *Form, doc []byte) (runtime.Object, error) {
	obj := f.empty(r.Attributes)
	into := any(obj)
	u, custom := obj.(*unstructured.Unstructured)
	if custom {
		into = &u.Object
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(bytes.TrimSpace(doc), into); err != nil {
		return nil, fmt.Errorf("it is no %s: %w", f.Kind.Kind, err)
	}
	if custom && u.Object == nil {
		return nil, fmt.Errorf("it is no %s, but null", f.Kind.Kind)
	}
	if got := obj.GetObjectKind().GroupVersionKind(); got != f.Kind {
		return nil, fmt.Errorf("it is of kind %s, not %s", got, f.Kind)
	}
	if custom {
		if _, err := f.accept(u); err != nil {
			return nil, err
		}
	}
	return obj, nil
}

// empty is an object of the form to decode into.
func (f *Form) empty(a *admission.Attributes) runtime.Object {
	switch {
	case f.accept != nil:
		return &unstructured.Unstructured{}
	case f.Kind == autoscalingv1.SchemeGroupVersion.WithKind("Scale"):
		return &autoscalingv1.Scale{}
	case f.fresh != nil:
		return f.fresh()
	}
	return reflect.New(reflect.TypeOf(a.Object).Elem()).Interface().(runtime.Object)
}

// Describe is what is said of the request to those who are asked about it, in
// a form; the objects and a UID are left out.
func (r *Request) Describe(f *Form) *admissionv1.AdmissionRequest {
	kind, asked := metav1.GroupVersionKind(f.Kind), metav1.GroupVersionKind(r.asked.Kind)
	gvr, askedResource := metav1.GroupVersionResource(f.Resource), metav1.GroupVersionResource(r.asked.Resource)
	out := &admissionv1.AdmissionRequest{
		Kind: kind, RequestKind: &asked, Resource: gvr, RequestResource: &askedResource,
		SubResource: r.Subresource, RequestSubResource: r.Subresource,
		Name: r.Name, Namespace: r.InNamespace(), Operation: admissionv1.Operation(r.Operation),
		UserInfo: r.User.UserInfo(), DryRun: new(r.DryRun),
	}
	if options := r.options(); options != nil {
		out.Options.Object = options
	}
	return out
}

// options are the request's own, as its operation has them: a patch is an
// update, or creates.
func (r *Request) options() runtime.Object {
	type common struct {
		dryRun              []string
		manager, validation string
	}
	var c common
	switch o := r.Options.(type) {
	case *metav1.CreateOptions:
		c = common{o.DryRun, o.FieldManager, o.FieldValidation}
	case *metav1.UpdateOptions:
		c = common{o.DryRun, o.FieldManager, o.FieldValidation}
	case *metav1.PatchOptions:
		c = common{o.DryRun, o.FieldManager, o.FieldValidation}
	case *metav1.DeleteOptions:
		out := *o
		out.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("DeleteOptions"))
		return &out
	}
	meta := func(kind string) metav1.TypeMeta {
		return metav1.TypeMeta{APIVersion: metav1.SchemeGroupVersion.String(), Kind: kind}
	}
	switch r.Operation {
	case admission.Create:
		return &metav1.CreateOptions{TypeMeta: meta("CreateOptions"), DryRun: c.dryRun, FieldManager: c.manager, FieldValidation: c.validation}
	case admission.Update:
		return &metav1.UpdateOptions{TypeMeta: meta("UpdateOptions"), DryRun: c.dryRun, FieldManager: c.manager, FieldValidation: c.validation}
	}
	return nil
}
