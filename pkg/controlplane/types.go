package controlplane

import (
	crdconfigurations "k8s.io/apiextensions-apiserver/pkg/client/applyconfiguration"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// types describes the schemas that field ownership follows: those of k8s.io/api
// and those of CustomResourceDefinitions, which their own module has.
type types struct{ common, definitions managedfields.TypeConverter }

func newTypes(scheme *runtime.Scheme) types {
	return types{common: applyconfigurations.NewTypeConverter(scheme), definitions: crdconfigurations.NewTypeConverter(scheme)}
}

// ObjectToTyped implements managedfields.TypeConverter.
func (t types) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	if obj.GetObjectKind().GroupVersionKind().Group == apiextensionsv1.GroupName {
		return t.definitions.ObjectToTyped(obj, opts...)
	}
	return t.common.ObjectToTyped(obj, opts...)
}

// TypedToObject implements managedfields.TypeConverter.
func (t types) TypedToObject(value *typed.TypedValue) (runtime.Object, error) {
	return t.common.TypedToObject(value) // it does not depend on the type
}
