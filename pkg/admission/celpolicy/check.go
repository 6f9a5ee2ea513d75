package celpolicy

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"coracle/pkg/admission/expression"
	"coracle/pkg/resource"
)

// Validated returns res, the resource of one of the two kinds of policies,
// whose writes compile all expressions as well.
func Validated(res *resource.Resource, c *expression.Compiler) *resource.Resource {
	out := *res
	out.ValidateCreate = func(obj runtime.Object) field.ErrorList {
		errs := check(c, obj, nil)
		if res.ValidateCreate != nil {
			errs = append(errs, res.ValidateCreate(obj)...)
		}
		return errs
	}
	out.ValidateUpdate = func(obj, old runtime.Object) field.ErrorList {
		errs := check(c, obj, old)
		if res.ValidateUpdate != nil {
			errs = append(errs, res.ValidateUpdate(obj, old)...)
		}
		return errs
	}
	return &out
}

// check compiles the expressions of a policy. Those that old had stay
// acceptable, whatever a newer server thinks of them.
func check(c *expression.Compiler, obj, old runtime.Object) field.ErrorList {
	if _, ok := obj.(*admissionv1.MutatingAdmissionPolicy); ok {
		return checkMutating(c, obj, old)
	}
	return checkValidating(c, obj, old)
}

// writing compiles the expressions of a policy that is written.
type writing struct {
	c     *expression.Compiler
	scope *expression.Scope
	d     expression.Declarations
	known map[string]bool // expressions that it had before
	errs  field.ErrorList
}

func (w *writing) check(path *field.Path, text string, d expression.Declarations, want expression.Result) {
	if text == "" {
		return // that it is missing is said elsewhere
	}
	w.errs = append(w.errs, expression.Problem(path, w.at(text).Compile(text, d, want))...)
}

func (w *writing) at(text string) *expression.Scope {
	return w.scope.At(w.c.Age(text, func(text string) bool { return w.known[text] }))
}

// common compiles what both kinds of policy have. matchConditions come before
// variables are there.
func (w *writing) common(path *field.Path, conditions []admissionv1.MatchCondition, variables []admissionv1.Variable) {
	for i, m := range conditions {
		w.errs = append(w.errs, w.c.Check(path.Child("matchConditions").Index(i).Child("expression"), m.Expression, w.d, expression.Bool,
			func(text string) bool { return w.known[text] })...)
	}
	for i, v := range variables {
		if v.Name == "" || v.Expression == "" {
			continue
		}
		p := w.at(v.Expression).Variable(v.Name, v.Expression, w.d)
		w.errs = append(w.errs, expression.Problem(path.Child("variables").Index(i).Child("expression"), p)...)
	}
}

func newWriting(c *expression.Compiler, params *admissionv1.ParamKind) *writing {
	return &writing{c: c, scope: c.Composed(expression.Written), d: declarations(params), known: map[string]bool{}}
}

func (w *writing) remember(conditions []admissionv1.MatchCondition, variables []admissionv1.Variable) {
	for _, m := range conditions {
		w.known[m.Expression] = true
	}
	for _, v := range variables {
		w.known[v.Expression] = true
	}
}

func checkValidating(c *expression.Compiler, obj, before runtime.Object) field.ErrorList {
	p, ok := obj.(*admissionv1.ValidatingAdmissionPolicy)
	if !ok {
		return nil
	}
	w, path := newWriting(c, p.Spec.ParamKind), field.NewPath("spec")
	if old, ok := before.(*admissionv1.ValidatingAdmissionPolicy); ok {
		w.remember(old.Spec.MatchConditions, old.Spec.Variables)
		for _, v := range old.Spec.Validations {
			w.known[v.Expression], w.known[v.MessageExpression] = true, true
		}
		for _, a := range old.Spec.AuditAnnotations {
			w.known[a.ValueExpression] = true
		}
	}
	w.common(path, p.Spec.MatchConditions, p.Spec.Variables)
	for i, v := range p.Spec.Validations {
		at := path.Child("validations").Index(i)
		w.check(at.Child("expression"), v.Expression, w.d, expression.Bool)
		w.check(at.Child("messageExpression"), v.MessageExpression, withoutAuthorizer(w.d), expression.Text)
	}
	for i, a := range p.Spec.AuditAnnotations {
		w.check(path.Child("auditAnnotations").Index(i).Child("valueExpression"), a.ValueExpression, w.d, expression.TextOrNull)
	}
	return w.errs
}

func checkMutating(c *expression.Compiler, obj, before runtime.Object) field.ErrorList {
	p, ok := obj.(*admissionv1.MutatingAdmissionPolicy)
	if !ok {
		return nil
	}
	w, path := newWriting(c, p.Spec.ParamKind), field.NewPath("spec")
	if old, ok := before.(*admissionv1.MutatingAdmissionPolicy); ok {
		w.remember(old.Spec.MatchConditions, old.Spec.Variables)
		for _, m := range old.Spec.Mutations {
			text, _, _ := mutationText(&m)
			w.known[text] = true
		}
	}
	w.common(path, p.Spec.MatchConditions, p.Spec.Variables)
	d := w.d
	d.Patches = true
	for i, m := range p.Spec.Mutations {
		text, want, name := mutationText(&m)
		w.check(path.Child("mutations").Index(i).Child(name, "expression"), text, d, want)
	}
	return w.errs
}

// mutationText is the expression of a mutation, what it has to evaluate to and
// the field that it is in.
func mutationText(m *admissionv1.Mutation) (text string, want expression.Result, name string) {
	switch {
	case m.PatchType == admissionv1.PatchTypeApplyConfiguration && m.ApplyConfiguration != nil:
		return m.ApplyConfiguration.Expression, expression.ApplyConfiguration, "applyConfiguration"
	case m.PatchType == admissionv1.PatchTypeJSONPatch && m.JSONPatch != nil:
		return m.JSONPatch.Expression, expression.JSONPatch, "jsonPatch"
	}
	return "", expression.Anything, "patchType"
}
