package expression

import (
	"reflect"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/apiserver/pkg/cel/library"

	"coracle/pkg/auth"
)

// Input is what expressions are evaluated on. It is for one goroutine; what it
// points to is shared and not changed.
type Input struct {
	// Object and Old are nil where the operation has none. Both are shown as
	// of Kind, and need not say it themselves.
	Object, Old runtime.Object
	Kind        schema.GroupVersionKind
	// Request is all else about the request; required.
	Request *admissionv1.AdmissionRequest
	// Namespace is the one that the object is in, nil for cluster-scoped ones.
	Namespace *corev1.Namespace
	// Params is nil where there are none. It is shown as of ParamKind.
	Params    runtime.Object
	ParamKind schema.GroupVersionKind
	// User and Authorizer answer `authorizer`.
	User       *auth.User
	Authorizer auth.Authorizer
	// Plain shows objects as maps, so that an expression may put a part of one
	// into what it returns.
	Plain bool

	values map[string]any // what was shown before
}

// WithParams is the same input with other params.
func (in *Input) WithParams(params runtime.Object, kind schema.GroupVersionKind) *Input {
	c := *in
	c.Params, c.ParamKind, c.values = params, kind, nil
	return &c
}

func (in *Input) resolve(name string) (any, bool) {
	if v, ok := in.values[name]; ok {
		return v, true
	}
	v, ok := in.show(name)
	if ok {
		if in.values == nil {
			in.values = map[string]any{}
		}
		in.values[name] = v
	}
	return v, ok
}

func (in *Input) show(name string) (any, bool) {
	switch name {
	case objectName:
		return in.object(in.Object, in.Kind), true
	case oldObjectName:
		return in.object(in.Old, in.Kind), true
	case paramsName:
		return in.object(in.Params, in.ParamKind), true
	case requestName:
		return common.SchemalessTypedToVal(in.Request), true
	case namespaceName:
		return common.SchemalessTypedToVal(shown(in.Namespace)), true
	case authorizerName:
		if in.Authorizer == nil {
			return nil, false
		}
		return library.NewAuthorizerVal(userInfo{in.User}, authorizer{in.Authorizer}), true
	case requestResourceName:
		if in.Authorizer == nil {
			return nil, false
		}
		return library.NewResourceAuthorizerVal(userInfo{in.User}, authorizer{in.Authorizer}, requested{in.Request}), true
	}
	return nil, false
}

// object shows an object of a kind.
func (in *Input) object(obj runtime.Object, kind schema.GroupVersionKind) ref.Val {
	if absent(obj) {
		return types.NullValue
	}
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return types.DefaultTypeAdapter.NativeToValue(u.Object)
	}
	obj = ofKind(obj, kind)
	if !in.Plain {
		return common.SchemalessTypedToVal(obj)
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return types.WrapErr(err)
	}
	return types.DefaultTypeAdapter.NativeToValue(fields)
}

// absent says that there is no object, be it as a nil interface or a nil
// pointer in one.
func absent(obj runtime.Object) bool {
	if obj == nil {
		return true
	}
	v := reflect.ValueOf(obj)
	return v.Kind() == reflect.Pointer && v.IsNil()
}

// ofKind is obj with its kind and apiVersion. It shares all but them with obj,
// which others read.
func ofKind(obj runtime.Object, kind schema.GroupVersionKind) runtime.Object {
	if obj.GetObjectKind().GroupVersionKind() == kind || kind.Empty() {
		return obj
	}
	v := reflect.ValueOf(obj)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return obj
	}
	shallow := reflect.New(v.Type().Elem())
	shallow.Elem().Set(v.Elem())
	named, ok := shallow.Interface().(runtime.Object)
	if !ok {
		return obj
	}
	named.GetObjectKind().SetGroupVersionKind(kind)
	return named
}

// shown is the part of a namespace that namespaceObject declares.
func shown(ns *corev1.Namespace) *corev1.Namespace {
	if ns == nil {
		return nil
	}
	return &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{
			Name: ns.Name, GenerateName: ns.GenerateName, UID: ns.UID, ResourceVersion: ns.ResourceVersion,
			Labels: ns.Labels, Annotations: ns.Annotations, Finalizers: ns.Finalizers, Generation: ns.Generation,
			CreationTimestamp: ns.CreationTimestamp, DeletionTimestamp: ns.DeletionTimestamp,
			DeletionGracePeriodSeconds: ns.DeletionGracePeriodSeconds,
		},
		Spec: ns.Spec, Status: ns.Status,
	}
}
