package expression

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// The variables of expressions about who sent a request.
const (
	claimsName = "claims"
	userName   = "user"
)

// maxTexts bounds a list that such an expression makes.
const maxTexts = 10_000

// Identity is an expression over the claims of a token, or over the user made of
// them.
type Identity struct {
	variable string
	program  cel.Program
	selected map[string]bool // the fields of the variable that it reads
}

// Identity compiles text, which may read one variable: claims, a map of
// anything, or user. A condition must be of the type bool; other expressions show
// what they are when they are evaluated.
func (c *Compiler) Identity(variable, text string, condition bool) (*Identity, error) {
	env, err := c.identityEnvironment(variable)
	if err != nil {
		return nil, err
	}
	compiled, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, errors.New(compilationFailed + issues.String())
	}
	if condition {
		if err := checkResult(compiled.OutputType(), Bool.types()); err != nil {
			return nil, err
		}
	}
	program, err := env.Program(compiled, cel.InterruptCheckFrequency(celconfig.CheckFrequency), cel.CostLimit(celconfig.PerCallLimit))
	if err != nil {
		return nil, fmt.Errorf("program instantiation failed: %w: %w", ErrInternal, err)
	}
	p := &Identity{variable: variable, program: program, selected: map[string]bool{}}
	ast.PreOrderVisit(compiled.NativeRep().Expr(), ast.NewExprVisitor(p.note))
	return p, nil
}

// note remembers a field that is read: VARIABLE.FIELD or VARIABLE.?FIELD.
func (p *Identity) note(e ast.Expr) {
	of := func(x ast.Expr) bool { return x.Kind() == ast.IdentKind && x.AsIdent() == p.variable }
	switch e.Kind() {
	case ast.SelectKind:
		if s := e.AsSelect(); of(s.Operand()) {
			p.selected[s.FieldName()] = true
		}
	case ast.CallKind:
		call := e.AsCall()
		if call.FunctionName() != operators.OptSelect || len(call.Args()) != 2 || !of(call.Args()[0]) || call.Args()[1].Kind() != ast.LiteralKind {
			return
		}
		if field, ok := call.Args()[1].AsLiteral().(types.String); ok {
			p.selected[string(field)] = true
		}
	}
}

// identityEnvironment is made when it is first needed.
func (c *Compiler) identityEnvironment(variable string) (*cel.Env, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if env := c.identities[variable]; env != nil {
		return env, nil
	}
	declared := mapOf(apiservercel.DynType)
	if variable == userName {
		declared = userType()
	} else if variable != claimsName {
		return nil, fmt.Errorf("%w: there is no variable %q", ErrInternal, variable)
	}
	set, err := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()).Extend(environment.VersionedOptions{
		IntroducedVersion: always, EnvOptions: []cel.EnvOption{cel.Variable(variable, declared.CelType())}, DeclTypes: []*apiservercel.DeclType{declared},
	}, environment.StrictCostOpt)
	if err != nil {
		return nil, fmt.Errorf("set up the environment of CEL expressions: %w", err)
	}
	if c.identities == nil {
		c.identities = map[string]*cel.Env{}
	}
	c.identities[variable] = set.StoredExpressionsEnv()
	return c.identities[variable], nil
}

// Selects says whether the expression reads the variable's field of that name.
func (p *Identity) Selects(field string) bool { return p.selected[field] }

// Eval returns a bool, a string, a []string, or nil for null. value is made of
// what encoding/json makes.
func (p *Identity) Eval(ctx context.Context, value map[string]any) (any, error) {
	v, _, err := p.program.ContextEval(ctx, map[string]any{p.variable: value})
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case types.Bool:
		return bool(v), nil
	case types.String:
		return string(v), nil
	case types.Null:
		return nil, nil
	case traits.Lister:
		return textsOf(v)
	}
	return nil, fmt.Errorf("it evaluates to %s", v.Type().TypeName())
}

func textsOf(list traits.Lister) ([]string, error) {
	var out []string
	for i := list.Iterator(); i.HasNext() == types.True; {
		var element ref.Val = i.Next()
		s, ok := element.(types.String)
		if !ok {
			return nil, fmt.Errorf("it evaluates to a list with %s in it", element.Type().TypeName())
		}
		if len(out) == maxTexts {
			return nil, fmt.Errorf("it evaluates to a list of more than %d texts", maxTexts)
		}
		out = append(out, string(s))
	}
	return out, nil
}
