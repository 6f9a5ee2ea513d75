package celpolicy

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/admission"
	"coracle/pkg/admission/expression"
	"coracle/pkg/admission/match"
)

const (
	// evaluationTime bounds what all policies may take for one request; the
	// cost budgets are used up long before.
	evaluationTime = 10 * time.Second
	// maxFailures is how many failed validations the audit log is told of one
	// request, maxAnnotation how long the value of an annotation may be there.
	maxFailures   = 50
	maxAnnotation = 10 * 1024
	// failureAnnotation is the key of what the action Audit adds.
	failureAnnotation = "validation.policy.admission.k8s.io/validation_failure"
)

// Validating is the plugin of ValidatingAdmissionPolicies.
type Validating struct {
	cfg   Config
	match *match.Matcher
	index index[validator]
}

// NewValidating returns the plugin.
func NewValidating(cfg Config) *Validating {
	p := &Validating{cfg: cfg, match: &match.Matcher{Objects: cfg.Objects, Table: cfg.Table}, index: index[validator]{
		objects: cfg.Objects, compiler: cfg.Compiler,
		policyGVR: admissionv1.SchemeGroupVersion.WithResource("validatingadmissionpolicies"),
		bindGVR:   admissionv1.SchemeGroupVersion.WithResource("validatingadmissionpolicybindings"),
		read: func(obj runtime.Object) (terms[validator], error) {
			p, ok := obj.(*admissionv1.ValidatingAdmissionPolicy)
			if !ok {
				return terms[validator]{}, fmt.Errorf("a ValidatingAdmissionPolicy is wanted, not a %T", obj)
			}
			return terms[validator]{
				failure: p.Spec.FailurePolicy, params: p.Spec.ParamKind, match: p.Spec.MatchConstraints,
				compile: func() *validator { return newValidator(cfg.Compiler, &p.Spec) },
			}, nil
		},
		bound: func(obj runtime.Object) (*binding, *admissionv1.MatchResources, error) {
			b, ok := obj.(*admissionv1.ValidatingAdmissionPolicyBinding)
			if !ok {
				return nil, nil, fmt.Errorf("a ValidatingAdmissionPolicyBinding is wanted, not a %T", obj)
			}
			return &binding{name: b.Name, policy: b.Spec.PolicyName, params: b.Spec.ParamRef, actions: b.Spec.ValidationActions}, b.Spec.MatchResources, nil
		},
	}}
	p.index.watch()
	return p
}

// Name implements admission.Plugin.
func (*Validating) Name() string { return "ValidatingAdmissionPolicy" }

// Validate implements admission.Validator.
func (v *Validating) Validate(ctx context.Context, a *admission.Attributes) error {
	if exempt(a) {
		return nil
	}
	state, err := v.index.current(ctx)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	policies := state.about(a.Resource.Plural)
	if len(policies) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, evaluationTime)
	defer cancel()
	g := &gathering{plugin: v, r: v.match.Request(a), inputs: map[*match.Form]*expression.Input{}}
	for _, p := range policies {
		if err := g.ask(ctx, p); err != nil {
			return err
		}
	}
	return g.answer()
}

// exempt says that no policy is asked: beside what nobody is asked about,
// these are questions about identities and rights, which are not stored.
func exempt(a *admission.Attributes) bool {
	return match.Exempt(a) || !a.Resource.Stored() && (a.Resource.Group == "authentication.k8s.io" || a.Resource.Group == "authorization.k8s.io")
}

// gathering collects what all policies say of one request.
type gathering struct {
	plugin   *Validating
	r        *match.Request
	inputs   map[*match.Form]*expression.Input
	refusals []refusal
	failures []failure
}

// refusal is why a request is refused.
type refusal struct {
	policy, binding string // binding is empty for the policy's own mistakes
	reason          metav1.StatusReason
	message         string
}

func (r *refusal) text() string {
	if r.binding == "" {
		return fmt.Sprintf("ValidatingAdmissionPolicy '%s' denied request: %s", r.policy, r.message)
	}
	return fmt.Sprintf("ValidatingAdmissionPolicy '%s' with binding '%s' denied request: %s", r.policy, r.binding, r.message)
}

// failure is one validation as the action Audit records it.
type failure struct {
	Message         string                         `json:"message"`
	Policy          string                         `json:"policy"`
	Binding         string                         `json:"binding"`
	ExpressionIndex int                            `json:"expressionIndex"`
	Actions         []admissionv1.ValidationAction `json:"validationActions"`
}

// misconfigured records that a policy, or its binding b, cannot be evaluated.
func (g *gathering) misconfigured(p *policy[validator], b *binding, err error) {
	if !p.fails() {
		return
	}
	if b == nil {
		g.refusals = append(g.refusals, refusal{policy: p.name, message: "failed to configure policy: " + err.Error()})
		return
	}
	g.refusals = append(g.refusals, refusal{policy: p.name, binding: b.name, message: "failed to configure binding: " + err.Error()})
}

// ask collects what one policy says. Its error is the request's.
func (g *gathering) ask(ctx context.Context, p *policy[validator]) error {
	form, err := g.r.Match(ctx, &p.criteria)
	switch {
	case err == nil && form == nil:
		return nil
	case err == nil:
		err = p.broken
	}
	if err != nil {
		g.misconfigured(p, nil, err)
		return nil
	}
	if p.params != nil {
		if _, err := g.plugin.cfg.source(p.params); err != nil {
			g.misconfigured(p, nil, err)
			return nil
		}
	}
	notes := map[string][]string{}
	for _, b := range p.bindings {
		if err := g.askBound(ctx, p, b, form, notes); err != nil {
			return err
		}
	}
	for key, values := range notes {
		g.r.Annotate(p.name+"/"+key, strings.Join(values, ", "))
	}
	return nil
}

func (g *gathering) askBound(ctx context.Context, p *policy[validator], b *binding, form *match.Form, notes map[string][]string) error {
	matches, err := bindingMatches(ctx, g.r, b)
	if err == nil && !matches {
		return nil
	}
	var params []param
	if err == nil {
		params, err = g.plugin.cfg.collect(ctx, p.params, b.params, g.r.InNamespace())
	}
	if err != nil {
		g.misconfigured(p, b, err)
		return nil
	}
	for _, one := range params {
		in, err := g.input(ctx, form)
		if err != nil {
			return err
		}
		g.record(p, b, p.compiled.Get().judge(ctx, in.WithParams(one.object, one.kind)), notes)
	}
	return nil
}

func bindingMatches(ctx context.Context, r *match.Request, b *binding) (bool, error) {
	if b.broken != nil {
		return false, b.broken
	}
	if b.criteria == nil {
		return true, nil
	}
	form, err := r.Match(ctx, b.criteria)
	return form != nil, err
}

// input is the request as expressions see it, in a form.
func (g *gathering) input(ctx context.Context, form *match.Form) (*expression.Input, error) {
	if in := g.inputs[form]; in != nil {
		return in, nil
	}
	in, err := inputOf(ctx, &g.plugin.cfg, g.r, form)
	if err == nil {
		g.inputs[form] = in
	}
	return in, err
}

// inputOf shows a request to expressions in a form.
func inputOf(ctx context.Context, cfg *Config, r *match.Request, form *match.Form) (*expression.Input, error) {
	object, old, err := r.Prepare(form)
	if err != nil {
		return nil, err
	}
	ns, err := r.Namespace(ctx)
	if err != nil {
		return nil, err
	}
	return &expression.Input{
		Object: object, Old: old, Kind: form.Kind, Request: r.Describe(form), Namespace: ns,
		User: r.User, Authorizer: cfg.Authorizer,
	}, nil
}

// record does with a judgement what the binding says.
func (g *gathering) record(p *policy[validator], b *binding, j judgement, notes map[string][]string) {
	for _, d := range j.denials {
		for _, action := range b.actions {
			switch action {
			case admissionv1.Deny:
				g.refusals = append(g.refusals, refusal{p.name, b.name, d.reason, d.message})
			case admissionv1.Audit:
				g.failures = append(g.failures, failure{d.message, p.name, b.name, d.index, b.actions})
			case admissionv1.Warn:
				g.r.Warn(fmt.Sprintf("Validation failed for ValidatingAdmissionPolicy '%s' with binding '%s': %s", p.name, b.name, d.message))
			}
		}
	}
	for _, n := range j.notes {
		value := n.value[:min(len(n.value), maxAnnotation)]
		if !slices.Contains(notes[n.key], value) {
			notes[n.key] = append(notes[n.key], value)
		}
	}
	for _, d := range j.refusals {
		g.refusals = append(g.refusals, refusal{p.name, b.name, d.reason, d.message})
	}
}

// answer tells the audit log and refuses the request for the first reason.
func (g *gathering) answer() error {
	if len(g.failures) > 0 {
		value, err := json.Marshal(g.failures[:min(len(g.failures), maxFailures)])
		if err != nil {
			return apierrors.NewInternalError(err)
		}
		g.r.Annotate(failureAnnotation, string(value))
	}
	if len(g.refusals) == 0 {
		return nil
	}
	first := &g.refusals[0]
	err := apierrors.NewForbidden(g.r.Resource.GroupResource(), g.r.Name, fmt.Errorf("%s", first.text()))
	if err.ErrStatus.Reason = first.reason; first.reason == "" {
		err.ErrStatus.Reason = metav1.StatusReasonInvalid
	}
	err.ErrStatus.Code = codeOf(err.ErrStatus.Reason)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Message: first.text()})
	return err
}

func codeOf(reason metav1.StatusReason) int32 {
	switch reason {
	case metav1.StatusReasonForbidden:
		return http.StatusForbidden
	case metav1.StatusReasonUnauthorized:
		return http.StatusUnauthorized
	case metav1.StatusReasonRequestEntityTooLarge:
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusUnprocessableEntity
}
