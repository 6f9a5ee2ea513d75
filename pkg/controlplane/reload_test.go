package controlplane_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"coracle/pkg/controlplane"
	"coracle/pkg/pki"
	"coracle/pkg/storage/memory"
)

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := pki.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// signingKey is a new private key in PEM.
func signingKey(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if _, err := pki.LoadOrCreateKey(path, rand.Reader); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func within(t *testing.T, what string, check func() error) {
	t.Helper()
	err := check()
	for deadline := time.Now().Add(time.Minute); err != nil && time.Now().Before(deadline); err = check() {
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// asks says whether the server names the authority when it asks a client for a
// certificate, by which browsers and others choose the one that they show.
func asks(t *testing.T, server *rest.Config, ca *pki.CA) bool {
	t.Helper()
	found := false
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(server.CAData)
	// The request comes before the end of the handshake, whatever the answer.
	conn, err := tls.Dial("tcp", strings.TrimPrefix(server.Host, "https://"), &tls.Config{RootCAs: roots, ServerName: server.ServerName,
		GetClientCertificate: func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			found = slices.ContainsFunc(r.AcceptableCAs, func(name []byte) bool { return bytes.Equal(name, ca.Cert.RawSubject) })
			return new(tls.Certificate), nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	return found
}

// TestFilesAreFollowed: signing keys, the serving certificate and the authorities
// of clients change while the server runs.
func TestFilesAreFollowed(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	authority := func(name string) *pki.CA {
		ca, err := pki.NewCA(name, time.Hour, time.Now(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return ca
	}
	issue := func(ca *pki.CA, r pki.Request) *pki.Pair {
		pair, err := ca.Issue(r, time.Now(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	servers, first, second := authority("servers"), authority("first"), authority("second")
	serving := issue(servers, pki.Request{CommonName: "one", ServerAuth: true, DNSNames: []string{"localhost"}})
	firstKey, secondKey := signingKey(t), signingKey(t)
	put(t, file("tls.crt"), serving.CertPEM)
	put(t, file("tls.key"), serving.KeyPEM)
	put(t, file("clients.crt"), first.CertPEM())
	put(t, file("sign.key"), firstKey)
	put(t, file("verify.pem"), firstKey)

	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() {
		done <- controlplane.Serve(ctx, controlplane.ServeOptions{
			Config:  controlplane.Config{Backend: memory.New(memory.Config{}), SoleWriter: true},
			DataDir: file("data"), BindAddress: "127.0.0.1", ReloadEvery: 20 * time.Millisecond,
			TLSCertFile: file("tls.crt"), TLSKeyFile: file("tls.key"), ClientCAFile: file("clients.crt"),
			ServiceAccountSigningKeyFile: file("sign.key"), ServiceAccountKeyFiles: []string{file("verify.pem")},
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server: %v", err)
		}
	})
	var config *rest.Config
	within(t, "the kubeconfig is there", func() (err error) {
		config, err = clientcmd.BuildConfigFromFlags("", file("data/admin.kubeconfig"))
		return err
	})
	config.CAData, config.ServerName, config.QPS = servers.CertPEM(), "localhost", -1
	admin := kubernetes.NewForConfigOrDie(config)
	if _, err := admin.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	token := func() string {
		r, err := admin.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "robot", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return r.Status.Token
	}
	whoami := func(change func(*rest.Config)) error {
		c := rest.AnonymousClientConfig(config)
		c.QPS = -1
		change(c)
		_, err := kubernetes.NewForConfigOrDie(c).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		return err
	}
	bearer := func(token string) error { return whoami(func(c *rest.Config) { c.BearerToken = token }) }
	keys := func() int {
		data, err := admin.Discovery().RESTClient().Get().AbsPath("/openid/v1/jwks").DoRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(data), `"kid"`)
	}

	// A new signing key: old tokens go on while the old key verifies.
	old := token()
	oldHeader, _, _ := strings.Cut(old, ".")
	if n := keys(); n != 1 {
		t.Errorf("%d keys are published at first", n)
	}
	put(t, file("sign.key"), secondKey)
	within(t, "new tokens are of the new key", func() error {
		if header, _, _ := strings.Cut(token(), "."); header == oldHeader {
			return fmt.Errorf("the header is still %s", header)
		}
		return nil
	})
	if n := keys(); n != 2 {
		t.Errorf("%d keys are published after the rotation", n)
	}
	if err := bearer(old); err != nil {
		t.Errorf("a token of the old key: %v", err)
	}
	put(t, file("sign.key"), []byte("half a file"))
	put(t, file("verify.pem"), secondKey)
	if err := bearer(token()); err != nil {
		t.Errorf("while the files are broken: %v", err)
	}
	put(t, file("sign.key"), secondKey)
	within(t, "the old key is forgotten", func() error {
		if err := bearer(old); !apierrors.IsUnauthorized(err) {
			return fmt.Errorf("its token gives %w", err)
		}
		return nil
	})

	// Another authority of clients.
	jane := func(ca *pki.CA) error {
		pair := issue(ca, pki.Request{CommonName: "jane", ClientAuth: true})
		return whoami(func(c *rest.Config) { c.CertData, c.KeyData = pair.CertPEM, pair.KeyPEM })
	}
	if err := jane(first); err != nil {
		t.Errorf("a client of the first authority: %v", err)
	}
	if err := jane(second); !apierrors.IsUnauthorized(err) {
		t.Errorf("a client of an unknown authority: %v", err)
	}
	if !asks(t, config, first) || asks(t, config, second) {
		t.Error("clients are not asked for a certificate of the first authority alone")
	}
	put(t, file("clients.crt"), second.CertPEM())
	within(t, "the second authority counts", func() error { return jane(second) })
	if asks(t, config, first) || !asks(t, config, second) {
		t.Error("clients are not asked for a certificate of the second authority alone")
	}
	if err := jane(first); !apierrors.IsUnauthorized(err) {
		t.Errorf("a client of the authority that is gone: %v", err)
	}
	within(t, "servers behind this one are told", func() error {
		m, err := admin.CoreV1().ConfigMaps("kube-system").Get(t.Context(), "extension-apiserver-authentication", metav1.GetOptions{})
		if err == nil && !strings.Contains(m.Data["client-ca-file"], strings.TrimSpace(string(second.CertPEM()))) {
			err = fmt.Errorf("client-ca-file is %s", m.Data["client-ca-file"])
		}
		return err
	})

	// A new serving certificate; the key comes after it.
	serving = issue(servers, pki.Request{CommonName: "two", ServerAuth: true, DNSNames: []string{"localhost"}})
	put(t, file("tls.crt"), serving.CertPEM)
	if err := bearer(token()); err != nil {
		t.Errorf("between certificate and key: %v", err)
	}
	put(t, file("tls.key"), serving.KeyPEM)
	within(t, "the new certificate is shown", func() error {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(config.Host, "https://"), &tls.Config{RootCAs: servers.Pool(), ServerName: "localhost"})
		if err != nil {
			return err
		}
		name := conn.ConnectionState().PeerCertificates[0].Subject.CommonName
		if err := conn.Close(); err != nil {
			return err
		}
		if name != "two" {
			return fmt.Errorf("the certificate of %s is shown", name)
		}
		return nil
	})
}
