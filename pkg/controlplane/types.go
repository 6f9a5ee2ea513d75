package controlplane

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdconfigurations "k8s.io/apiextensions-apiserver/pkg/client/applyconfiguration"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiserviceconfigurations "k8s.io/kube-aggregator/pkg/client/applyconfiguration"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// types describes the schemas that field ownership follows: those of k8s.io/api
// and those of the two groups that extend the API, which modules of their own
// have.
type types struct {
	common managedfields.TypeConverter
	groups map[string]managedfields.TypeConverter
}

func newTypes(scheme *runtime.Scheme) types {
	return types{common: applyconfigurations.NewTypeConverter(scheme), groups: map[string]managedfields.TypeConverter{
		apiextensionsv1.GroupName:   crdconfigurations.NewTypeConverter(scheme),
		apiregistrationv1.GroupName: apiserviceconfigurations.NewTypeConverter(scheme),
	}}
}

// ObjectToTyped implements managedfields.TypeConverter.
func (t types) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	if own, ok := t.groups[obj.GetObjectKind().GroupVersionKind().Group]; ok {
		return own.ObjectToTyped(obj, opts...)
	}
	return t.common.ObjectToTyped(obj, opts...)
}

// TypedToObject implements managedfields.TypeConverter.
func (t types) TypedToObject(value *typed.TypedValue) (runtime.Object, error) {
	return t.common.TypedToObject(value) // it does not depend on the type
}
