package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"coracle/pkg/controlplane"
	"coracle/pkg/kubelet/certificate"
	"coracle/pkg/nodeconfig"
	"coracle/pkg/pki"
	"coracle/pkg/storage/memory"
)

// api is a control plane with TLS that signs.
type api struct {
	admin *kubernetes.Clientset
	url   string
	ca    *pki.CA
	pki   string // its folder of keys
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within waits until check passes.
func within(t *testing.T, what string, check func() error) {
	t.Helper()
	err := check()
	for deadline := time.Now().Add(2 * time.Minute); err != nil && time.Now().Before(deadline); err = check() {
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func serve(t *testing.T) *api {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() {
		done <- controlplane.Serve(ctx, controlplane.ServeOptions{
			Config:  controlplane.Config{Backend: memory.New(memory.Config{}), SoleWriter: true, Roles: true, BootstrapTokens: true},
			DataDir: dir, BindAddress: "127.0.0.1", ReloadEvery: 20 * time.Millisecond,
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server: %v", err)
		}
	})
	a := &api{pki: filepath.Join(dir, "pki")}
	within(t, "the API server is ready", func() error {
		config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "admin.kubeconfig"))
		if err != nil {
			return err
		}
		config.QPS = -1
		a.url, a.admin = config.Host, kubernetes.NewForConfigOrDie(config)
		_, err = a.admin.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(t.Context())
		return err
	})
	var err error
	a.ca, err = pki.LoadOrCreateCA(filepath.Join(dir, "pki"), "ca", "", time.Now(), rand.Reader)
	must(t, err)
	return a
}

// node configures the agent of the node n1, whose files are in a new folder.
func (a *api) node(t *testing.T) (conf *nodeconfig.Kubelet, dir string) {
	t.Helper()
	dir = t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "ca.crt"), a.ca.CertPEM(), 0o600))
	return &nodeconfig.Kubelet{
		NodeName: "n1", NodeIP: netip.MustParseAddr("192.0.2.1"), RotateCertificates: true, CertDir: filepath.Join(dir, "pki"),
		ClientCAFile: filepath.Join(dir, "ca.crt"), Kubeconfig: filepath.Join(dir, "kubeconfig"),
	}, dir
}

// kubeconfig writes a kubeconfig whose user is given.
func (a *api) kubeconfig(t *testing.T, file string, user *clientcmdapi.AuthInfo) {
	t.Helper()
	c := clientcmdapi.NewConfig()
	c.Clusters["c"] = &clientcmdapi.Cluster{Server: a.url, CertificateAuthority: "ca.crt"}
	c.AuthInfos["c"], c.CurrentContext = user, "c"
	c.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "c"}
	must(t, clientcmd.WriteToFile(*c, file))
}

// run runs an identity until the test ends.
func (id *identity) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	g, ctx := errgroup.WithContext(ctx)
	id.start(ctx, g)
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	if !id.await(ctx) {
		t.Fatal("no identity")
	}
}

// register makes the Node object, as the agent does.
func (id *identity) register(t *testing.T) {
	t.Helper()
	n, err := id.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, metav1.CreateOptions{})
	must(t, err)
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}, {Type: corev1.NodeHostName, Address: "n1"}}
	_, err = id.client.CoreV1().Nodes().UpdateStatus(t.Context(), n, metav1.UpdateOptions{})
	must(t, err)
}

// whoami is the name of the agent at the API server, and the credential that it
// showed.
func (id *identity) whoami(t *testing.T) (name, credential string) {
	t.Helper()
	r, err := id.client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	must(t, err)
	return r.Status.UserInfo.Username, strings.Join(r.Status.UserInfo.Extra["authentication.kubernetes.io/credential-id"], " ")
}

// shown returns what shows the certificate that a server with this identity shows
// to a client that verifies it.
func (id *identity) shown(t *testing.T, ca *pki.CA) func() (*x509.Certificate, error) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", id.serving)
	must(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.(*tls.Conn).Handshake() // the client reports it
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-ended })
	return func() (*x509.Certificate, error) {
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: ca.Pool(), ServerName: "n1"})
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0], nil
	}
}

// TestJoin: with a bootstrap token and nothing else a node gets both certificates,
// and after a restart it has them without the token.
func TestJoin(t *testing.T) {
	a := serve(t)
	_, err := a.admin.CoreV1().Secrets("kube-system").Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-abcdef"}, Type: "bootstrap.kubernetes.io/token",
		StringData: map[string]string{"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
			"auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token"},
	}, metav1.CreateOptions{})
	must(t, err)
	conf, dir := a.node(t)
	conf.BootstrapKubeconfig = filepath.Join(dir, "bootstrap")
	a.kubeconfig(t, conf.BootstrapKubeconfig, &clientcmdapi.AuthInfo{Token: "abcdef.0123456789abcdef"})
	id, err := newIdentity(conf, slog.New(slog.DiscardHandler))
	must(t, err)
	id.run(t)
	if name, _ := id.whoami(t); name != "system:node:n1" {
		t.Errorf("the agent is %s", name)
	}
	show := id.shown(t, a.ca)
	if cert, err := show(); err == nil {
		t.Errorf("a node that has no Node object shows %v", cert.Subject)
	}
	id.register(t)
	within(t, "the serving certificate is there", func() error {
		cert, err := show()
		if err != nil {
			return err
		}
		if err := cert.VerifyHostname("192.0.2.1"); err != nil {
			t.Error(err)
		}
		return nil
	})
	conf.BootstrapKubeconfig = filepath.Join(dir, "gone")
	again, err := newIdentity(conf, slog.New(slog.DiscardHandler))
	must(t, err)
	if name, _ := again.whoami(t); name != "system:node:n1" {
		t.Errorf("after a restart the agent is %s", name)
	}
	if _, err := again.shown(t, a.ca)(); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// TestAuthorityIsReplaced: the agent of a node that joined by itself goes on while
// the cluster's authority is replaced: it learns of the new one, gets certificates of
// it, and forgets the old.
func TestAuthorityIsReplaced(t *testing.T) {
	a := serve(t)
	_, err := a.admin.CoreV1().Secrets("kube-system").Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-abcdef"}, Type: "bootstrap.kubernetes.io/token",
		StringData: map[string]string{"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
			"auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token"},
	}, metav1.CreateOptions{})
	must(t, err)
	conf, dir := a.node(t)
	conf.BootstrapKubeconfig = filepath.Join(dir, "bootstrap")
	c := clientcmdapi.NewConfig() // as "ctl join" writes it: the authority is in it
	c.Clusters["c"] = &clientcmdapi.Cluster{Server: a.url, CertificateAuthorityData: a.ca.CertPEM()}
	c.AuthInfos["c"], c.CurrentContext = &clientcmdapi.AuthInfo{Token: "abcdef.0123456789abcdef"}, "c"
	c.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "c"}
	must(t, clientcmd.WriteToFile(*c, conf.BootstrapKubeconfig))
	id, err := newIdentity(conf, slog.New(slog.DiscardHandler))
	must(t, err)
	id.trust.every = 20 * time.Millisecond
	id.run(t)
	id.register(t)
	known := func(n int) func() error {
		return func() error {
			if got := len(id.trust.authorities()); got != n {
				return fmt.Errorf("%d authorities", got)
			}
			own, err := ownConfig(conf.Kubeconfig)
			if err != nil {
				return err
			}
			if got := strings.Count(string(own.CAData), "BEGIN CERTIFICATE"); got != n {
				return fmt.Errorf("%d authorities in the kubeconfig", got)
			}
			return nil
		}
	}
	rotate := func(to pki.Phase) *pki.CA {
		t.Helper()
		must(t, pki.Rotate(a.pki, pki.ClusterCA, to, time.Now(), rand.Reader))
		now, err := pki.LoadAuthorities(a.pki, pki.ClusterCA, "", time.Now(), rand.Reader)
		must(t, err)
		return now.Signer
	}
	within(t, "the serving certificate is there", func() error { _, err := id.shown(t, a.ca)(); return err })
	rotate(pki.Trusting)
	within(t, "both authorities are known", known(2))
	fresh := rotate(pki.Issuing)
	within(t, "both certificates are of the new authority", func() error {
		for _, name := range []string{clientName, servingName} {
			data, err := os.ReadFile(certificate.File(conf.CertDir, name))
			if err != nil {
				return err
			}
			certs, err := pki.ParseCertificates(data)
			if err != nil {
				return err
			}
			if err := certs[0].CheckSignatureFrom(fresh.Cert); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
	rotate(pki.Steady)
	within(t, "the old authority is forgotten", known(1))
	if name, _ := id.whoami(t); name != "system:node:n1" {
		t.Errorf("the agent is %s", name)
	}
	if _, err := id.shown(t, fresh)(); err != nil {
		t.Errorf("the serving certificate: %v", err)
	}
	again, err := newIdentity(conf, slog.New(slog.DiscardHandler))
	must(t, err)
	if name, _ := again.whoami(t); name != "system:node:n1" {
		t.Errorf("after a restart the agent is %s", name)
	}
}

// TestRenewal: certificates that are due are replaced while the agent runs. A
// watch that began under the old one goes on, and requests have the new one.
func TestRenewal(t *testing.T) {
	a := serve(t)
	conf, dir := a.node(t)
	old := time.Now().Add(-95 * time.Hour)
	for name, r := range map[string]pki.Request{
		"client":  {ClientAuth: true},
		"serving": {ServerAuth: true, DNSNames: []string{"n1"}, IPs: []net.IP{{192, 0, 2, 1}}},
	} {
		r.CommonName, r.Organization, r.Lifetime = "system:node:n1", []string{"system:nodes"}, 100*time.Hour
		long := *a.ca.Cert
		long.NotBefore = old // so that it issues what it might have issued then
		ca := &pki.CA{Cert: &long, Key: a.ca.Key}
		pair, err := ca.Issue(r, old, rand.Reader)
		must(t, err)
		must(t, pki.WriteFile(pki.CertFile(dir, name), pair.CertPEM, 0o600))
		must(t, pki.WriteFile(pki.KeyFile(dir, name), pair.KeyPEM, 0o600))
	}
	a.kubeconfig(t, conf.Kubeconfig, &clientcmdapi.AuthInfo{ClientCertificate: pki.CertFile(dir, "client"), ClientKey: pki.KeyFile(dir, "client")})
	conf.ServingCertFile, conf.ServingKeyFile = pki.CertFile(dir, "serving"), pki.KeyFile(dir, "serving")
	id, err := newIdentity(conf, slog.New(slog.DiscardHandler))
	must(t, err)
	id.register(t)
	show := id.shown(t, a.ca)
	servedBefore, err := show()
	must(t, err)
	name, before := id.whoami(t)
	if name != "system:node:n1" || before == "" {
		t.Fatalf("the agent is %s with %q", name, before)
	}
	w, err := id.client.CoreV1().Nodes().Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=n1"})
	must(t, err)
	defer w.Stop()
	id.run(t)
	within(t, "requests have a new certificate", func() error {
		if name, after := id.whoami(t); name != "system:node:n1" || after == before {
			return fmt.Errorf("%s has %s", name, after)
		}
		return nil
	})
	within(t, "the server shows a new certificate", func() error {
		if cert, err := show(); err != nil || cert.Equal(servedBefore) {
			return fmt.Errorf("the same one (%v)", err)
		}
		return nil
	})
	_, err = a.admin.CoreV1().Nodes().Patch(t.Context(), "n1", "application/merge-patch+json", []byte(`{"metadata":{"labels":{"seen":"yes"}}}`), metav1.PatchOptions{})
	must(t, err)
	deadline := time.After(time.Minute)
	for {
		select {
		case e, open := <-w.ResultChan():
			if !open {
				t.Fatal("the watch was cut off")
			}
			if n, ok := e.Object.(*corev1.Node); ok && n.Labels["seen"] == "yes" {
				return
			}
		case <-deadline:
			t.Fatal("the watch is silent")
		}
	}
}

func TestWithoutRotation(t *testing.T) {
	a := serve(t)
	conf, dir := a.node(t)
	conf.RotateCertificates = false
	a.kubeconfig(t, conf.Kubeconfig, &clientcmdapi.AuthInfo{Token: "x"})
	conf.ServingCertFile, conf.ServingKeyFile = pki.CertFile(dir, "serving"), pki.KeyFile(dir, "serving")
	if _, err := newIdentity(conf, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "serving.crt") {
		t.Errorf("without a serving certificate: %v", err)
	}
}
