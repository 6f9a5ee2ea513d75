package celpolicy

import (
	"context"
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"coracle/pkg/admission"
	"coracle/pkg/admission/expression"
	"coracle/pkg/admission/match"
)

// FieldTypes returns the types of the fields of a served kind, by which
// configurations are merged into objects.
type FieldTypes func(kind schema.GroupVersionKind) (managedfields.TypeConverter, error)

// Mutating is the plugin of MutatingAdmissionPolicies.
type Mutating struct {
	cfg   Config
	types FieldTypes
	match *match.Matcher
	index index[mutator]
}

// NewMutating returns the plugin.
func NewMutating(cfg Config, types FieldTypes) *Mutating {
	p := &Mutating{cfg: cfg, types: types, match: &match.Matcher{Objects: cfg.Objects, Table: cfg.Table}, index: index[mutator]{
		objects: cfg.Objects, compiler: cfg.Compiler,
		policyGVR: admissionv1.SchemeGroupVersion.WithResource("mutatingadmissionpolicies"),
		bindGVR:   admissionv1.SchemeGroupVersion.WithResource("mutatingadmissionpolicybindings"),
		read: func(obj runtime.Object) (terms[mutator], error) {
			p, ok := obj.(*admissionv1.MutatingAdmissionPolicy)
			if !ok {
				return terms[mutator]{}, fmt.Errorf("a MutatingAdmissionPolicy is wanted, not a %T", obj)
			}
			return terms[mutator]{
				failure: p.Spec.FailurePolicy, params: p.Spec.ParamKind, match: p.Spec.MatchConstraints,
				compile: func() *mutator { return newMutator(cfg.Compiler, &p.Spec) },
			}, nil
		},
		bound: func(obj runtime.Object) (*binding, *admissionv1.MatchResources, error) {
			b, ok := obj.(*admissionv1.MutatingAdmissionPolicyBinding)
			if !ok {
				return nil, nil, fmt.Errorf("a MutatingAdmissionPolicyBinding is wanted, not a %T", obj)
			}
			return &binding{name: b.Name, policy: b.Spec.PolicyName, params: b.Spec.ParamRef}, b.Spec.MatchResources, nil
		},
	}}
	p.index.watch()
	return p
}

// Name implements admission.Plugin.
func (*Mutating) Name() string { return "MutatingAdmissionPolicy" }

// mutator is the compiled form of a MutatingAdmissionPolicy.
type mutator struct {
	scope      *expression.Scope
	conditions *expression.Conditions
	mutations  []mutation
	// again says that it runs a second time after others changed the object.
	again bool
}

type mutation struct {
	program *expression.Program
	want    expression.Result // ApplyConfiguration or JSONPatch
}

func newMutator(c *expression.Compiler, spec *admissionv1.MutatingAdmissionPolicySpec) *mutator {
	d := declarations(spec.ParamKind)
	m := &mutator{scope: c.Composed(expression.Stored), again: spec.ReinvocationPolicy == admissionv1.IfNeededReinvocationPolicy}
	m.conditions = c.Scope(expression.Stored).Conditions(spec.MatchConditions, d)
	for _, variable := range spec.Variables {
		m.scope.Variable(variable.Name, variable.Expression, d)
	}
	d.Patches = true
	for i := range spec.Mutations {
		text, want, _ := mutationText(&spec.Mutations[i])
		m.mutations = append(m.mutations, mutation{m.scope.Compile(text, d, want), want})
	}
	return m
}

// invocation is a policy that a request is changed by, with one parameter.
type invocation struct {
	policy  *policy[mutator]
	binding *binding
	form    *match.Form
	param   param
}

// key names an invocation in both passes.
func (i *invocation) key() string {
	key := i.policy.name + "\x00" + i.binding.name
	if i.param.object != nil {
		if acc, err := meta.Accessor(i.param.object); err == nil {
			key += "\x00" + acc.GetNamespace() + "\x00" + acc.GetName()
		}
	}
	return key
}

// passed is what the plugin remembers of the first pass.
type passed struct {
	// left is the object as the plugin left it.
	left runtime.Object
	// ran are the invocations that may run again, and those of them after which
	// another policy changed the object.
	ran map[string]bool
}

// Admit implements admission.Mutator.
func (m *Mutating) Admit(ctx context.Context, a *admission.Attributes) error {
	if a.Operation == admission.Delete || a.Object == nil || exempt(a) {
		return nil
	}
	state, err := m.index.current(ctx)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	policies := state.about(a.Resource.Plural)
	if len(policies) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, evaluationTime)
	defer cancel()
	run := &mutating{plugin: m, r: m.match.Request(a), memory: admission.Remembered[passed](a, m.Name())}
	for _, p := range policies {
		run.choose(ctx, p)
	}
	if err := run.all(ctx); err != nil {
		return err
	}
	return run.answer()
}

// mutating is one pass of a request through the policies.
type mutating struct {
	plugin      *Mutating
	r           *match.Request
	memory      *passed
	invocations []invocation
	errs        []string // of policies that fail closed
	reasons     []metav1.StatusReason
}

// failed records what went wrong in a policy, or in its binding b.
func (m *mutating) failed(p *policy[mutator], b *binding, reason metav1.StatusReason, err error) {
	if !p.fails() {
		return
	}
	text := fmt.Sprintf("policy %q denied request: %s", p.name, err)
	if b != nil {
		text = fmt.Sprintf("policy '%s' with binding '%s' denied request: %s", p.name, b.name, err)
	}
	m.errs, m.reasons = append(m.errs, text), append(m.reasons, reason)
}

// choose finds the invocations of a policy: what matches is decided on the
// object as it came.
func (m *mutating) choose(ctx context.Context, p *policy[mutator]) {
	form, err := m.r.Match(ctx, &p.criteria)
	if err == nil && form == nil {
		return
	}
	if err == nil {
		err = p.broken
	}
	if err == nil && p.params != nil {
		_, err = m.plugin.cfg.source(p.params)
	}
	if err != nil {
		m.failed(p, nil, "", fmt.Errorf("failed to configure policy: %w", err))
		return
	}
	for _, b := range p.bindings {
		matches, err := bindingMatches(ctx, m.r, b)
		if err == nil && !matches {
			continue
		}
		var params []param
		if err == nil {
			params, err = m.plugin.cfg.collect(ctx, p.params, b.params, m.r.InNamespace())
		}
		if err != nil {
			m.failed(p, b, "", fmt.Errorf("failed to configure binding: %w", err))
			continue
		}
		for _, one := range params {
			m.invocations = append(m.invocations, invocation{p, b, form, one})
		}
	}
}

// all runs the invocations in order. In the second pass those run that ask for
// it and that did not have the last word on the object.
func (m *mutating) all(ctx context.Context) error {
	second := m.r.Pass() > 0
	byOthers := second && !equality.Semantic.DeepEqual(m.memory.left, m.r.Object)
	ran := map[string]bool{} // to whether it was followed by a change
	for i := range m.invocations {
		one := &m.invocations[i]
		key := one.key()
		changedSince, ranBefore := m.memory.ran[key]
		if second && !(ranBefore && (changedSince || byOthers)) {
			continue
		}
		changed, applied, err := m.invoke(ctx, one)
		if err != nil {
			return err
		}
		if changed {
			for other := range ran {
				ran[other] = true
			}
			m.r.MutateAgain()
		}
		if applied && one.policy.compiled.Get().again {
			ran[key] = false
		}
	}
	if !second && len(ran) > 0 {
		m.memory.ran, m.memory.left = ran, m.r.Object.DeepCopyObject()
	}
	return nil
}

// invoke runs the mutations of one policy. applied says that its conditions
// hold, the error is the request's.
func (m *mutating) invoke(ctx context.Context, one *invocation) (changed, applied bool, err error) {
	compiled := one.policy.compiled.Get()
	in, err := m.input(ctx, one)
	if err != nil {
		return false, false, err
	}
	matches, err := compiled.conditions.Match(ctx, in)
	if err != nil {
		m.failed(one.policy, one.binding, metav1.StatusReasonInvalid, err)
		return false, false, nil
	}
	if !matches {
		return false, false, nil
	}
	for i := range compiled.mutations {
		did, err := m.mutate(ctx, compiled, &compiled.mutations[i], one)
		if isStatus(err) {
			return changed, true, err
		}
		if err != nil {
			m.failed(one.policy, one.binding, metav1.StatusReasonInvalid, err)
		}
		changed = changed || did
	}
	return changed, true, nil
}

func isStatus(err error) bool {
	_, ok := err.(apierrors.APIStatus)
	return ok
}

// input is the request as it is now.
func (m *mutating) input(ctx context.Context, one *invocation) (*expression.Input, error) {
	in, err := inputOf(ctx, &m.plugin.cfg, m.r, one.form)
	if err != nil {
		return nil, err
	}
	in.Plain, in.Params, in.ParamKind = true, one.param.object, one.param.kind
	return in, nil
}

// mutate runs one mutation on the object as those before left it.
func (m *mutating) mutate(ctx context.Context, compiled *mutator, what *mutation, one *invocation) (changed bool, err error) {
	in, err := m.input(ctx, one)
	if err != nil {
		return false, err
	}
	value, err := compiled.scope.Begin(in, expression.PolicyBudget).Eval(ctx, what.program)
	if err != nil {
		return false, err
	}
	var next runtime.Object
	if what.want == expression.ApplyConfiguration {
		next, err = m.plugin.merge(one.form, in.Object, value)
	} else {
		next, err = patched(m.r, one.form, in.Object, value)
	}
	if err != nil || equality.Semantic.DeepEqual(in.Object, next) {
		return false, err
	}
	return true, m.r.Replace(one.form, next)
}

// answer refuses the request for the first error of a policy that fails
// closed.
func (m *mutating) answer() error {
	if len(m.errs) == 0 {
		return nil
	}
	err := apierrors.NewForbidden(m.r.Resource.GroupResource(), m.r.Name, nil)
	err.ErrStatus.Message = m.errs[0]
	if reason := m.reasons[0]; reason != "" {
		err.ErrStatus.Reason = reason
	}
	for _, text := range m.errs {
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Message: text})
	}
	return err
}
