package apiserver

import (
	"context"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/auth"
	"coracle/pkg/registry"
)

// serveReview answers a resource that is only created and never stored: the
// object comes back with its status filled in.
func (s *Server) serveReview(w http.ResponseWriter, r *http.Request, sv served, req registry.Request) error {
	rep, err := negotiate(r, false)
	if err != nil {
		return err
	}
	opts, validation, err := writeOptions(r, &metav1.CreateOptions{})
	if err != nil {
		return err
	}
	obj, err := s.decodeBody(w, r, sv, validation)
	if err != nil {
		return err
	}
	if err := s.review(r.Context(), sv, req, obj, opts); err != nil {
		return err
	}
	sendObject(w, http.StatusCreated, rep, sv.gvk(), obj)
	return nil
}

func (s *Server) review(ctx context.Context, sv served, req registry.Request, obj runtime.Object, opts registry.WriteOptions) error {
	user, _ := auth.UserFrom(ctx)
	if o, ok := obj.(*authorizationv1.LocalSubjectAccessReview); ok && o.Namespace == "" {
		o.Namespace = req.Namespace
	} else if ok && o.Namespace != req.Namespace {
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	if sv.res.Nameless {
		if errs := sv.res.CheckCreate(ctx, obj); len(errs) > 0 {
			return registry.Invalid(sv.gvk().GroupKind(), "", errs)
		}
	}
	switch o := obj.(type) {
	case *authorizationv1.SubjectAccessReview:
		o.Status = auth.ReviewAccess(ctx, s.cfg.Authorizer, &o.Spec)
	case *authorizationv1.LocalSubjectAccessReview:
		o.Status = auth.ReviewAccess(ctx, s.cfg.Authorizer, &o.Spec)
	case *authorizationv1.SelfSubjectAccessReview:
		o.Status = auth.ReviewSelfAccess(ctx, s.cfg.Authorizer, user, &o.Spec)
	case *authorizationv1.SelfSubjectRulesReview:
		if o.Spec.Namespace == "" {
			return apierrors.NewBadRequest("no namespace on request: spec.namespace must name the namespace to list rules for")
		}
		if s.cfg.Rules == nil {
			return methodNotSupported(sv.res.GroupResource(), "create")
		}
		o.Status = auth.ReviewRules(ctx, s.cfg.Rules, user, o.Spec.Namespace)
	case *authenticationv1.SelfSubjectReview:
		o.Status = auth.ReviewSelf(user)
	case *authenticationv1.TokenReview:
		if s.cfg.Tokens == nil {
			return methodNotSupported(sv.res.GroupResource(), "create")
		}
		if o.Spec.Token == "" {
			return apierrors.NewBadRequest("token is required for TokenReview in authentication")
		}
		o.Status = auth.ReviewToken(ctx, s.cfg.Tokens, s.cfg.Tokens.Audiences(), &o.Spec)
	default:
		return s.createUnstored(ctx, sv, req, obj, opts)
	}
	return nil
}
