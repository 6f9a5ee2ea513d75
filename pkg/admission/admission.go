// Package admission holds what stands between a decoded, defaulted request
// and the store: an ordered list of plugins, one file each, that may change
// the object (Mutator) and then refuse it (Validator).
//
// The same chain runs on create, update, patch, apply, delete, on every
// subresource that writes, and for dry runs; a plugin that has side effects
// of its own looks at Attributes.DryRun. Plugins return API status errors
// (apierrors); a refusal is apierrors.NewForbidden.
package admission

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/auth"
	"coracle/pkg/resource"
)

// Operation is what a request does to its object.
type Operation string

// The operations of admission (package admission/v1 has the same words).
const (
	Create  Operation = "CREATE"
	Update  Operation = "UPDATE"
	Delete  Operation = "DELETE"
	Connect Operation = "CONNECT"
)

// Attributes is one request as plugins see it. Plugins change Object only.
type Attributes struct {
	Operation Operation
	Resource  *resource.Resource
	// View is the form in which the client wrote the object, nil for that of
	// Resource, which Object and Old have in any case.
	View        *resource.View
	Subresource string
	// Namespace is empty for cluster-scoped resources. Name may be empty on a
	// create with generateName.
	Namespace, Name string
	// Object is the new object; nil for Delete. A subresource that takes a
	// kind of its own (Binding, Eviction, TokenRequest) has that here.
	Object runtime.Object
	// Stored makes the stored object of an Update or a Delete, nil for the others.
	// It is called once at most, by Old: most deletes are decided without it.
	Stored func() (runtime.Object, error)
	// Template is that of Object while a create is validated, nil when none is
	// known: what a validator finds out from the spec alone it can note there.
	Template *resource.Template
	// Options are the request's own: *metav1.CreateOptions and so on.
	Options runtime.Object
	User    *auth.User
	DryRun  bool
	// Internal says that the server itself writes, for its own start or as a
	// part of a request that has been admitted: what clients configured
	// (webhooks, policies) is not asked.
	Internal bool
	// Warn adds a text to the client's Warning headers. Never nil; like
	// Annotate, it is safe for concurrent use.
	Warn func(text string)
	// Annotate adds to what the audit log says of the request. Never nil.
	Annotate func(key, value string)

	old    runtime.Object // what Stored made; set by Old, like oldErr
	oldErr error
	pass   int            // over the mutators; set by the chain
	again  bool           // a second pass was asked for
	kept   map[string]any // what plugins remember between passes, by their names
	undo   []func()       // see OnUndo
}

// Known is Attributes.Stored of an object that is there.
func Known(obj runtime.Object) func() (runtime.Object, error) {
	if obj == nil {
		return nil
	}
	return func() (runtime.Object, error) { return obj, nil }
}

// Old is the stored object on Update and Delete, nil otherwise; shared, never
// changed. Where it cannot be had it is nil, and the chain refuses the request.
func (a *Attributes) Old() runtime.Object {
	if a.Stored != nil {
		a.old, a.oldErr = a.Stored()
		a.Stored = nil
	}
	return a.old
}

// OnUndo registers what takes back a plugin's own side effect when the write
// does not happen after all.
func (a *Attributes) OnUndo(f func()) { a.undo = append(a.undo, f) }

// Undo takes back the side effects, the last first. Who runs the chain calls it
// once it is certain that nothing was written.
func (a *Attributes) Undo() {
	for _, f := range slices.Backward(a.undo) {
		f()
	}
	a.undo = nil
}

// Mutator may change a.Object, or refuse with an API status error.
type Mutator interface {
	Admit(ctx context.Context, a *Attributes) error
}

// Validator may refuse with an API status error; it changes nothing.
type Validator interface {
	Validate(ctx context.Context, a *Attributes) error
}

// Plugin is one element of the chain. It is a Mutator, a Validator or both.
type Plugin interface {
	// Name is upstream's name of the plugin, as flags and errors give it.
	Name() string
}

// Selective is a plugin that is about some resources alone. It is not asked about
// requests for others and their subresources, nor observed.
type Selective interface {
	Plugin
	// Handles says whether the plugin may do anything about a resource.
	Handles(r schema.GroupResource) bool
}

// Phase is one of the two passes through the chain.
type Phase string

// The phases, in upstream's words.
const (
	Mutating   Phase = "admit"
	Validating Phase = "validate"
)

// Observer returns who is told how long a plugin took in a phase of an operation,
// so that a request has nobody to look for. plugin is empty for all of them
// together.
type Observer func(plugin string, phase Phase, op Operation) func(rejected bool, took time.Duration)

// Chain is an ordered list of plugins. The zero Chain admits everything.
type Chain struct {
	plugins []Plugin
	// mutators and validators are the plugins that take part in a phase, in order.
	mutators, validators []member
	// observers are those of each plugin, by its place, and behind them that of
	// all; read-only, nil when nothing is observed.
	observers map[stage][]func(rejected bool, took time.Duration)
}

// member is a plugin in one of the phases.
type member struct {
	place   int                             // among all plugins
	handles func(schema.GroupResource) bool // nil for one that is asked about everything
	ask     func(ctx context.Context, a *Attributes) error
}

// stage is one pass through the chain.
type stage struct {
	phase Phase
	op    Operation
}

// Observed returns the chain with an observer.
func (c *Chain) Observed(o Observer) *Chain {
	out := *c
	out.observers = map[stage][]func(bool, time.Duration){}
	for _, phase := range []Phase{Mutating, Validating} {
		for _, op := range []Operation{Create, Update, Delete, Connect} {
			var row []func(bool, time.Duration)
			for _, p := range c.plugins {
				row = append(row, o(p.Name(), phase, op))
			}
			out.observers[stage{phase, op}] = append(row, o("", phase, op))
		}
	}
	return &out
}

// NewChain checks that each plugin does something and that no name is taken
// twice.
func NewChain(plugins ...Plugin) (*Chain, error) {
	c := &Chain{plugins: plugins}
	seen := map[string]bool{}
	for i, p := range plugins {
		mutator, mutates := p.(Mutator)
		validator, validates := p.(Validator)
		if !mutates && !validates {
			return nil, fmt.Errorf("admission plugin %s neither mutates nor validates", p.Name())
		}
		if seen[p.Name()] {
			return nil, fmt.Errorf("admission plugin %s is listed twice", p.Name())
		}
		seen[p.Name()] = true
		m := member{place: i}
		if s, ok := p.(Selective); ok {
			m.handles = s.Handles
		}
		if mutates {
			m.ask = mutator.Admit
			c.mutators = append(c.mutators, m)
		}
		if validates {
			m.ask = validator.Validate
			c.validators = append(c.validators, m)
		}
	}
	return c, nil
}

// Validate runs the validating plugins in order and stops at the first
// refusal.
func (c *Chain) Validate(ctx context.Context, a *Attributes) error {
	return c.run(ctx, Validating, c.validators, a)
}

// run asks the members of a phase that are about the request's resource.
func (c *Chain) run(ctx context.Context, phase Phase, members []member, a *Attributes) error {
	observers := c.observers[stage{phase, a.Operation}]
	var about schema.GroupResource
	if a.Resource != nil {
		about = a.Resource.GroupResource()
	}
	var began, at time.Time
	if observers != nil {
		began = time.Now()
		at = began
	}
	for i := range members {
		m := &members[i]
		if m.handles != nil && !m.handles(about) {
			continue
		}
		err := m.ask(ctx, a)
		if a.oldErr != nil {
			err = apierrors.NewInternalError(a.oldErr) // whatever the plugin made of that
		}
		if observers != nil {
			now := time.Now()
			observers[m.place](err != nil, now.Sub(at))
			at = now
		}
		if err != nil {
			if observers != nil {
				observers[len(c.plugins)](true, at.Sub(began))
			}
			return err
		}
	}
	if observers != nil {
		observers[len(c.plugins)](false, at.Sub(began))
	}
	return nil
}
