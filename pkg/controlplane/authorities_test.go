package controlplane_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	certificatesv1 "k8s.io/api/certificates/v1"

	"coracle/pkg/controlplane"
	"coracle/pkg/pki"
)

// rotating is a server whose authority is replaced.
type rotating struct {
	*testing.T
	pki, dir string
	config   *rest.Config // of the first administrator, who knows the first authority
}

func (r *rotating) rotate(to pki.Phase) *pki.Authorities {
	r.Helper()
	for _, name := range []string{pki.ClusterCA, pki.FrontProxyCA} {
		if err := pki.Rotate(r.pki, name, to, time.Now(), rand.Reader); err != nil {
			r.Fatal(err)
		}
	}
	return r.authorities()
}

func (r *rotating) authorities() *pki.Authorities {
	r.Helper()
	a, err := pki.LoadAuthorities(r.pki, pki.ClusterCA, "", time.Now(), rand.Reader)
	if err != nil {
		r.Fatal(err)
	}
	return a
}

// admin is whoever has the kubeconfig that is on disk now.
func (r *rotating) admin() (kubernetes.Interface, *rest.Config) {
	r.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(r.dir, "admin.kubeconfig"))
	if err != nil {
		r.Fatal(err)
	}
	return kubernetes.NewForConfigOrDie(config), config
}

// serves says whether the server shows a certificate of this authority, and one
// that is known to those who know the others alone.
func (r *rotating) serves(by *pki.CA, known ...*pki.CA) error {
	for _, root := range append(known, by) {
		c, err := tls.Dial("tcp", strings.TrimPrefix(r.config.Host, "https://"), &tls.Config{RootCAs: root.Pool()})
		if err != nil {
			return fmt.Errorf("who knows %s: %w", root.Cert.Subject, err)
		}
		leaf := c.ConnectionState().PeerCertificates[0]
		if err := c.Close(); err != nil {
			return err
		}
		if err := leaf.CheckSignatureFrom(by.Cert); err != nil {
			return err
		}
	}
	return nil
}

// published says whether everybody is told of these authorities, and no others.
func (r *rotating) published(a *pki.Authorities) error {
	client, config := r.admin()
	want := string(a.Bundle())
	if string(config.CAData) != want {
		return fmt.Errorf("the kubeconfig has another authority")
	}
	for _, of := range []struct{ namespace, name, key string }{
		{"default", "kube-root-ca.crt", "ca.crt"}, {"kube-system", "kube-root-ca.crt", "ca.crt"},
		{"kube-system", "extension-apiserver-authentication", "client-ca-file"},
	} {
		m, err := client.CoreV1().ConfigMaps(of.namespace).Get(r.Context(), of.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if m.Data[of.key] != want {
			return fmt.Errorf("%s of %s/%s is another", of.key, of.namespace, of.name)
		}
	}
	m, err := client.CoreV1().ConfigMaps("kube-system").Get(r.Context(), "extension-apiserver-authentication", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if n := strings.Count(m.Data["requestheader-client-ca-file"], "BEGIN CERTIFICATE"); n != len(a.Trusted) {
		return fmt.Errorf("%d authorities of front proxies, want %d", n, len(a.Trusted))
	}
	info, err := client.CoreV1().ConfigMaps("kube-public").Get(r.Context(), "cluster-info", metav1.GetOptions{})
	if err != nil {
		return err
	}
	told, err := clientcmd.Load([]byte(info.Data["kubeconfig"]))
	if err != nil {
		return err
	}
	if string(told.Clusters[""].CertificateAuthorityData) != want {
		return fmt.Errorf("cluster-info has another authority")
	}
	bundles, err := client.CertificatesV1().ClusterTrustBundles().List(r.Context(), metav1.ListOptions{FieldSelector: "spec.signerName=kubernetes.io/kube-apiserver-serving"})
	if err != nil {
		return err
	}
	if len(bundles.Items) != 1 || bundles.Items[0].Spec.TrustBundle != want {
		return fmt.Errorf("%d trust bundles, or another", len(bundles.Items))
	}
	return nil
}

// TestAuthorityIsReplaced: the cluster's authorities are replaced while the server
// runs. Until the last step nobody notices who knows the old one, or has a
// certificate of it; after it, no such certificate counts, not even on connections
// that are open.
func TestAuthorityIsReplaced(t *testing.T) {
	r := &rotating{T: t, dir: t.TempDir()}
	r.pki = filepath.Join(r.dir, "pki")
	r.config = serve(t, r.dir, func(o *controlplane.ServeOptions) {
		o.ReloadEvery, o.Roles, o.BootstrapTokens = 20*time.Millisecond, true, true
	})
	old := r.authorities()
	first := kubernetes.NewForConfigOrDie(r.config)
	w, err := first.CoreV1().Namespaces().Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	namespaces := map[string]bool{}
	// alive says whether clients of the first hour work, by a new connection and by
	// the watch.
	alive := func(name string) error {
		config := rest.CopyConfig(r.config)
		config.UserAgent, config.NextProtos = name, []string{"http/1.1"} // a connection of its own
		_, err := kubernetes.NewForConfigOrDie(config).CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		for e := range w.ResultChan() {
			namespaces[e.Object.(*corev1.Namespace).Name] = true
			if namespaces[name] {
				return nil
			}
		}
		return fmt.Errorf("the watch has ended")
	}
	within(t, "the first authority is published", func() error { return r.published(old) })

	both := r.rotate(pki.Trusting)
	within(t, "both are published", func() error { return r.published(both) })
	if err := r.serves(old.Signer); err != nil {
		t.Errorf("while both are to be trusted: %v", err)
	}
	if err := alive("trusting"); err != nil {
		t.Error(err)
	}

	fresh := r.rotate(pki.Issuing)
	within(t, "the new one is in front", func() error { return r.published(fresh) })
	within(t, "the server shows a certificate of the new one", func() error { return r.serves(fresh.Signer, old.Signer) })
	if err := alive("issuing"); err != nil {
		t.Error(err)
	}
	client, config := r.admin()
	certs, err := pki.ParseCertificates(config.CertData)
	if err != nil {
		t.Fatal(err)
	}
	if err := certs[0].CheckSignatureFrom(fresh.Signer.Cert); err != nil {
		t.Errorf("the administrator's certificate: %v", err)
	}
	if _, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("the new administrator: %v", err)
	}
	j := newJoiner(t, r.config, "")
	j.client = client
	if err := j.ask(t, "signed", "n1", certificatesv1.KubeAPIServerClientKubeletSignerName, false); err != nil {
		t.Fatal(err)
	}
	within(t, "requests are signed by the new one", func() error {
		csr, err := client.CertificatesV1().CertificateSigningRequests().Get(t.Context(), "signed", metav1.GetOptions{})
		if err != nil {
			return err
		}
		certs, err := pki.ParseCertificates(csr.Status.Certificate)
		if err != nil {
			return err
		}
		return certs[0].CheckSignatureFrom(fresh.Signer.Cert)
	})

	done := r.rotate(pki.Steady)
	for range w.ResultChan() { // it ends
	}
	within(t, "the old one is gone", func() error { return r.published(done) })
	within(t, "the server is known by the new one alone", func() error { return r.serves(fresh.Signer) })
	if r.serves(fresh.Signer, old.Signer) == nil {
		t.Error("the server still shows what the old authority has signed")
	}
	stale := rest.CopyConfig(config)
	stale.CertData, stale.KeyData = r.config.CertData, r.config.KeyData
	if code, _ := ask(t, stale, "GET", "/api/v1/namespaces"); code != 401 {
		t.Errorf("a certificate of the old authority: %d", code)
	}
	pool := x509.NewCertPool()
	pool.AddCert(old.Signer.Cert)
	if err := alive("over"); err == nil {
		t.Error("a client of the first hour still works")
	}
}
