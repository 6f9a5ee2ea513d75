package celpolicy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/admission"
	"coracle/pkg/admission/expression"
	"coracle/pkg/admission/match"
	"coracle/pkg/auth"
	"coracle/pkg/resource"
)

// Objects reads what is stored; what it returns is shared and never changed.
type Objects interface {
	admission.Objects
	// Marks returns a function that costs nothing and whose value is another one
	// (!=) after each change of a kind. It is called before anything is stored.
	Marks(gvr schema.GroupVersionResource) func() any
	// GetOf and ListOf read objects of any served kind. GetOf asks the store for
	// what the cache does not have; its error is NotFound when there is none.
	GetOf(ctx context.Context, res *resource.Resource, namespace, name string) (runtime.Object, error)
	ListOf(ctx context.Context, res *resource.Resource, namespace string, selector labels.Selector) ([]runtime.Object, error)
}

// Config is what both plugins are made of. All fields are required.
type Config struct {
	Objects    Objects
	Table      func() *resource.Table
	Compiler   *expression.Compiler
	Authorizer auth.Authorizer // answers `authorizer`
}

// policy is a policy of either kind, as far as they have something in common,
// with what its expressions compile to.
type policy[E any] struct {
	name string
	// identity says whether a policy that is read again is the same.
	identity string
	failure  admissionv1.FailurePolicyType
	params   *admissionv1.ParamKind
	criteria match.Criteria
	// plurals are the resources that the rules name, "*" among them for all.
	plurals []string
	// broken is what is wrong with the selectors; requests that the rules cover
	// fail by it.
	broken   error
	bindings []*binding
	compiled *expression.Lazy[E]
}

// fails says that an error of the policy refuses the request.
func (p *policy[E]) fails() bool { return p.failure != admissionv1.Ignore }

// binding is one binding of a policy.
type binding struct {
	name     string
	policy   string
	params   *admissionv1.ParamRef
	criteria *match.Criteria // nil matches everything
	broken   error
	actions  []admissionv1.ValidationAction
}

// terms are what both kinds of policy have.
type terms[E any] struct {
	failure *admissionv1.FailurePolicyType
	params  *admissionv1.ParamKind
	match   *admissionv1.MatchResources
	compile func() *E
}

// index is the policies of one kind that have bindings, by name.
type index[E any] struct {
	objects            Objects
	compiler           *expression.Compiler
	policyGVR, bindGVR schema.GroupVersionResource
	// read takes a stored policy apart, bound a stored binding.
	read  func(obj runtime.Object) (terms[E], error)
	bound func(obj runtime.Object) (*binding, *admissionv1.MatchResources, error)

	policyMark, bindMark func() any // set by watch

	now atomic.Pointer[state[E]]
	mu  sync.Mutex // one goroutine makes a new state
}

// state is immutable.
type state[E any] struct {
	policies, bindings any // the marks of the two kinds
	list               []*policy[E]
}

// about returns the policies whose rules name a resource.
func (s *state[E]) about(plural string) []*policy[E] {
	var out []*policy[E]
	for _, p := range s.list {
		if slices.Contains(p.plurals, plural) || slices.Contains(p.plurals, "*") {
			out = append(out, p)
		}
	}
	return out
}

// watch completes a new index.
func (x *index[E]) watch() {
	x.policyMark, x.bindMark = x.objects.Marks(x.policyGVR), x.objects.Marks(x.bindGVR)
}

// current is the state as of now.
func (x *index[E]) current(ctx context.Context) (*state[E], error) {
	policies, bindings := x.policyMark(), x.bindMark()
	if s := x.now.Load(); s != nil && s.policies == policies && s.bindings == bindings {
		return s, nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	// What is read now is at least as new as these marks.
	policies, bindings = x.policyMark(), x.bindMark()
	old := x.now.Load()
	if old != nil && old.policies == policies && old.bindings == bindings {
		return old, nil
	}
	next := &state[E]{policies: policies, bindings: bindings}
	if err := x.fill(ctx, next, old); err != nil {
		return nil, err
	}
	x.now.Store(next)
	return next, nil
}

func (x *index[E]) fill(ctx context.Context, next, old *state[E]) error {
	bound, err := x.bindings(ctx)
	if err != nil {
		return err
	}
	stored, err := x.objects.List(ctx, x.policyGVR, "")
	if err != nil {
		return fmt.Errorf("read admission policies: %w", err)
	}
	kept := map[string]*policy[E]{}
	if old != nil {
		for _, p := range old.list {
			kept[p.identity] = p
		}
	}
	for _, obj := range stored {
		p, err := x.policy(obj, bound, kept)
		if err != nil {
			return err
		}
		if p != nil {
			next.list = append(next.list, p)
			delete(kept, p.identity)
		}
	}
	for _, p := range kept {
		p.compiled.Drop()
	}
	slices.SortFunc(next.list, func(a, b *policy[E]) int { return strings.Compare(a.name, b.name) })
	return nil
}

// bindings are all bindings by the policy they name, in the order of names.
func (x *index[E]) bindings(ctx context.Context) (map[string][]*binding, error) {
	stored, err := x.objects.List(ctx, x.bindGVR, "")
	if err != nil {
		return nil, fmt.Errorf("read bindings of admission policies: %w", err)
	}
	out := map[string][]*binding{}
	for _, obj := range stored {
		b, resources, err := x.bound(obj)
		if err != nil {
			return nil, err
		}
		if resources != nil {
			var c match.Criteria
			if c, b.broken = criteria(resources); len(c.Rules) == 0 {
				c.Rules = everything
			}
			b.criteria = &c
		}
		out[b.policy] = append(out[b.policy], b)
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b *binding) int { return strings.Compare(a.name, b.name) })
	}
	return out, nil
}

// policy makes one of a stored object, with what kept had compiled. It is nil
// for one without bindings, which has no effect.
func (x *index[E]) policy(obj runtime.Object, bound map[string][]*binding, kept map[string]*policy[E]) (*policy[E], error) {
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	bindings := bound[acc.GetName()]
	if len(bindings) == 0 {
		return nil, nil
	}
	s, err := x.read(obj)
	if err != nil {
		return nil, err
	}
	p := &policy[E]{
		name: acc.GetName(), failure: admissionv1.Fail, params: s.params, bindings: bindings,
		identity: fmt.Sprintf("%s/%d", acc.GetUID(), acc.GetGeneration()),
	}
	if s.failure != nil {
		p.failure = *s.failure
	}
	if s.match != nil {
		p.criteria, p.broken = criteria(s.match)
		p.plurals = plurals(s.match.ResourceRules)
	}
	if before := kept[p.identity]; before != nil {
		p.compiled = before.compiled
	} else {
		p.compiled = expression.NewLazy(x.compiler, s.compile)
	}
	return p, nil
}

// everything are the rules of a binding that has none: the policy's count.
var everything = []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
	Operations: []admissionv1.OperationType{admissionv1.OperationAll},
	Rule:       admissionv1.Rule{APIGroups: []string{"*"}, APIVersions: []string{"*"}, Resources: []string{"*/*"}},
}}}

// criteria are the match of a policy or of a binding.
func criteria(m *admissionv1.MatchResources) (c match.Criteria, err error) {
	c = match.Criteria{Rules: m.ResourceRules, Except: m.ExcludeResourceRules, Exact: m.MatchPolicy != nil && *m.MatchPolicy == admissionv1.Exact}
	if c.Namespaces, err = metav1.LabelSelectorAsSelector(m.NamespaceSelector); err != nil {
		return c, fmt.Errorf("namespaceSelector: %w", err)
	}
	if c.Objects, err = metav1.LabelSelectorAsSelector(m.ObjectSelector); err != nil {
		return c, fmt.Errorf("objectSelector: %w", err)
	}
	if m.NamespaceSelector == nil {
		c.Namespaces = nil
	}
	if m.ObjectSelector == nil {
		c.Objects = nil
	}
	return c, nil
}

// plurals are the resources, without subresources, that rules name.
func plurals(rules []admissionv1.NamedRuleWithOperations) []string {
	var out []string
	for _, r := range rules {
		for _, entry := range r.Resources {
			plural, _, _ := strings.Cut(entry, "/")
			out = append(out, plural)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
