package controlplane

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"

	"coracle/pkg/admission"
	"coracle/pkg/apiserver"
	"coracle/pkg/apiserver/nodeproxy"
	"coracle/pkg/auth"
	"coracle/pkg/auth/token"
	"coracle/pkg/pki"
	"coracle/pkg/registry"
)

// Identity is what the control plane knows clients by.
type Identity struct {
	// Clients are the authorities whose client certificates count.
	Clients *pki.LivePool
	// ClientCA is their PEM bundle, which servers behind this one are told.
	ClientCA []byte
	// FrontProxy is how this server vouches for users; nil knows no front proxies
	// and shows none to the servers behind it.
	FrontProxy *FrontProxy
	// Issuer is the URL in service account tokens, Audience the API server's
	// own name as a receiver of them.
	Issuer string
	// TokenKey signs service account tokens; OldTokenKeys still verify.
	TokenKey     crypto.Signer
	OldTokenKeys []crypto.PublicKey
	// Kubelet is how nodes' agents are talked to: a client certificate and
	// their authorities. Nil serves no logs, exec, attach or port-forward.
	Kubelet *tls.Config
	// CA signs approved CertificateSigningRequests; nil signs none.
	CA *pki.CA
	// RootCA is the PEM bundle that pods verify the API server with.
	RootCA []byte
}

// Version is the Kubernetes version this control plane behaves as.
func Version() version.Info {
	return version.Info{
		Major: "1", Minor: "37", GitVersion: "v1.37.2+coracle", GitTreeState: "clean",
		GoVersion: goVersion(), Compiler: "gc", Platform: platform(),
	}
}

// tokens joins the issuer and the verifier of service account tokens.
type tokens struct {
	*token.Issuer
	*token.Verifier
	audiences []string
}

func (t tokens) Audiences() []string { return t.audiences }

// identify sets the parts of the server's configuration that follow from
// cfg.Identity.
func (cp *ControlPlane) identify(server *apiserver.Config) error {
	id := cp.cfg.Identity
	if id == nil {
		server.Authenticator = auth.New(auth.Config{Anonymous: auth.AnonymousEverywhere})
		return nil
	}
	authn := auth.Config{Anonymous: auth.AnonymousEverywhere}
	if id.Clients != nil {
		authn.Certificates = &auth.ClientCertificates{Roots: id.Clients.Pool, Clock: cp.cfg.Clock}
	}
	if id.FrontProxy != nil {
		var err error
		if authn.FrontProxy, err = id.FrontProxy.authenticator(cp); err != nil {
			return err
		}
	}
	if id.Kubelet != nil {
		server.Handlers = cp.proxy.Handlers()
	}
	if id.TokenKey != nil {
		t, err := cp.tokens(id)
		if err != nil {
			return err
		}
		server.Tokens = t
		server.Paths, err = oidcPaths(id, t)
		if err != nil {
			return err
		}
		authn.Tokens, authn.Audiences = t, t.audiences
	}
	server.Authenticator = auth.New(authn)
	return nil
}

// kubeletClient is the API server's identity towards nodes' agents.
func (o *ServeOptions) kubeletClient(files *Files) (*tls.Config, error) {
	live := &pki.Live{}
	request := pki.Request{CommonName: "kube-apiserver-kubelet-client", Organization: []string{auth.GroupMasters}, ClientAuth: true}
	err := o.keep(files, &pki.Keeper{Dir: files.PKI, Name: "apiserver-kubelet-client", CA: files.CA,
		Request: func() pki.Request { return request }, Live: live})
	if err != nil {
		return nil, fmt.Errorf("the API server's client certificate for nodes: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetClientCertificate: live.GetClientCertificate, RootCAs: files.CA.Pool()}, nil
}

// newProxy reaches nodes' agents, and pods and Services through them.
func (cp *ControlPlane) newProxy() *nodeproxy.Proxy {
	cfg := nodeproxy.Config{
		Log: cp.cfg.Log, Object: cp.object, Slices: cp.slices, Dial: cp.cfg.DialBackend,
		Admit: func(ctx context.Context, req registry.Request, options runtime.Object) error {
			return cp.registry.Admit(ctx, admission.Connect, req, options, registry.WriteOptions{}, nil)
		},
	}
	if cp.cfg.Identity != nil {
		cfg.TLS = cp.cfg.Identity.Kubelet
	}
	return nodeproxy.New(cfg)
}

// slices reads the endpoint slices of a service.
func (cp *ControlPlane) slices(ctx context.Context, namespace, service string) ([]*discoveryv1.EndpointSlice, error) {
	res := cp.resource(discoveryv1.SchemeGroupVersion.WithResource("endpointslices"))
	page, err := cp.registry.List(ctx, registry.Request{Resource: res, Namespace: namespace},
		registry.ListOptions{Labels: labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: service})})
	if err != nil {
		return nil, err
	}
	out := make([]*discoveryv1.EndpointSlice, 0, len(page.Items))
	for _, o := range page.Items {
		obj, err := registry.Shared(res, o)
		if err != nil {
			return nil, err
		}
		out = append(out, obj.(*discoveryv1.EndpointSlice))
	}
	return out, nil
}

func (cp *ControlPlane) tokens(id *Identity) (tokens, error) {
	audiences := []string{id.Issuer}
	issuer, err := token.NewIssuer(token.IssuerConfig{URL: id.Issuer, Key: id.TokenKey, Audiences: audiences, Rand: cp.cfg.Rand})
	if err != nil {
		return tokens{}, err
	}
	keys, err := token.NewKeySet(append([]crypto.PublicKey{id.TokenKey.Public()}, id.OldTokenKeys...)...)
	if err != nil {
		return tokens{}, err
	}
	verifier, err := token.NewVerifier(token.VerifierConfig{
		Issuers: []string{id.Issuer}, Audiences: audiences, Keys: keys, Objects: boundObjects{cp}, Clock: cp.cfg.Clock,
	})
	return tokens{issuer, verifier, audiences}, err
}

// oidcPaths serves the documents that others verify tokens with.
func oidcPaths(id *Identity, _ tokens) (map[string]http.Handler, error) {
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
