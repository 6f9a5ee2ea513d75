package celpolicy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"coracle/pkg/admission/expression"
	"coracle/pkg/resource"
)

// maxChecked is how many kinds the expressions of one policy are checked
// against.
const maxChecked = 10

// TypeCheck compiles the validations of a policy against the schemas of the
// kinds that its rules name, and says what would fail with every object of
// one. schemas returns nil for a kind that has none. It decides nothing: a
// policy is enforced whatever is said of it here.
func TypeCheck(c *expression.Compiler, table *resource.Table, schemas func(schema.GroupVersionKind) (*spec.Schema, error), p *admissionv1.ValidatingAdmissionPolicy) ([]admissionv1.ExpressionWarning, error) {
	var params *spec.Schema
	var errs []error
	if kind := p.Spec.ParamKind; kind != nil {
		if gv, err := schema.ParseGroupVersion(kind.APIVersion); err == nil {
			if params, err = schemas(gv.WithKind(kind.Kind)); err != nil {
				errs = append(errs, err)
			}
		}
	}
	found := map[string][]string{} // by the path of the expression
	for _, kind := range checkedKinds(table, p) {
		object, err := schemas(kind)
		if err != nil || object == nil {
			errs = append(errs, err)
			continue
		}
		scope, d := c.Typed(object, params), declarations(p.Spec.ParamKind)
		for _, v := range p.Spec.Variables {
			scope.Variable(v.Name, v.Expression, d)
		}
		for _, e := range validationTexts(p) {
			program := scope.Compile(e.text, d, expression.Anything)
			switch {
			case program.Err() == nil:
			case errors.Is(program.Err(), expression.ErrInternal):
				found[e.path] = append(found[e.path], fmt.Sprintf("%v: type checking error: %v\n", kind, program.Err()))
			default:
				found[e.path] = append(found[e.path], fmt.Sprintf("%v: %s\n", kind, program.Issues()))
			}
		}
	}
	var out []admissionv1.ExpressionWarning
	for _, e := range validationTexts(p) {
		if texts := found[e.path]; len(texts) > 0 {
			out = append(out, admissionv1.ExpressionWarning{FieldRef: e.path, Warning: strings.Join(texts, "\n")})
		}
	}
	return out, errors.Join(errs...)
}

type expressionAt struct{ path, text string }

// validationTexts are the expressions of a policy's validations.
func validationTexts(p *admissionv1.ValidatingAdmissionPolicy) []expressionAt {
	var out []expressionAt
	path := field.NewPath("spec", "validations")
	for i, v := range p.Spec.Validations {
		out = append(out, expressionAt{path.Index(i).Child("expression").String(), v.Expression})
		if v.MessageExpression != "" {
			out = append(out, expressionAt{path.Index(i).Child("messageExpression").String(), v.MessageExpression})
		}
	}
	return out
}

// checkedKinds are the kinds that rules name without wildcards.
func checkedKinds(table *resource.Table, p *admissionv1.ValidatingAdmissionPolicy) []schema.GroupVersionKind {
	if p.Spec.MatchConstraints == nil {
		return nil
	}
	var out []schema.GroupVersionKind
	for _, r := range p.Spec.MatchConstraints.ResourceRules {
		if slices.Contains(r.APIGroups, "*") || slices.Contains(r.APIVersions, "*") {
			continue
		}
		for _, gvr := range product(r.APIGroups, r.APIVersions, r.Resources) {
			if kind, ok := kindOf(table, gvr); ok && !slices.Contains(out, kind) {
				out = append(out, kind)
			}
		}
	}
	slices.SortFunc(out, func(a, b schema.GroupVersionKind) int {
		return cmp.Or(strings.Compare(a.Group, b.Group), strings.Compare(a.Version, b.Version), strings.Compare(a.Kind, b.Kind))
	})
	return out[:min(len(out), maxChecked)]
}

func product(groups, versions, resources []string) []schema.GroupVersionResource {
	var out []schema.GroupVersionResource
	for _, group := range groups {
		for _, version := range versions {
			for _, plural := range resources {
				out = append(out, schema.GroupVersionResource{Group: group, Version: version, Resource: plural})
			}
		}
	}
	return out
}

// kindOf is the kind of a resource, in the version that it is named in. There
// is none of subresources and wildcards.
func kindOf(table *resource.Table, gvr schema.GroupVersionResource) (schema.GroupVersionKind, bool) {
	res, ok := table.ByGVR(gvr)
	if !ok {
		return schema.GroupVersionKind{}, false
	}
	for i := range res.Views {
		if v := &res.Views[i]; v.Group == gvr.Group && v.Version == gvr.Version {
			return gvr.GroupVersion().WithKind(v.Kind), true
		}
	}
	return res.GVK(), true
}
