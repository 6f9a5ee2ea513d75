package expression

import (
	"context"
	"errors"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Conditions are the matchConditions of one webhook or policy, compiled.
type Conditions struct {
	scope    *Scope
	names    []string
	programs []*Program
}

// Conditions compiles matchConditions in the scope; none match everything.
func (s *Scope) Conditions(list []admissionregistrationv1.MatchCondition, d Declarations) *Conditions {
	m := &Conditions{scope: s}
	for _, c := range list {
		m.names = append(m.names, c.Name)
		m.programs = append(m.programs, s.Compile(c.Expression, d, Bool))
	}
	return m
}

// Match says whether all conditions hold. One that is false settles it,
// whatever the others say; otherwise an error means that it is not known, and
// what follows is for the failurePolicy: Fail refuses the request, Ignore
// passes the owner over.
func (m *Conditions) Match(ctx context.Context, in *Input) (bool, error) {
	if len(m.programs) == 0 {
		return true, nil
	}
	run := m.scope.Begin(in, ConditionsBudget)
	var errs []error
	for _, p := range m.programs {
		v, err := run.Eval(ctx, p)
		switch {
		case errors.Is(err, ErrBudget):
			return false, err
		case err != nil:
			errs = append(errs, err)
		case v.False():
			return false, nil
		}
	}
	if len(errs) > 0 {
		return false, joined(errs)
	}
	return true, nil
}

// joined is several errors as upstream shows them.
func joined(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return errors.New("[" + strings.Join(texts, ", ") + "]")
}

// Check says at path what is wrong with an expression that is written. One
// that was stored before, which known says, may call what it could then.
func (c *Compiler) Check(path *field.Path, text string, d Declarations, want Result, known func(text string) bool) field.ErrorList {
	if strings.TrimSpace(text) == "" {
		return nil // that it is missing is said elsewhere
	}
	return Problem(path, c.Scope(c.Age(text, known)).Compile(text, d, want))
}

// Age is Stored for an expression that known says was there before.
func (c *Compiler) Age(text string, known func(text string) bool) Age {
	if known != nil && known(text) {
		return Stored
	}
	return Written
}

// Problem says at path what is wrong with p.
func Problem(path *field.Path, p *Program) field.ErrorList {
	switch {
	case p.err == nil:
		return nil
	case errors.Is(p.err, ErrInternal):
		return field.ErrorList{field.InternalError(path, p.err)}
	}
	return field.ErrorList{field.Invalid(path, p.text, p.err.Error())}
}

// CheckConditions says at path which of the matchConditions of a webhook that
// is written do not compile; old are those that it had before.
func (c *Compiler) CheckConditions(path *field.Path, list, old []admissionregistrationv1.MatchCondition) field.ErrorList {
	known := func(text string) bool {
		for _, o := range old {
			if o.Expression == text {
				return true
			}
		}
		return false
	}
	var errs field.ErrorList
	for i, condition := range list {
		errs = append(errs, c.Check(path.Index(i).Child("expression"), condition.Expression, Declarations{Authorizer: true}, Bool, known)...)
	}
	return errs
}
