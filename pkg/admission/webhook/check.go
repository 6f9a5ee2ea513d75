package webhook

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"coracle/pkg/admission/expression"
	"coracle/pkg/resource"
)

// Validated returns res, the resource of one of the two kinds of
// configurations, whose writes compile matchConditions as well.
func Validated(res *resource.Resource, c *expression.Compiler) *resource.Resource {
	out := *res
	out.ValidateCreate = func(obj runtime.Object) field.ErrorList {
		errs := checkConditions(c, obj, nil)
		if res.ValidateCreate != nil {
			errs = append(errs, res.ValidateCreate(obj)...)
		}
		return errs
	}
	out.ValidateUpdate = func(obj, old runtime.Object) field.ErrorList {
		errs := checkConditions(c, obj, old)
		if res.ValidateUpdate != nil {
			errs = append(errs, res.ValidateUpdate(obj, old)...)
		}
		return errs
	}
	return &out
}

// checkConditions compiles the matchConditions of obj. Those that old had stay
// acceptable, whatever a newer server thinks of them.
func checkConditions(c *expression.Compiler, obj, old runtime.Object) field.ErrorList {
	var errs field.ErrorList
	var known []admissionregistrationv1.MatchCondition
	if old != nil {
		_, before := webhooksOf(old)
		for i := range before {
			known = append(known, before[i].MatchConditions...)
		}
	}
	_, webhooks := webhooksOf(obj)
	for i := range webhooks {
		path := field.NewPath("webhooks").Index(i).Child("matchConditions")
		errs = append(errs, c.CheckConditions(path, webhooks[i].MatchConditions, known)...)
	}
	return errs
}
