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

	"k8s.io/apimachinery/pkg/runtime"

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
	Operation   Operation
	Resource    *resource.Resource
	Subresource string
	// Namespace is empty for cluster-scoped resources. Name may be empty on a
	// create with generateName.
	Namespace, Name string
	// Object is the new object; nil for Delete. A subresource that takes a
	// kind of its own (Binding, Eviction, TokenRequest) has that here.
	Object runtime.Object
	// Old is the stored object on Update and Delete; shared, never changed.
	Old runtime.Object
	// Options are the request's own: *metav1.CreateOptions and so on.
	Options runtime.Object
	User    *auth.User
	DryRun  bool
	// Warn adds a text to the client's Warning headers. Never nil.
	Warn func(text string)
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

// Chain is an ordered list of plugins. The zero Chain admits everything.
type Chain struct{ plugins []Plugin }

// NewChain checks that each plugin does something and that no name is taken
// twice.
func NewChain(plugins ...Plugin) (*Chain, error) {
	seen := map[string]bool{}
	for _, p := range plugins {
		_, mutates := p.(Mutator)
		_, validates := p.(Validator)
		if !mutates && !validates {
			return nil, fmt.Errorf("admission plugin %s neither mutates nor validates", p.Name())
		}
		if seen[p.Name()] {
			return nil, fmt.Errorf("admission plugin %s is listed twice", p.Name())
		}
		seen[p.Name()] = true
	}
	return &Chain{plugins: plugins}, nil
}

// Admit runs the mutating plugins in order and stops at the first refusal.
func (c *Chain) Admit(ctx context.Context, a *Attributes) error {
	for _, p := range c.plugins {
		if m, ok := p.(Mutator); ok {
			if err := m.Admit(ctx, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// Validate runs the validating plugins in order and stops at the first
// refusal.
func (c *Chain) Validate(ctx context.Context, a *Attributes) error {
	for _, p := range c.plugins {
		if v, ok := p.(Validator); ok {
			if err := v.Validate(ctx, a); err != nil {
				return err
			}
		}
	}
	return nil
}
