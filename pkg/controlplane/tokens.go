package controlplane

import (
	"context"
	"crypto"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"

	"coracle/pkg/apiserver"
	"coracle/pkg/auth"
	"coracle/pkg/auth/bootstraptoken"
	"coracle/pkg/auth/node"
	"coracle/pkg/auth/token"
	"coracle/pkg/controllers/serviceaccounttoken"
	"coracle/pkg/registry"
)

// tokens joins the issuer of service account tokens with all that checks
// tokens, of service accounts and others.
type tokens struct {
	auth.Tokens
	audiences []string
	verifier  *token.Verifier
	// issuer and documents follow the keys.
	issuer    atomic.Pointer[token.Issuer]
	documents atomic.Pointer[tokenDocuments]
}

// tokenDocuments are what others verify tokens with.
type tokenDocuments struct{ discovery, keys []byte }

func (t *tokens) Audiences() []string { return t.audiences }

// Issue signs a token with the newest key.
func (t *tokens) Issue(r token.Request, now time.Time) (*token.Issued, error) {
	return t.issuer.Load().Issue(r, now)
}

// tokenOf signs the tokens that are kept in Secrets, where a key is here.
func (cp *ControlPlane) tokenOf() serviceaccounttoken.Sign {
	if cp.tokens == nil || cp.tokens.issuer.Load() == nil {
		return nil
	}
	return func(account *corev1.ServiceAccount, secret string) (string, error) {
		return cp.tokens.issuer.Load().IssueLegacy(account.Namespace, token.Ref{Name: account.Name, UID: string(account.UID)}, secret)
	}
}

// secretsOf names all Secrets that a pod refers to.
func secretsOf(p *corev1.Pod) []string {
	pull, others := node.Secrets(p)
	return append(pull, others...)
}

// identifyTokens sets what issues and checks bearer tokens.
func (cp *ControlPlane) identifyTokens(id *Identity, server *apiserver.Config, authn *auth.Config) error {
	t := &tokens{audiences: id.Audiences}
	if len(t.audiences) == 0 {
		t.audiences = []string{id.Issuer}
	}
	cp.tokens = t
	if id.TokenKey != nil {
		if err := cp.setTokenKeys(id.TokenKey, id.OldTokenKeys); err != nil {
			return err
		}
		t.Tokens = append(t.Tokens, t.verifier)
		server.Paths, server.Tokens = t.paths(), t
	}
	if cp.cfg.BootstrapTokens {
		t.Tokens = append(t.Tokens, auth.AudienceAgnostic{Own: t.audiences,
			Tokens: &auth.BootstrapTokens{Secret: cp.bootstrapSecret, Clock: cp.cfg.Clock}})
	}
	if id.TokenFile != nil {
		t.Tokens = append(t.Tokens, auth.AudienceAgnostic{Own: t.audiences, Tokens: id.TokenFile})
	}
	if err := cp.setAuthentication(cp.cfg.OIDC, nil); err != nil {
		return err
	}
	t.Tokens = append(t.Tokens, trustedTokens{cp})
	if id.TokenKey != nil || id.TokenFile != nil || cp.cfg.BootstrapTokens || len(cp.cfg.OIDC) > 0 {
		authn.Tokens, authn.Audiences = t.Tokens, t.audiences
	}
	return nil
}

// setTokenKeys has tokens signed by key from now on, and those of key and old
// believed. It is called at the start, and by one goroutine afterwards.
func (cp *ControlPlane) setTokenKeys(key crypto.Signer, old []crypto.PublicKey) error {
	t, id := cp.tokens, cp.cfg.Identity
	keys, err := token.NewKeySet(append([]crypto.PublicKey{key.Public()}, old...)...)
	if err != nil {
		return err
	}
	issuer, err := token.NewIssuer(token.IssuerConfig{URL: id.Issuer, Key: key, Audiences: t.audiences, MaxLifetime: id.MaxTokenLife, Rand: cp.cfg.Rand})
	if err != nil {
		return err
	}
	docs, err := newTokenDocuments(id, keys)
	if err != nil {
		return err
	}
	// A token is believed before the first of its key is signed.
	if t.verifier == nil {
		t.verifier, err = token.NewVerifier(token.VerifierConfig{
			Issuers: append([]string{id.Issuer}, id.OldIssuers...), Audiences: t.audiences, Keys: keys,
			Objects: boundObjects{cp}, Secrets: newTokenSecrets(cp), Clock: cp.cfg.Clock,
		})
		if err != nil {
			return err
		}
	} else {
		t.verifier.SetKeys(keys)
	}
	t.documents.Store(docs)
	t.issuer.Store(issuer)
	return nil
}

// bootstrapSecret reads the Secret of a bootstrap token.
func (cp *ControlPlane) bootstrapSecret(ctx context.Context, name string) (*corev1.Secret, error) {
	return cp.secret(ctx, bootstraptoken.Namespace, name)
}

// secret reads a Secret consistently, nil when there is none. It is shared.
func (cp *ControlPlane) secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	res := cp.resource(corev1.SchemeGroupVersion.WithResource("secrets"))
	o, err := cp.registry.Get(ctx, registry.Request{Resource: res, Namespace: namespace, Name: name}, "")
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

func newTokenDocuments(id *Identity, keys *token.KeySet) (*tokenDocuments, error) {
	uri := id.JWKSURI
	if uri == "" {
		uri = id.Issuer + "/openid/v1/jwks"
	}
	jwks, err := keys.JWKS()
	if err != nil {
		return nil, err
	}
	discovery, err := keys.Discovery(id.Issuer, uri)
	return &tokenDocuments{discovery: discovery, keys: jwks}, err
}

// paths serves the documents that others verify tokens with.
func (t *tokens) paths() map[string]http.Handler {
	return map[string]http.Handler{
		"/.well-known/openid-configuration": document("application/json", func() []byte { return t.documents.Load().discovery }),
		"/openid/v1/jwks":                   document("application/jwk-set+json", func() []byte { return t.documents.Load().keys }),
	}
}

func document(contentType string, body func() []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		if _, err := w.Write(body()); err != nil {
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
