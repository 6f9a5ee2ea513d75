package certificate

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"coracle/pkg/controlplane"
	"coracle/pkg/pki"
	"coracle/pkg/testcluster"
)

// joiner is the group whose requests for a node's first certificate are approved.
const joiner = "system:bootstrappers:kubeadm:default-node-token"

// bubble runs body in synthetic time against a control plane that signs for one
// hour and, with roles, approves.
func bubble(t *testing.T, roles bool, body func(t *testing.T, c *testcluster.Cluster)) {
	synctest.Test(t, func(t *testing.T) {
		ca := authority(t, time.Now())
		body(t, testcluster.Start(t, testcluster.WithConfig(func(cfg *controlplane.Config) {
			cfg.Roles, cfg.BootstrapTokens, cfg.Rand = roles, true, rand.Reader
			cfg.Identity = &controlplane.Identity{CA: pki.FixedCA(ca), RootCA: pki.NewBundle(ca.CertPEM())}
		})))
	})
}

// manager is that of the node a's client certificate. It asks as somebody who
// joins until it is the node.
func manager(t *testing.T, c *testcluster.Cluster, dir string) (*Manager, *pki.Live) {
	t.Helper()
	live := &pki.Live{}
	m, err := New(Config{
		Dir: dir, Name: "client", Live: live, Lifetime: time.Hour,
		Signer: certificatesv1.KubeAPIServerClientKubeletSignerName, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		Want: func() *x509.CertificateRequest {
			return &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:a", Organization: []string{"system:nodes"}}}
		},
		Client: func(current *x509.Certificate) (kubernetes.Interface, error) {
			if current == nil {
				return kubernetes.NewForConfig(c.As("system:bootstrap:abcdef", "system:bootstrappers", joiner))
			}
			return kubernetes.NewForConfig(c.As("system:node:a", "system:nodes"))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m, live
}

// start runs a manager and returns what ends it.
func start(t *testing.T, m *Manager) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func requests(t *testing.T, c *testcluster.Cluster) []certificatesv1.CertificateSigningRequest {
	t.Helper()
	list, err := c.Client.CertificatesV1().CertificateSigningRequests().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// TestJoinsAndRenews: a node that has nothing but a token gets a certificate and
// renews it in time, again and again, and after a restart goes on with the last.
func TestJoinsAndRenews(t *testing.T) {
	bubble(t, true, func(t *testing.T, c *testcluster.Cluster) {
		dir := filepath.Join(t.TempDir(), "pki")
		m, live := manager(t, c, dir)
		stop := start(t, m)
		<-m.Ready()
		seen := map[string]bool{}
		for range 3 * 60 {
			time.Sleep(time.Minute)
			leaf := live.Leaf()
			if now := time.Now(); now.After(leaf.NotAfter) {
				t.Fatalf("at %s the certificate has expired, at %s", now, leaf.NotAfter)
			}
			if age := time.Since(leaf.NotBefore); age > 60*time.Minute { // 90 % of 65 minutes, and a look each minute
				t.Fatalf("a certificate for an hour is not renewed after %s", age)
			}
			seen[leaf.SerialNumber.String()] = true
		}
		if len(seen) < 3 || len(seen) > 6 {
			t.Errorf("%d certificates in three hours", len(seen))
		}
		stop()
		info, err := os.Stat(File(dir, "client"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the file has mode %v, %v", info.Mode(), err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("left behind: %v, %v", left, err)
		}
		before := len(requests(t, c))
		again, fresh := manager(t, c, dir)
		<-again.Ready()
		if !fresh.Leaf().Equal(live.Leaf()) {
			t.Error("after a restart it is another certificate")
		}
		defer start(t, again)()
		synctest.Wait()
		if n := len(requests(t, c)); n != before {
			t.Errorf("a restart made %d requests", n-before)
		}
	})
}

func decide(t *testing.T, c *testcluster.Cluster, r *certificatesv1.CertificateSigningRequest, what certificatesv1.RequestConditionType) {
	t.Helper()
	r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: what, Status: corev1.ConditionTrue, Reason: "Test"})
	if _, err := c.Client.CertificatesV1().CertificateSigningRequests().UpdateApproval(t.Context(), r.Name, r, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestRestartWhileWaiting: an agent that ends while its request waits finds it
// again; one that is refused asks anew, with another key.
func TestRestartWhileWaiting(t *testing.T) {
	bubble(t, false, func(t *testing.T, c *testcluster.Cluster) {
		dir := t.TempDir()
		var first []certificatesv1.CertificateSigningRequest
		for range 3 {
			m, _ := manager(t, c, dir)
			stop := start(t, m)
			time.Sleep(time.Minute)
			first = requests(t, c)
			stop()
			if len(first) != 1 {
				t.Fatalf("%d requests", len(first))
			}
		}
		m, live := manager(t, c, dir)
		defer start(t, m)()
		time.Sleep(time.Second)
		decide(t, c, &first[0], certificatesv1.CertificateDenied)
		time.Sleep(time.Minute)
		all := requests(t, c)
		if len(all) != 2 || live.Leaf() != nil {
			t.Fatalf("after a refusal there are %d requests, want another", len(all))
		}
		next := all[0]
		if next.Name == first[0].Name {
			next = all[1]
		}
		// A certificate for another key is not taken.
		other := issue(t, authority(t, time.Now()), pki.Request{CommonName: "system:node:a", Organization: []string{"system:nodes"}, ClientAuth: true}, time.Now())
		decide(t, c, &next, certificatesv1.CertificateApproved)
		sign(t, c, next.Name, other.CertPEM)
		time.Sleep(time.Minute)
		if live.Leaf() != nil {
			t.Error("a certificate for another key is in force")
		}
		if n := len(requests(t, c)); n != 3 {
			t.Errorf("%d requests, want a third", n)
		}
	})
}

func sign(t *testing.T, c *testcluster.Cluster, name string, cert []byte) {
	t.Helper()
	client := c.Client.CertificatesV1().CertificateSigningRequests()
	r, err := client.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.Status.Certificate = cert
	if _, err := client.UpdateStatus(t.Context(), r, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedFile: what cannot be read is replaced.
func TestDamagedFile(t *testing.T) {
	bubble(t, true, func(t *testing.T, c *testcluster.Cluster) {
		dir := t.TempDir()
		if err := os.WriteFile(File(dir, "client"), []byte("-----BEGIN CERTIFICATE-----\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		m, live := manager(t, c, dir)
		defer start(t, m)()
		<-m.Ready()
		stored, err := store{dir, "client"}.load()
		if err != nil || !stored.Cert.Equal(live.Leaf()) {
			t.Errorf("stored is %v, %v", stored, err)
		}
	})
}

// TestKeyIsNotUsedTwice: a crash between the writing of a certificate and the
// removal of its key does not make the next certificate one for the same key.
func TestKeyIsNotUsedTwice(t *testing.T) {
	s := store{t.TempDir(), "x"}
	key, keyPEM, err := s.pendingKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, again, err := s.pendingKey(rand.Reader); err != nil || string(again) != string(keyPEM) {
		t.Errorf("while it is waited for, the key changes (%v)", err)
	}
	ca := authority(t, begin)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.SignCSR(pki.SignerAPIServerClient, csr, []string{"client auth"}, 0, begin, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := pki.ParsePair(cert, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.save(pair); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.pending(), keyPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, next, err := s.pendingKey(rand.Reader); err != nil || string(next) == string(keyPEM) {
		t.Errorf("the key is used again (%v)", err)
	}
}
