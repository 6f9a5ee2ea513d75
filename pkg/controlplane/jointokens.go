package controlplane

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/admission"
	"coracle/pkg/auth"
	"coracle/pkg/auth/bootstraptoken"
	"coracle/pkg/registry"
)

// bootstrapTokenUse keeps bootstrap tokens to the machines that they are for.
func (cp *ControlPlane) bootstrapTokenUse() admission.BootstrapTokenUse {
	return admission.BootstrapTokenUse{LetIn: cp.letIn, Limited: func(ctx context.Context, token string) (bool, error) {
		s, err := cp.bootstrapSecret(ctx, bootstraptoken.NamePrefix+token)
		if err != nil || s == nil {
			return false, err // without a Secret, no token has shown who this is
		}
		l, err := bootstraptoken.LimitsOf(s)
		if err != nil {
			return true, nil // LetIn says what is wrong
		}
		return l != (bootstraptoken.Limits{}) || cp.cfg.strict.machinesPerToken > 0, nil
	}}
}

// letIn notes a machine in the Secret of a token. Of several that ask at once, the
// store decides who was first.
func (cp *ControlPlane) letIn(ctx context.Context, token string, m bootstraptoken.Machine, dry bool) error {
	name := bootstraptoken.NamePrefix + token
	req := registry.Request{Resource: cp.resource(corev1.SchemeGroupVersion.WithResource("secrets")), Namespace: bootstraptoken.Namespace, Name: name}
	var refused error
	_, _, err := cp.registry.Update(auth.WithUser(ctx, self()), req, func(current runtime.Object) (runtime.Object, error) {
		s, ok := current.(*corev1.Secret)
		if !ok || s.DeletionTimestamp != nil {
			return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
		}
		refused = bootstraptoken.LetIn(s, m, cp.cfg.strict.machinesPerToken)
		return s, refused
	}, registry.UpdateOptions{WriteOptions: registry.WriteOptions{Manager: bootstrapManager, Internal: true, DryRun: dry}})
	switch {
	case refused != nil:
		return refused
	case apierrors.IsNotFound(err):
		return errors.New("the token has ended")
	case err != nil:
		return fmt.Errorf("use the token %s: %w", token, err)
	}
	return nil
}
