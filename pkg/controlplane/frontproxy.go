package controlplane

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/auth"
	"coracle/pkg/auth/policy"
	"coracle/pkg/pki"
)

// FrontProxy is how the API server vouches for users towards the servers that it
// passes requests on to, and whom it believes the same of.
type FrontProxy struct {
	// CA is the PEM bundle of the authorities of front proxies. They are for
	// nothing else: who has a certificate of theirs names any user.
	CA *pki.Bundle
	// AllowedNames are the common names that are front proxies; empty means all
	// of CA's.
	AllowedNames []string
	// Client is the API server's own certificate of CA.
	Client *pki.Live
}

// frontProxyName is the common name of the certificate that the server issues
// itself.
const (
	frontProxyName      = "front-proxy-client"
	frontProxyAuthority = "coracle-front-proxy" // of the authority
)

// frontProxy loads the certificates of the flags, or makes those of a folder.
func (o *ServeOptions) frontProxy(files *Files) (*FrontProxy, error) {
	f := &FrontProxy{AllowedNames: o.RequestHeaderAllowedNames, Client: &pki.Live{}}
	switch {
	case o.RequestHeaderCAFile != "":
		bundle, err := os.ReadFile(o.RequestHeaderCAFile)
		if err != nil {
			return nil, fmt.Errorf("read --requestheader-client-ca-file: %w", err)
		}
		if _, err := pki.ParseCertificates(bundle); err != nil {
			return nil, fmt.Errorf("read --requestheader-client-ca-file: %w", err)
		}
		f.CA = pki.NewBundle(bundle)
	case files.CA == nil:
		return nil, nil
	default:
		a, err := pki.LoadAuthorities(files.PKI, pki.FrontProxyCA, frontProxyAuthority, o.Clock.Now(), o.Rand)
		if err != nil {
			return nil, err
		}
		files.frontCA = pki.NewLiveCA(a)
		f.CA, f.AllowedNames = pki.NewBundle(a.Bundle()), []string{frontProxyName}
		request := pki.Request{CommonName: frontProxyName, ClientAuth: true}
		if o.ProxyClientCertFile == "" {
			return f, o.keep(files, &pki.Keeper{Dir: files.PKI, Name: "front-proxy-client", CA: files.frontCA,
				Request: func() pki.Request { return request }, Live: f.Client})
		}
	}
	if o.ProxyClientCertFile == "" {
		return f, nil
	}
	cert, err := os.ReadFile(o.ProxyClientCertFile)
	if err != nil {
		return nil, fmt.Errorf("read --proxy-client-cert-file: %w", err)
	}
	key, err := os.ReadFile(o.ProxyClientKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read --proxy-client-key-file: %w", err)
	}
	files.reloads = append(files.reloads, &reload{what: "the front proxy's certificate", files: []string{o.ProxyClientCertFile, o.ProxyClientKeyFile},
		apply: func(context.Context, *ControlPlane) error {
			return loadPair(f.Client, o.ProxyClientCertFile, o.ProxyClientKeyFile)
		}})
	return f, f.Client.Set(cert, key)
}

// authenticator believes front proxies.
func (f *FrontProxy) authenticator(cp *ControlPlane) (*auth.FrontProxy, error) {
	var roots pki.LivePool
	if err := roots.Set(f.CA.Bytes()); err != nil {
		return nil, fmt.Errorf("read the authorities of front proxies: %w", err)
	}
	f.CA.Follow(func() {
		if err := roots.Set(f.CA.Bytes()); err != nil {
			cp.cfg.Log.Error("the new authorities of front proxies are not in force", "error", err)
		}
	})
	return &auth.FrontProxy{Roots: roots.Pool, AllowedNames: f.AllowedNames, Clock: cp.cfg.Clock}, nil
}

// setClientCA replaces the authorities of client certificates, here and for the
// servers behind this one. What is under way under a certificate of one that is
// trusted no more ends.
func (cp *ControlPlane) setClientCA(ctx context.Context, bundle []byte) error {
	id := cp.cfg.Identity
	before := id.Clients.Pool()
	if err := errors.Join(id.Clients.Set(bundle), id.ask(bundle)); err != nil {
		return err
	}
	cp.clientCA.Store(&bundle)
	now := cp.cfg.Clock.Now()
	if n := cp.connections.end(func(c *x509.Certificate) bool {
		return vouchedFor(c, before, now) && !vouchedFor(c, id.Clients.Pool(), now)
	}); n > 0 {
		cp.cfg.Log.Info("connections under authorities that are trusted no more are closed", "connections", n)
	}
	wanted, err := cp.authenticationConfig()
	if err != nil {
		return err
	}
	return cp.ensureAll(auth.WithUser(ctx, self()), wanted)
}

// vouchedFor says whether one of the roots has issued the certificate itself.
func vouchedFor(c *x509.Certificate, roots *x509.CertPool, now time.Time) bool {
	if roots == nil {
		return false
	}
	_, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

// authenticationConfig is where servers behind this one read whom they are to
// believe.
func (cp *ControlPlane) authenticationConfig() ([]wantedObject, error) {
	id := cp.cfg.Identity
	if id == nil {
		return nil, nil
	}
	data := map[string]string{}
	if ca := cp.clientCA.Load(); ca != nil && len(*ca) > 0 {
		data["client-ca-file"] = string(*ca)
	}
	if f := id.FrontProxy; f != nil {
		data["requestheader-client-ca-file"] = string(f.CA.Bytes())
		names := f.AllowedNames
		if names == nil {
			names = []string{}
		}
		for key, values := range map[string][]string{
			"requestheader-allowed-names": names, "requestheader-username-headers": {"X-Remote-User"},
			"requestheader-uid-headers": {"X-Remote-Uid"}, "requestheader-group-headers": {"X-Remote-Group"},
			"requestheader-extra-headers-prefix": {"X-Remote-Extra-"},
		} {
			text, err := json.Marshal(values)
			if err != nil {
				return nil, err
			}
			data[key] = string(text)
		}
	}
	if len(data) == 0 {
		return nil, nil
	}
	return []wantedObject{{
		gvr: corev1.SchemeGroupVersion.WithResource("configmaps"),
		obj: &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "extension-apiserver-authentication", Namespace: metav1.NamespaceSystem}, Data: data},
		merge: func(current runtime.Object) (runtime.Object, policy.Action) {
			m := current.(*corev1.ConfigMap)
			changed := !maps.Equal(m.Data, data)
			m.Data = data
			return m, updateIf(changed)
		},
	}}, nil
}
