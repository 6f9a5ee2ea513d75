package controlplane

import (
	"context"
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"coracle/pkg/admission/celpolicy"
	"coracle/pkg/auth"
	"coracle/pkg/registry"
	"coracle/pkg/resource"
)

// typeCheckManager owns the status of policies.
const typeCheckManager = "validatingadmissionpolicy-status-controller"

// typeChecks writes into the status of each ValidatingAdmissionPolicy what its
// expressions get wrong about the kinds that it names. Every API server does
// so; the first one is enough.
type typeChecks struct {
	cp      *ControlPlane
	kind    *resource.Resource
	schemas func(schema.GroupVersionKind) (*spec.Schema, error)
	queue   workqueue.TypedRateLimitingInterface[string]
}

func (cp *ControlPlane) newTypeChecks() *typeChecks {
	return &typeChecks{
		cp: cp, kind: cp.resource(admissionv1.SchemeGroupVersion.WithResource("validatingadmissionpolicies")), schemas: cp.schemas,
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]()),
	}
}

// projection tells the loop of policies that are to be checked.
func (c *typeChecks) projection() registry.Projection {
	return registry.Projection{
		Resource: c.kind,
		Set: func(obj runtime.Object) {
			if p, ok := obj.(*admissionv1.ValidatingAdmissionPolicy); ok && p.Status.ObservedGeneration < p.Generation {
				c.queue.Add(p.Name)
			}
		},
		Delete: func(_, name string) { c.queue.Forget(name) },
	}
}

// run checks policies until ctx ends.
func (c *typeChecks) run(ctx context.Context) error {
	ctx = auth.WithUser(ctx, self())
	stop := context.AfterFunc(ctx, c.queue.ShutDown)
	defer stop()
	for {
		name, down := c.queue.Get()
		if down {
			return nil
		}
		if err := c.check(ctx, name); err != nil && ctx.Err() == nil {
			c.cp.cfg.Log.Warn("the expressions of a ValidatingAdmissionPolicy could not be checked yet", "name", name, "error", err)
			c.queue.AddRateLimited(name)
		} else {
			c.queue.Forget(name)
		}
		c.queue.Done(name)
	}
}

func (c *typeChecks) check(ctx context.Context, name string) error {
	o, err := c.cp.registry.Get(ctx, registry.Request{Resource: c.kind, Name: name}, "0")
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	obj, err := registry.Shared(c.kind, o)
	if err != nil {
		return err
	}
	p, ok := obj.(*admissionv1.ValidatingAdmissionPolicy)
	if !ok {
		return fmt.Errorf("a ValidatingAdmissionPolicy is wanted, not a %T", obj)
	}
	if p.Status.ObservedGeneration >= p.Generation {
		return nil
	}
	warnings, err := celpolicy.TypeCheck(c.cp.expressions, c.cp.registry.Table(), c.schemas, p)
	if err != nil {
		c.cp.cfg.Log.Warn("a ValidatingAdmissionPolicy was not checked against all its kinds", "name", name, "error", err)
	}
	err = c.write(ctx, p, warnings)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // there is a newer state, of which the loop is told
	}
	return err
}

func (c *typeChecks) write(ctx context.Context, checked *admissionv1.ValidatingAdmissionPolicy, warnings []admissionv1.ExpressionWarning) error {
	req := registry.Request{Resource: c.kind, Subresource: "status", Name: checked.Name}
	_, _, err := c.cp.registry.Update(ctx, req, func(current runtime.Object) (runtime.Object, error) {
		p, ok := current.(*admissionv1.ValidatingAdmissionPolicy)
		if !ok || p.UID != checked.UID || p.Generation != checked.Generation {
			return nil, apierrors.NewConflict(c.kind.GroupResource(), checked.Name, errors.New("the policy has changed meanwhile"))
		}
		p.Status.ObservedGeneration = checked.Generation
		p.Status.TypeChecking = &admissionv1.TypeChecking{ExpressionWarnings: warnings}
		return p, nil
	}, registry.UpdateOptions{WriteOptions: registry.WriteOptions{Manager: typeCheckManager, Internal: true}})
	return err
}
