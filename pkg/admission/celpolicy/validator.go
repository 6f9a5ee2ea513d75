package celpolicy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/admission/expression"
)

// maxMessage bounds what a messageExpression may say, in bytes.
const maxMessage = 5 * 1024

// validator is the compiled form of a ValidatingAdmissionPolicy.
type validator struct {
	scope       *expression.Scope
	conditions  *expression.Conditions
	validations []validation
	audits      []audit
	fails       bool // an error refuses the request
}

type validation struct {
	spec    *admissionv1.Validation
	program *expression.Program
	message *expression.Program // nil when there is none
}

type audit struct {
	key     string
	program *expression.Program
}

// declarations are those of all expressions of a policy; messages lack the
// authorizer.
func declarations(params *admissionv1.ParamKind) expression.Declarations {
	return expression.Declarations{Params: params != nil, Authorizer: true}
}

func withoutAuthorizer(d expression.Declarations) expression.Declarations {
	d.Authorizer = false
	return d
}

func newValidator(c *expression.Compiler, spec *admissionv1.ValidatingAdmissionPolicySpec) *validator {
	d := declarations(spec.ParamKind)
	v := &validator{scope: c.Composed(expression.Stored), fails: spec.FailurePolicy == nil || *spec.FailurePolicy != admissionv1.Ignore}
	for _, variable := range spec.Variables {
		v.scope.Variable(variable.Name, variable.Expression, d)
	}
	v.conditions = c.Scope(expression.Stored).Conditions(spec.MatchConditions, d)
	for i := range spec.Validations {
		one := validation{spec: &spec.Validations[i]}
		one.program = v.scope.Compile(one.spec.Expression, d, expression.Bool)
		if one.spec.MessageExpression != "" {
			one.message = v.scope.Compile(one.spec.MessageExpression, withoutAuthorizer(d), expression.Text)
		}
		v.validations = append(v.validations, one)
	}
	for _, a := range spec.AuditAnnotations {
		v.audits = append(v.audits, audit{a.Key, v.scope.Compile(a.ValueExpression, d, expression.TextOrNull)})
	}
	return v
}

// verdict is what one validation says of one request.
type verdict struct {
	// index is that of the validation in the policy.
	index   int
	message string
	reason  metav1.StatusReason // empty for an error
}

// note is one audit annotation.
type note struct{ key, value string }

// judgement is all that a policy says of a request with one parameter.
type judgement struct {
	// denials are subject to the binding's validationActions; errors of audit
	// annotations refuse whatever those are.
	denials, refusals []verdict
	notes             []note
}

// failed is the judgement of a policy that cannot say anything.
func (v *validator) failed(err error) judgement {
	if !v.fails {
		return judgement{}
	}
	return judgement{denials: []verdict{{message: err.Error()}}}
}

func (v *validator) judge(ctx context.Context, in *expression.Input) judgement {
	matches, err := v.conditions.Match(ctx, in)
	if err != nil {
		return v.failed(err)
	}
	if !matches {
		return judgement{}
	}
	var j judgement
	run := v.scope.Begin(in, expression.PolicyBudget)
	for i := range v.validations {
		verdict, err := v.validate(ctx, run, i)
		if errors.Is(err, expression.ErrBudget) {
			return v.failed(err)
		}
		if err != nil && v.fails {
			verdict.index, verdict.message = i, err.Error()
			j.denials = append(j.denials, verdict)
		} else if err == nil && verdict.message != "" {
			j.denials = append(j.denials, verdict)
		}
	}
	return v.annotate(ctx, in, j)
}

// validate evaluates one validation. The verdict has no message when it holds.
func (v *validator) validate(ctx context.Context, run *expression.Run, i int) (verdict, error) {
	one := &v.validations[i]
	value, err := run.Eval(ctx, one.program)
	if err != nil || value.True() {
		return verdict{}, err
	}
	out := verdict{index: i, reason: metav1.StatusReasonInvalid}
	if one.spec.Reason != nil {
		out.reason = *one.spec.Reason
	}
	if one.message != nil {
		value, err := run.Eval(ctx, one.message)
		if errors.Is(err, expression.ErrBudget) {
			return verdict{}, fmt.Errorf("failed messageExpression: %s", err) // ends this validation only
		}
		if text, ok := value.Text(); err == nil && ok {
			out.message = usable(text)
		}
	}
	if out.message == "" {
		out.message = strings.TrimSpace(one.spec.Message)
	}
	if out.message == "" {
		out.message = "failed expression: " + strings.TrimSpace(one.spec.Expression)
	}
	return out, nil
}

// usable is a message as clients may get it, empty when it may not be shown.
func usable(text string) string {
	text = strings.TrimSpace(text)
	if len(text) > maxMessage || strings.Contains(text, "\n") {
		return ""
	}
	return text
}

// annotate evaluates the audit annotations, which have a budget of their own.
func (v *validator) annotate(ctx context.Context, in *expression.Input, j judgement) judgement {
	run := v.scope.Begin(in, expression.PolicyBudget)
	for _, a := range v.audits {
		value, err := run.Eval(ctx, a.program)
		if errors.Is(err, expression.ErrBudget) {
			return v.failed(err)
		}
		if err != nil {
			if v.fails {
				j.refusals = append(j.refusals, verdict{message: err.Error()})
			}
			continue
		}
		if text, ok := value.Text(); ok && strings.TrimSpace(text) != "" {
			j.notes = append(j.notes, note{a.key, strings.TrimSpace(text)})
		}
	}
	return j
}
