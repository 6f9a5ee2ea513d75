package expression

import (
	"errors"
	"fmt"

	"github.com/google/cel-go/cel"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
)

// Result is what an expression has to evaluate to.
type Result int

// The results that admission asks for.
const (
	Bool Result = iota
	Text
	TextOrNull
	Anything
	// ApplyConfiguration is an Object{...}, JSONPatch a list of JSONPatch{...}.
	ApplyConfiguration
	JSONPatch
)

// types are the exact types that make a result.
func (r Result) types() []*cel.Type {
	switch r {
	case Bool:
		return []*cel.Type{cel.BoolType}
	case Text:
		return []*cel.Type{cel.StringType}
	case TextOrNull:
		return []*cel.Type{cel.StringType, cel.NullType}
	case ApplyConfiguration:
		return []*cel.Type{cel.ObjectType("Object")}
	case JSONPatch:
		return []*cel.Type{cel.ListType(cel.ObjectType("JSONPatch"))}
	}
	return nil
}

// Program is a compiled expression, or what is wrong with one.
type Program struct {
	text    string
	program cel.Program
	// err is set when the expression does not compile; evaluating it says so.
	err error
	// result is the expression's type, nil when it does not compile.
	result *cel.Type
}

// Err says what is wrong with the expression, in upstream's words.
func (p *Program) Err() error { return p.err }

// Text is the expression.
func (p *Program) Text() string { return p.text }

// compilationFailed is how the error of an expression begins that is none.
const compilationFailed = "compilation failed: "

// ErrInternal marks errors that are not the expression's fault.
var ErrInternal = errors.New("internal error")

// compile compiles text in env.
func compile(env *cel.Env, text string, want Result) *Program {
	failed := func(err error) *Program { return &Program{text: text, err: err} }
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		return failed(errors.New(compilationFailed + issues.String()))
	}
	if err := checkResult(ast.OutputType(), want.types()); err != nil {
		return failed(err)
	}
	program, err := env.Program(ast, cel.InterruptCheckFrequency(celconfig.CheckFrequency))
	if err != nil {
		return failed(fmt.Errorf("program instantiation failed: %w: %w", ErrInternal, err))
	}
	return &Program{text: text, program: program, result: ast.OutputType()}
}

func checkResult(got *cel.Type, want []*cel.Type) error {
	if len(want) == 0 {
		return nil
	}
	for _, t := range want {
		if got.IsExactType(t) {
			return nil
		}
	}
	if len(want) == 1 {
		return fmt.Errorf("must evaluate to %v but got %v", want[0], got)
	}
	return fmt.Errorf("must evaluate to one of %v but got %v", want, got)
}

// Scope compiles the expressions of one owner, which may refer to each other
// by variables.
type Scope struct {
	compiler *Compiler
	age      Age
	// variables is the type of `variables`; it grows with each of them.
	variables *apiservercel.DeclType
	envs      map[environmentKey]*cel.Env
	composed  map[string]*Program
	// types are those of objects, in a scope that checks them.
	types typed
}

// variablesType is the name of the type of `variables`.
const variablesType = "kubernetes.variables"

// Scope returns one without variables.
func (c *Compiler) Scope(age Age) *Scope {
	return &Scope{compiler: c, age: age, envs: map[environmentKey]*cel.Env{}}
}

// Composed returns a scope whose expressions may refer to `variables`.
func (c *Compiler) Composed(age Age) *Scope {
	s := c.Scope(age)
	s.variables = apiservercel.NewObjectType(variablesType, map[string]*apiservercel.DeclField{})
	s.composed = map[string]*Program{}
	return s
}

// At makes what is compiled next be of an age.
func (s *Scope) At(age Age) *Scope {
	s.age = age
	return s
}

// environment is the compiler's with the scope's own additions.
func (s *Scope) environment(d Declarations) (*cel.Env, error) {
	key := environmentKey{d, s.age}
	if env := s.envs[key]; env != nil {
		return env, nil
	}
	env, err := s.plain(d)
	if err != nil {
		return nil, err
	}
	if s.variables != nil {
		provider := apiservercel.NewDeclTypeProvider(s.variables)
		provider.SetRecognizeKeywordAsFieldName(true)
		options, err := provider.EnvOptions(env.CELTypeProvider())
		if err != nil {
			return nil, fmt.Errorf("declare variables: %w", err)
		}
		if env, err = env.Extend(append(options, cel.Variable(variablesName, s.variables.CelType()))...); err != nil {
			return nil, fmt.Errorf("declare variables: %w", err)
		}
	}
	if d.Patches {
		if env, err = withPatches(env); err != nil {
			return nil, fmt.Errorf("declare the types of patches: %w", err)
		}
	}
	s.envs[key] = env
	return env, nil
}

// plain is the environment without variables and patches.
func (s *Scope) plain(d Declarations) (*cel.Env, error) {
	if s.types == (typed{}) {
		return s.compiler.environment(d, s.age)
	}
	return newEnvironment(d, s.age, s.types)
}

// Compile compiles an expression that has to evaluate to want. It always
// returns a Program; its Err says whether it can be evaluated.
func (s *Scope) Compile(text string, d Declarations, want Result) *Program {
	env, err := s.environment(d)
	if err != nil {
		return &Program{text: text, err: fmt.Errorf("%w: %w", ErrInternal, err)}
	}
	return compile(env, text, want)
}

// Variable compiles an expression and lets those that follow refer to it as
// variables.NAME, whatever it evaluates to.
func (s *Scope) Variable(name, text string, d Declarations) *Program {
	p := s.Compile(text, d, Anything)
	s.variables.Fields[name] = apiservercel.NewDeclField(name, declared(p.result), true, nil, nil)
	s.composed[name] = p
	return p
}

// declared is the declaration of a type that an expression evaluates to: what
// it has no name for is dynamic.
func declared(t *cel.Type) *apiservercel.DeclType {
	if t == nil {
		return apiservercel.DynType
	}
	for _, known := range []*apiservercel.DeclType{
		apiservercel.AnyType, apiservercel.BoolType, apiservercel.BytesType, apiservercel.DoubleType, apiservercel.DurationType,
		apiservercel.IntType, apiservercel.NullType, apiservercel.StringType, apiservercel.TimestampType, apiservercel.UintType,
	} {
		if t.IsExactType(known.CelType()) {
			return known
		}
	}
	switch parameters := t.Parameters(); {
	case t.Kind() == cel.ListKind && len(parameters) == 1:
		return apiservercel.NewListType(declared(parameters[0]), -1)
	case t.Kind() == cel.MapKind && len(parameters) == 2:
		return apiservercel.NewMapType(declared(parameters[0]), declared(parameters[1]), -1)
	}
	return apiservercel.DynType
}
