package controlplane

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"

	"coracle/pkg/admission"
	"coracle/pkg/apiserver"
	"coracle/pkg/apiserver/nodeproxy"
	"coracle/pkg/auth"
	"coracle/pkg/pki"
	"coracle/pkg/registry"
)

// Identity is what the control plane knows clients by.
type Identity struct {
	// Clients are the authorities whose client certificates count.
	Clients *pki.LivePool
	// asked are the authorities of whose certificates clients are asked for one:
	// Clients, and those of front proxies. Set by ask.
	asked pki.LivePool
	// ClientCA is their PEM bundle, which servers behind this one are told.
	ClientCA []byte
	// Revoked are client certificates that are refused; nil are none.
	Revoked *pki.Revoked
	// FrontProxy is how this server vouches for users; nil knows no front proxies
	// and shows none to the servers behind it.
	FrontProxy *FrontProxy
	// Issuer is the URL in service account tokens.
	Issuer string
	// OldIssuers are believed in tokens besides. Audiences are the API server's own
	// names, Issuer when there are none; JWKSURI is where the keys are to be found,
	// empty for below the issuer; MaxTokenLife is zero for a day.
	OldIssuers, Audiences []string
	JWKSURI               string
	MaxTokenLife          time.Duration
	// TokenKey signs service account tokens; OldTokenKeys still verify.
	TokenKey     crypto.Signer
	OldTokenKeys []crypto.PublicKey
	// TokenFile knows the tokens of a file; nil knows none.
	TokenFile *auth.TokenFile
	// Kubelet is how nodes' agents are talked to: a client certificate and
	// their authorities. Nil serves no logs, exec, attach or port-forward.
	Kubelet *tls.Config
	// CA signs approved CertificateSigningRequests, and in place of those of
	// Kubelet its authorities are the agents'; nil signs none.
	CA *pki.LiveCA
	// RootCA is the PEM bundle that pods verify the API server with; nil is none.
	RootCA *pki.Bundle
}

// ask has clients asked for certificates of the bundle's authorities, and of front
// proxies', from the next connection on.
func (id *Identity) ask(bundle []byte) error {
	if id.FrontProxy != nil {
		bundle = slices.Concat(bundle, []byte("\n"), id.FrontProxy.CA.Bytes())
	}
	if len(bundle) == 0 {
		return nil
	}
	return id.asked.Set(bundle)
}

// Version is the Kubernetes version this control plane behaves as.
func Version() version.Info {
	return version.Info{
		Major: "1", Minor: "37", GitVersion: "v1.37.2+coracle", GitTreeState: "clean",
		GoVersion: goVersion(), Compiler: "gc", Platform: platform(),
	}
}

// identify sets the parts of the server's configuration that follow from
// cfg.Identity.
func (cp *ControlPlane) identify(server *apiserver.Config) error {
	id := cp.cfg.Identity
	if id == nil {
		server.Authenticator = auth.New(auth.Config{Anonymous: cp.cfg.Anonymous})
		return nil
	}
	cp.clientCA.Store(&id.ClientCA)
	cp.revoked.Store(id.Revoked)
	authn := auth.Config{Anonymous: cp.mayBeNobody}
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
	if err := cp.identifyTokens(id, server, &authn); err != nil {
		return err
	}
	server.Authenticator = auth.WithoutCertificates(auth.New(authn), func(c *x509.Certificate) bool {
		list := cp.revoked.Load()
		return list != nil && list.Has(c)
	})
	if cp.cfg.strict.noMasters {
		server.Authenticator = auth.WithoutGroup(server.Authenticator, auth.GroupMasters)
	}
	return nil
}

// kubeletClient is the API server's identity towards nodes' agents.
func (o *ServeOptions) kubeletClient(files *Files) (*tls.Config, error) {
	live := &pki.Live{}
	// A user whom RBAC lets into agents, and no administrator: where a node leads
	// the server to is the node's word.
	request := pki.Request{CommonName: auth.UserKubeletClient, ClientAuth: true}
	err := o.keep(files, &pki.Keeper{Dir: files.PKI, Name: "apiserver-kubelet-client", CA: files.CA,
		Request: func() pki.Request { return request }, Live: live})
	if err != nil {
		return nil, fmt.Errorf("the API server's client certificate for nodes: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetClientCertificate: live.GetClientCertificate, RootCAs: files.CA.Pool().Pool()}, nil
}

// newProxy reaches nodes' agents, and pods and Services through them.
func (cp *ControlPlane) newProxy() *nodeproxy.Proxy {
	cfg := nodeproxy.Config{
		Log: cp.cfg.Log, Object: cp.object, Slices: cp.slices, Dial: cp.cfg.DialBackend, Own: cp.own,
		Admit: func(ctx context.Context, req registry.Request, options runtime.Object) error {
			return cp.registry.Admit(ctx, admission.Connect, req, options, registry.WriteOptions{}, nil)
		},
	}
	if cp.cfg.Identity != nil {
		cfg.TLS = cp.cfg.Identity.Kubelet
		if ca := cp.cfg.Identity.CA; ca != nil {
			cfg.Roots = ca.Pool().Pool
		}
	}
	return nodeproxy.New(cfg)
}

// own says that an address leads to the API, or to a Service, which may be the
// API's.
func (cp *ControlPlane) own(to netip.AddrPort) bool {
	return cp.cfg.ServiceCIDR.Contains(to.Addr()) || to == cp.cfg.Advertise
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
