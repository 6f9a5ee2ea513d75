package admission

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/auth"
	"coracle/pkg/resource"
)

// OwnerReferencesPermissionEnforcement lets only those change owner
// references who may delete the object, and only those block an owner's
// deletion who may set its finalizers. Upstream has it off by default.
type OwnerReferencesPermissionEnforcement struct {
	Authorizer auth.Authorizer
	// Kinds finds the resource of an owner's kind.
	Kinds func(schema.GroupVersionKind) (*resource.Resource, bool)
}

// Name implements Plugin.
func (OwnerReferencesPermissionEnforcement) Name() string {
	return "OwnerReferencesPermissionEnforcement"
}

// Validate implements Validator.
func (p OwnerReferencesPermissionEnforcement) Validate(ctx context.Context, a *Attributes) error {
	if a.Operation != Create && a.Operation != Update || a.Resource.Group == "" && a.Resource.Plural == "pods" && a.Subresource == "status" {
		return nil // a pod's status cannot change them
	}
	had, has := owners(a.Old()), owners(a.Object)
	if len(had) == 0 && len(has) == 0 || equality.Semantic.DeepEqual(had, has) {
		return nil
	}
	if a.Operation == Update {
		d, reason, err := p.Authorizer.Authorize(ctx, auth.Attributes{
			User: a.User, Verb: "delete", Namespace: a.Namespace, APIGroup: a.Resource.Group, APIVersion: a.Resource.Version,
			Resource: a.Resource.Plural, Subresource: a.Subresource, Name: a.Name, ResourceRequest: true,
		})
		if d != auth.Allow {
			return forbidden(a, fmt.Errorf("cannot set an ownerRef on a resource you can't delete: %v, %w", reason, orNil(err)))
		}
	}
	blocking := newBlocking(had, has)
	if len(blocking) == 0 {
		return nil
	}
	anything := auth.Attributes{
		User: a.User, Verb: "update", APIGroup: "*", APIVersion: "*", Resource: "*", Subresource: "finalizers", Name: "*", ResourceRequest: true,
	}
	if d, _, _ := p.Authorizer.Authorize(ctx, anything); d == auth.Allow {
		return nil
	}
	for _, ref := range blocking {
		if err := p.mayFinalize(ctx, a, ref); err != nil {
			return forbidden(a, err)
		}
	}
	return nil
}

func (p OwnerReferencesPermissionEnforcement) mayFinalize(ctx context.Context, a *Attributes, ref metav1.OwnerReference) error {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	owner, ok := p.Kinds(gv.WithKind(ref.Kind))
	if err == nil && !ok {
		err = errors.New("no such kind is served")
	}
	if err != nil {
		return fmt.Errorf("cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion %s Kind %s: %w", ref.APIVersion, ref.Kind, err)
	}
	asked := auth.Attributes{
		User: a.User, Verb: "update", APIGroup: owner.Group, APIVersion: owner.Version,
		Resource: owner.Plural, Subresource: "finalizers", Name: ref.Name, ResourceRequest: true,
	}
	if owner.Namespaced {
		asked.Namespace = a.Namespace
	}
	d, reason, err := p.Authorizer.Authorize(ctx, asked)
	if d != auth.Allow {
		return fmt.Errorf("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: %v, %w", reason, orNil(err))
	}
	return nil
}

// errNil stands for "no error" in messages that name one in any case.
var errNil = errors.New("<nil>")

func orNil(err error) error {
	if err == nil {
		return errNil
	}
	return err
}

// owners are the references of an object, none for a nil one.
func owners(obj runtime.Object) []metav1.OwnerReference {
	if obj == nil {
		return nil
	}
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil
	}
	return acc.GetOwnerReferences()
}

// newBlocking are the references that block their owner's deletion and did
// not before.
func newBlocking(had, has []metav1.OwnerReference) []metav1.OwnerReference {
	blocked := map[string]bool{}
	for _, ref := range had {
		blocked[string(ref.UID)] = ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion
	}
	var out []metav1.OwnerReference
	for _, ref := range has {
		if ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion && !blocked[string(ref.UID)] {
			out = append(out, ref)
		}
	}
	return out
}
