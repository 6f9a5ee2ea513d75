package expression

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/google/cel-go/cel"
	"k8s.io/apimachinery/pkg/util/version"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/library"
	"k8s.io/apiserver/pkg/cel/mutation"
)

// The names of the variables.
const (
	objectName          = "object"
	oldObjectName       = "oldObject"
	requestName         = "request"
	namespaceName       = "namespaceObject"
	paramsName          = "params"
	authorizerName      = "authorizer"
	requestResourceName = "authorizer.requestResource"
	variablesName       = "variables"
)

// Declarations are what an expression may refer to beside the variables that
// all have.
type Declarations struct {
	// Params declares `params`, which may be null.
	Params bool
	// Authorizer declares `authorizer` and `authorizer.requestResource`.
	Authorizer bool
	// Patches declares the types Object and JSONPatch, of which expressions
	// make patches.
	Patches bool
}

// Age says which functions an expression may call.
type Age int

const (
	// Stored expressions may call all: they were accepted once.
	Stored Age = iota
	// Written ones may call those that the level before this one has as well,
	// so that a cluster can go back to it.
	Written
)

// Compiler makes the environments of expressions when they are first needed.
// Use New.
type Compiler struct {
	mu   sync.Mutex
	envs map[environmentKey]*cel.Env // guarded by mu
	// identities are those of expressions about who sent a request.
	identities map[string]*cel.Env // guarded by mu; by the variable's name

	// lazies are those that hold compiled expressions at the moment, at most
	// limit of them.
	lazyMu sync.Mutex
	lazies map[evictable]struct{} // guarded by lazyMu
	limit  int
	clock  atomic.Uint64 // counts uses
}

type environmentKey struct {
	Declarations
	age Age
}

// New returns a Compiler that keeps the compiled expressions of at most limit
// owners; 0 means defaultLimit.
func New(limit int) *Compiler {
	if limit <= 0 {
		limit = defaultLimit
	}
	return &Compiler{envs: map[environmentKey]*cel.Env{}, lazies: map[evictable]struct{}{}, limit: limit}
}

// environment returns the environment without composed variables and patches.
func (c *Compiler) environment(d Declarations, age Age) (*cel.Env, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.Patches = false
	key := environmentKey{d, age}
	if env := c.envs[key]; env != nil {
		return env, nil
	}
	env, err := newEnvironment(d, age, typed{})
	if err != nil {
		return nil, fmt.Errorf("set up the environment of CEL expressions: %w", err)
	}
	c.envs[key] = env
	return env, nil
}

// always marks options that have been there in every version that counts.
var always = version.MajorMinor(1, 0)

// typed are the types of objects and of params, nil for any.
type typed struct{ object, params *apiservercel.DeclType }

func celType(t *apiservercel.DeclType) *cel.Type {
	if t == nil {
		return cel.DynType
	}
	return t.CelType()
}

func newEnvironment(d Declarations, age Age, types typed) (*cel.Env, error) {
	request, namespace := requestType(), namespaceType()
	declared := []*apiservercel.DeclType{request, namespace}
	for _, t := range []*apiservercel.DeclType{types.object, types.params} {
		if t != nil {
			declared = append(declared, t)
		}
	}
	options := []cel.EnvOption{
		cel.Variable(objectName, celType(types.object)),
		cel.Variable(oldObjectName, celType(types.object)),
		cel.Variable(requestName, request.CelType()),
		cel.Variable(namespaceName, namespace.CelType()),
	}
	if d.Params {
		options = append(options, cel.Variable(paramsName, celType(types.params)))
	}
	if d.Authorizer {
		options = append(options,
			cel.Variable(authorizerName, library.AuthorizerType),
			cel.Variable(requestResourceName, library.ResourceCheckType))
	}
	layers := []environment.VersionedOptions{
		{IntroducedVersion: always, EnvOptions: options, DeclTypes: declared},
		environment.StrictCostOpt,
	}
	set, err := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()).Extend(layers...)
	if err != nil {
		return nil, err
	}
	if age == Written {
		return set.NewExpressionsEnv(), nil
	}
	return set.StoredExpressionsEnv(), nil
}

// withPatches declares the types of patches, whose resolver stands before the
// types that env has.
func withPatches(env *cel.Env) (*cel.Env, error) {
	return env.Extend(common.ResolverEnvOption(&mutation.DynamicTypeResolver{}), environment.UnversionedLib(library.JSONPatch))
}
