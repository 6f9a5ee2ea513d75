package controlplane

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"

	"coracle/pkg/apiserver"
	"coracle/pkg/auth"
	"coracle/pkg/auth/bootstraptoken"
	"coracle/pkg/auth/oidc"
	"coracle/pkg/auth/token"
	"coracle/pkg/registry"
)

// tokens joins the issuer of service account tokens with all that checks
// tokens, of service accounts and others.
type tokens struct {
	*token.Issuer
	auth.Tokens
	audiences []string
}

func (t tokens) Audiences() []string { return t.audiences }

// identifyTokens sets what issues and checks bearer tokens.
func (cp *ControlPlane) identifyTokens(id *Identity, server *apiserver.Config, authn *auth.Config) error {
	t := tokens{audiences: []string{id.Issuer}}
	if id.TokenKey != nil {
		verifier, err := cp.serviceAccountTokens(id, &t)
		if err != nil {
			return err
		}
		t.Tokens = append(t.Tokens, verifier)
		if server.Paths, err = oidcPaths(id); err != nil {
			return err
		}
		server.Tokens = &t
	}
	if cp.cfg.BootstrapTokens {
		t.Tokens = append(t.Tokens, auth.AudienceAgnostic{Own: t.audiences,
			Tokens: &auth.BootstrapTokens{Secret: cp.bootstrapSecret, Clock: cp.cfg.Clock}})
	}
	for _, c := range cp.cfg.OIDC {
		issuer, err := oidc.New(c, cp.cfg.Clock)
		if err != nil {
			return err
		}
		if c.IssuerURL == id.Issuer {
			return fmt.Errorf("%s is the issuer of service account tokens: an OpenID Connect issuer must be another", id.Issuer)
		}
		t.Tokens = append(t.Tokens, auth.AudienceAgnostic{Own: t.audiences, Tokens: issuer})
	}
	if len(t.Tokens) > 0 {
		authn.Tokens, authn.Audiences = t.Tokens, t.audiences
	}
	return nil
}

func (cp *ControlPlane) serviceAccountTokens(id *Identity, t *tokens) (*token.Verifier, error) {
	var err error
	t.Issuer, err = token.NewIssuer(token.IssuerConfig{URL: id.Issuer, Key: id.TokenKey, Audiences: t.audiences, Rand: cp.cfg.Rand})
	if err != nil {
		return nil, err
	}
	keys, err := token.NewKeySet(append([]crypto.PublicKey{id.TokenKey.Public()}, id.OldTokenKeys...)...)
	if err != nil {
		return nil, err
	}
	return token.NewVerifier(token.VerifierConfig{
		Issuers: []string{id.Issuer}, Audiences: t.audiences, Keys: keys, Objects: boundObjects{cp}, Clock: cp.cfg.Clock,
	})
}

// bootstrapSecret reads the Secret of a bootstrap token.
func (cp *ControlPlane) bootstrapSecret(ctx context.Context, name string) (*corev1.Secret, error) {
	res := cp.resource(corev1.SchemeGroupVersion.WithResource("secrets"))
	o, err := cp.registry.Get(ctx, registry.Request{Resource: res, Namespace: bootstraptoken.Namespace, Name: name}, "")
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	obj, err := registry.Shared(res, o)
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Secret), nil
}

// oidcPaths serves the documents that others verify tokens with.
func oidcPaths(id *Identity) (map[string]http.Handler, error) {
	keys, err := token.NewKeySet(append([]crypto.PublicKey{id.TokenKey.Public()}, id.OldTokenKeys...)...)
	if err != nil {
		return nil, err
	}
	jwks, err := keys.JWKS()
	if err != nil {
		return nil, err
	}
	doc, err := keys.Discovery(id.Issuer, id.Issuer+"/openid/v1/jwks")
	if err != nil {
		return nil, err
	}
	return map[string]http.Handler{
		"/.well-known/openid-configuration": document("application/json", doc),
		"/openid/v1/jwks":                   document("application/jwk-set+json", jwks),
	}, nil
}

func document(contentType string, body []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		if _, err := w.Write(body); err != nil {
			return // the client has gone
		}
	})
}

// boundObjects finds the objects that tokens are bound to, through
// consistent reads.
type boundObjects struct{ cp *ControlPlane }

// Object implements token.Objects.
func (b boundObjects) Object(ctx context.Context, kind token.Kind, namespace, name string) (token.Object, bool, error) {
	plural, ok := map[token.Kind]string{
		token.ServiceAccount: "serviceaccounts", token.Pod: "pods", token.Secret: "secrets", token.Node: "nodes",
	}[kind]
	if !ok {
		return token.Object{}, false, errors.New("tokens cannot be bound to objects of kind " + string(kind))
	}
	res := b.cp.resource(corev1.SchemeGroupVersion.WithResource(plural))
	o, err := b.cp.registry.Get(ctx, registry.Request{Resource: res, Namespace: namespace, Name: name}, "")
	if apierrors.IsNotFound(err) {
		return token.Object{}, false, nil
	}
	if err != nil {
		return token.Object{}, false, err
	}
	out := token.Object{UID: string(o.UID)}
	if o.Deleting {
		obj, err := registry.Shared(res, o)
		if err != nil {
			return token.Object{}, false, err
		}
		acc, err := meta.Accessor(obj)
		if err != nil {
			return token.Object{}, false, err
		}
		if t := acc.GetDeletionTimestamp(); t != nil {
			out.DeletionTime = t.Time
		}
	}
	return out, true, nil
}

var _ token.Objects = boundObjects{}
