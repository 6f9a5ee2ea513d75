package expression

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/lazy"
)

// ErrBudget says that a Run has cost more than it may: nothing more of it is
// evaluated.
var ErrBudget = errors.New("validation failed due to running out of cost budget, no further validation rules will be run")

// Budgets of a Run, in the cost units of CEL.
const (
	// ConditionsBudget is that of one owner's matchConditions.
	ConditionsBudget = celconfig.RuntimeCELCostBudgetMatchConditions
	// PolicyBudget is that of one policy for one binding and parameter.
	PolicyBudget = celconfig.RuntimeCELCostBudget
)

// Run evaluates the expressions of one Scope for one Input. Variables are
// evaluated when an expression first refers to them.
type Run struct {
	scope     *Scope
	in        *Input
	remaining int64
	ctx       context.Context // of the Eval under way; variables are evaluated in it
	variables ref.Val         // made on first use
}

// Begin starts a Run with a budget.
func (s *Scope) Begin(in *Input, budget int64) *Run {
	return &Run{scope: s, in: in, remaining: budget}
}

// Remaining is what is left of the budget.
func (r *Run) Remaining() int64 { return r.remaining }

// Eval evaluates p. ErrBudget ends the whole Run; any other error is about the
// expression.
func (r *Run) Eval(ctx context.Context, p *Program) (Value, error) {
	if p.err != nil {
		return Value{}, fmt.Errorf("compilation error: %w", p.err)
	}
	if r.remaining < 0 {
		return Value{}, ErrBudget
	}
	r.ctx = ctx
	v, err := r.eval(ctx, p)
	if r.remaining < 0 {
		return Value{}, ErrBudget
	}
	if err != nil {
		return Value{}, fmt.Errorf("expression '%s' resulted in error: %w", p.text, err)
	}
	return Value{v}, nil
}

// eval evaluates p and takes its cost off the budget, which is below zero
// when that was too much.
func (r *Run) eval(ctx context.Context, p *Program) (ref.Val, error) {
	v, details, err := p.program.ContextEval(ctx, (*activation)(r))
	r.spend(details)
	return v, err
}

func (r *Run) spend(details *cel.EvalDetails) {
	var cost *uint64
	if details != nil {
		cost = details.ActualCost()
	}
	switch {
	case r.remaining < 0:
	case cost == nil || *cost > math.MaxInt64 || int64(*cost) > r.remaining:
		r.remaining = -1
	default:
		r.remaining -= int64(*cost)
	}
}

// composed is the value of `variables`.
func (r *Run) composed() ref.Val {
	if r.variables != nil || r.scope.variables == nil {
		return r.variables
	}
	m := lazy.NewMapValue(r.scope.variables)
	for name, p := range r.scope.composed {
		m.Append(name, func(*lazy.MapValue) ref.Val {
			if p.err != nil {
				return types.NewErr("composited variable %q fails to compile: %v", name, p.err)
			}
			v, err := r.eval(r.ctx, p)
			if err != nil {
				return types.NewErr("composited variable %q fails to evaluate: %v", name, err)
			}
			return v
		})
	}
	r.variables = m
	return m
}

// activation shows a Run's values to CEL.
type activation Run

// ResolveName implements cel.Activation.
func (a *activation) ResolveName(name string) (any, bool) {
	switch name {
	case variablesName:
		v := (*Run)(a).composed()
		return v, v != nil
	}
	return a.in.resolve(name)
}

// Parent implements cel.Activation.
func (a *activation) Parent() cel.Activation { return nil }

// Value is what an expression evaluated to.
type Value struct{ v ref.Val }

// True says that the value is the boolean true.
func (v Value) True() bool { return v.v == types.True }

// False says that the value is the boolean false.
func (v Value) False() bool { return v.v == types.False }

// Text returns a string; ok is false for all other values.
func (v Value) Text() (text string, ok bool) {
	s, ok := v.v.(types.String)
	return string(s), ok
}
