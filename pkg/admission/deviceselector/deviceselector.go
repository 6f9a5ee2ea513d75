// Package deviceselector refuses expressions in CEL by which device classes and
// ResourceClaims select devices, when they do not compile or could cost too
// much. What is stored is not held against newer rules: an update is asked
// about its new expressions alone. Kubernetes checks the same when it validates
// objects; here it is a plugin, so that package resource does without CEL.
package deviceselector

import (
	"context"
	"errors"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/dynamic-resource-allocation/cel"

	"coracle/pkg/admission"
)

// Plugin checks selectors. It has no state; the compiler is made when an
// expression first comes.
type Plugin struct{}

var (
	_ admission.Validator = Plugin{}
	_ admission.Selective = Plugin{}
)

// Name implements admission.Plugin.
func (Plugin) Name() string { return "DeviceSelectors" }

// Handles implements admission.Selective.
func (Plugin) Handles(r schema.GroupResource) bool {
	return r.Group == resourcev1.GroupName && slices.Contains([]string{"deviceclasses", "resourceclaims", "resourceclaimtemplates"}, r.Resource)
}

// Validate implements admission.Validator.
func (Plugin) Validate(_ context.Context, a *admission.Attributes) error {
	if a.Subresource != "" || a.Operation != admission.Create && a.Operation != admission.Update {
		return nil
	}
	stored := map[string]bool{}
	for _, s := range selectors(a.Old()) {
		stored[s.expression] = true
	}
	var errs field.ErrorList
	for _, s := range selectors(a.Object) {
		if stored[s.expression] {
			continue
		}
		if err := check(s); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: a.Resource.Group, Kind: a.Resource.Kind}, a.Name, errs)
}

// selector is an expression and where it is.
type selector struct {
	path       *field.Path
	expression string
}

// selectors are the expressions of an object.
func selectors(obj runtime.Object) []selector {
	switch o := obj.(type) {
	case *resourcev1.DeviceClass:
		return listed(nil, field.NewPath("spec", "selectors"), o.Spec.Selectors)
	case *resourcev1.ResourceClaim:
		return ofClaim(field.NewPath("spec", "devices"), &o.Spec.Devices)
	case *resourcev1.ResourceClaimTemplate:
		return ofClaim(field.NewPath("spec", "spec", "devices"), &o.Spec.Spec.Devices)
	}
	return nil
}

func ofClaim(path *field.Path, c *resourcev1.DeviceClaim) []selector {
	if len(c.Requests) > resourcev1.DeviceRequestsMaxSize {
		return nil // validation refuses it
	}
	var out []selector
	for i := range c.Requests {
		r, at := &c.Requests[i], path.Child("requests").Index(i)
		if r.Exactly != nil {
			out = listed(out, at.Child("exactly", "selectors"), r.Exactly.Selectors)
		}
		if len(r.FirstAvailable) > resourcev1.FirstAvailableDeviceRequestMaxSize {
			continue
		}
		for j := range r.FirstAvailable {
			out = listed(out, at.Child("firstAvailable").Index(j).Child("selectors"), r.FirstAvailable[j].Selectors)
		}
	}
	return out
}

func listed(out []selector, path *field.Path, list []resourcev1.DeviceSelector) []selector {
	if len(list) > resourcev1.DeviceSelectorsMaxSize {
		return out
	}
	for i := range list {
		if s := list[i].CEL; s != nil && strings.TrimSpace(s.Expression) != "" && len(s.Expression) <= resourcev1.CELSelectorExpressionMaxLength {
			out = append(out, selector{path.Index(i).Child("cel", "expression"), s.Expression})
		}
	}
	return out
}

// check says what is wrong with an expression, nil if nothing is.
func check(s selector) *field.Error {
	kind := environment.NewExpressions
	result := cel.GetCompiler(cel.Features{EnableConsumableCapacity: true}).CompileCELExpression(s.expression, cel.Options{EnvType: &kind})
	if result.Error != nil {
		if e, ok := errors.AsType[*apiservercel.Error](error(result.Error)); ok && e.Type == apiservercel.ErrorTypeInvalid {
			return field.Invalid(s.path, s.expression, e.Detail)
		}
		return field.InternalError(s.path, result.Error)
	}
	if result.MaxCost > resourcev1.CELSelectorExpressionMaxCost {
		return field.Forbidden(s.path, "too complex, exceeds cost limit")
	}
	return nil
}
