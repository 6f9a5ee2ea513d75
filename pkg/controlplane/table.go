package controlplane

import (
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/admission/celpolicy"
	"coracle/pkg/admission/expression"
	"coracle/pkg/admission/webhook"
	"coracle/pkg/registry/custom"
	"coracle/pkg/resource"
)

// table is that of the kinds that every cluster serves, some of which are
// validated by what package resource may not link.
func table(expressions *expression.Compiler) (*resource.Table, error) {
	t := resource.Builtin()
	checked := func(res *resource.Resource) *resource.Resource { return webhook.Validated(res, expressions) }
	policy := func(res *resource.Resource) *resource.Resource { return celpolicy.Validated(res, expressions) }
	var kinds []*resource.Resource
	for _, k := range []struct {
		gvr       schema.GroupVersionResource
		validated func(*resource.Resource) *resource.Resource
	}{
		{apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"), custom.Validated},
		{admissionregistrationv1.SchemeGroupVersion.WithResource("mutatingwebhookconfigurations"), checked},
		{admissionregistrationv1.SchemeGroupVersion.WithResource("validatingwebhookconfigurations"), checked},
		{admissionregistrationv1.SchemeGroupVersion.WithResource("validatingadmissionpolicies"), policy},
		{admissionregistrationv1.SchemeGroupVersion.WithResource("mutatingadmissionpolicies"), policy},
	} {
		res, ok := t.ByGVR(k.gvr)
		if !ok {
			return nil, fmt.Errorf("the table lacks %s", k.gvr)
		}
		kinds = append(kinds, k.validated(res))
	}
	return t.Replace(kinds...)
}
