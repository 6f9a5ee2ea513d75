package apiserver

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"coracle/pkg/admission"
	"coracle/pkg/auth"
	"coracle/pkg/auth/token"
	"coracle/pkg/registry"
)

// Tokens issues and checks service account tokens.
type Tokens interface {
	auth.TokenAuthenticator
	// Issue signs a token for an existing account.
	Issue(r token.Request, now time.Time) (*token.Issued, error)
	// Audiences are those of the API server itself.
	Audiences() []string
}

// subresourceScheme knows the kinds that subresources take as bodies.
func subresourceScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(autoscalingv1.SchemeGroupVersion, &autoscalingv1.Scale{})
	scheme.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Binding{})
	scheme.AddKnownTypes(policyv1.SchemeGroupVersion, &policyv1.Eviction{})
	scheme.AddKnownTypes(authenticationv1.SchemeGroupVersion, &authenticationv1.TokenRequest{})
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	return scheme
}

func encodeHash(sum []byte) string { return base64.StdEncoding.EncodeToString(sum) }

// Limits of a TokenRequest (API doc of TokenRequestSpec).
const (
	defaultTokenSeconds = 60 * 60
	minTokenSeconds     = 10 * 60
	maxTokenSeconds     = 1 << 32
)

func (s *Server) serveToken(w http.ResponseWriter, r *http.Request, req registry.Request) error {
	rep, opts, tr, err := readSub(s, w, r, req, &authenticationv1.TokenRequest{}, &metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if tr.Spec.ExpirationSeconds == nil {
		tr.Spec.ExpirationSeconds = ptr(int64(defaultTokenSeconds))
	}
	if err := s.issue(r.Context(), req, tr, opts); err != nil {
		return err
	}
	sendObject(w, http.StatusCreated, rep, authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"), tr)
	return nil
}

func validateTokenRequest(tr *authenticationv1.TokenRequest) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if tr.Spec.ExpirationSeconds == nil {
		return field.ErrorList{field.Required(path.Child("expirationSeconds"), "")} // a webhook took it away
	}
	seconds := *tr.Spec.ExpirationSeconds
	if seconds < minTokenSeconds {
		errs = append(errs, field.Invalid(path.Child("expirationSeconds"), seconds, "may not specify a duration less than 10 minutes"))
	}
	if seconds > maxTokenSeconds {
		errs = append(errs, field.Invalid(path.Child("expirationSeconds"), seconds, "may not specify a duration larger than 2^32 seconds"))
	}
	return errs
}

// issue fills in the status of tr.
func (s *Server) issue(ctx context.Context, req registry.Request, tr *authenticationv1.TokenRequest, opts registry.WriteOptions) error {
	err := s.cfg.Registry.Admit(ctx, admission.Create, req, tr, opts, func() error {
		if errs := validateTokenRequest(tr); len(errs) > 0 {
			return registry.Invalid(authenticationv1.SchemeGroupVersion.WithKind("TokenRequest").GroupKind(), req.Name, errs)
		}
		return nil
	})
	if err != nil {
		return err
	}
	account, err := s.ref(ctx, "serviceaccounts", req.Namespace, req.Name)
	if err != nil {
		return err
	}
	ask := token.Request{
		Namespace: req.Namespace, ServiceAccount: account.Ref, Audiences: tr.Spec.Audiences,
		Lifetime: time.Duration(*tr.Spec.ExpirationSeconds) * time.Second,
	}
	if bound := tr.Spec.BoundObjectRef; bound != nil {
		if err := s.bindToken(ctx, req, &ask, bound); err != nil {
			return err
		}
	}
	issued, err := s.cfg.Tokens.Issue(ask, s.now())
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	tr.Spec.Audiences = issued.Audiences
	tr.Status = authenticationv1.TokenRequestStatus{Token: issued.Token, ExpirationTimestamp: metav1.Time{Time: issued.Expires}}
	return nil
}

// bindToken ties a token to the object that the request names.
func (s *Server) bindToken(ctx context.Context, req registry.Request, ask *token.Request, bound *authenticationv1.BoundObjectReference) error {
	var found *boundObject
	var err error
	switch bound.APIVersion + "/" + bound.Kind {
	case "v1/Pod":
		found, err = s.ref(ctx, "pods", req.Namespace, bound.Name)
		if err != nil {
			return err
		}
		pod := found.obj.(*corev1.Pod)
		if pod.Spec.ServiceAccountName != req.Name {
			return apierrors.NewBadRequest("cannot bind token for serviceaccount " + req.Name + " to pod running with different serviceaccount name")
		}
		ask.Pod = &found.Ref
		if pod.Spec.NodeName != "" {
			node := token.Ref{Name: pod.Spec.NodeName}
			if n, err := s.ref(ctx, "nodes", "", pod.Spec.NodeName); err == nil {
				node.UID = n.UID
			}
			ask.Node = &node
		}
	case "v1/Node":
		if found, err = s.ref(ctx, "nodes", "", bound.Name); err != nil {
			return err
		}
		ask.Node = &found.Ref
	case "v1/Secret":
		if found, err = s.ref(ctx, "secrets", req.Namespace, bound.Name); err != nil {
			return err
		}
		ask.Secret = &found.Ref
	default:
		return apierrors.NewBadRequest("cannot bind token to object of type " + bound.APIVersion + " " + bound.Kind + ": use a v1 Pod, Secret or Node")
	}
	if bound.UID != "" && string(bound.UID) != found.UID {
		return apierrors.NewConflict(corev1.Resource(req.Resource.Plural), req.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record: the object of that name is %s", bound.UID, found.UID))
	}
	return nil
}

// boundObject is an object a token refers to.
type boundObject struct {
	token.Ref
	obj runtime.Object
}

func (s *Server) ref(ctx context.Context, plural, namespace, name string) (*boundObject, error) {
	res, ok := s.cfg.Registry.Table().ByGVR(corev1.SchemeGroupVersion.WithResource(plural))
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource(plural), name)
	}
	o, err := s.cfg.Registry.Get(ctx, registry.Request{Resource: res, Namespace: namespace, Name: name}, "")
	if err != nil {
		return nil, err
	}
	obj, err := registry.Shared(res, o)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return &boundObject{Ref: token.Ref{Name: name, UID: string(acc.GetUID())}, obj: obj}, nil
}
