package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// authority is a CA made for one test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, cert: cert, key: key, pool: x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

func (a *authority) issue(subject pkix.Name, use x509.ExtKeyUsage) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{use}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// node stands for the rest of the agent.
type node struct {
	pods       []*corev1.Pod
	containers map[string]Container // by name
	stats      []*runtimeapi.ContainerStats
	url        func(req any) (string, error)
}

func (n *node) Pods() []*corev1.Pod { return n.pods }

func (n *node) Pod(namespace, name string) (*corev1.Pod, bool) {
	for _, p := range n.pods {
		if p.Namespace == namespace && p.Name == name {
			return p, true
		}
	}
	return nil, false
}

func (n *node) Container(_ types.UID, name string, previous bool) (Container, bool) {
	if previous {
		name += "/previous"
	}
	c, ok := n.containers[name]
	return c, ok
}

func (n *node) Sandbox(types.UID) (string, bool) { return "sandbox", true }

func (n *node) Exec(_ context.Context, r *runtimeapi.ExecRequest) (string, error) { return n.url(r) }
func (n *node) Attach(_ context.Context, r *runtimeapi.AttachRequest) (string, error) {
	return n.url(r)
}
func (n *node) PortForward(_ context.Context, r *runtimeapi.PortForwardRequest) (string, error) {
	return n.url(r)
}

func (n *node) ContainerStats(context.Context) ([]*runtimeapi.ContainerStats, error) {
	return n.stats, nil
}

// fixture is a running server with a client for it.
type fixture struct {
	t      *testing.T
	ca     *authority
	node   *node
	addr   string
	cfg    Config
	stop   func()
	client *http.Client

	mu    sync.Mutex
	asked []string // what authorization was asked
	deny  map[string]bool
}

func newFixture(t *testing.T, change ...func(*Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, ca: newAuthority(t), deny: map[string]bool{}}
	f.node = &node{
		pods: []*corev1.Pod{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", UID: "uid"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}, {Name: "waiting"}}},
			Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{
				{Name: "app", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Unix(1000, 0)}}},
				{Name: "waiting", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}},
			}},
		}},
		containers: map[string]Container{"app": {ID: "c1", LogName: "app/1.log", Running: func() bool { return true }}},
		url:        func(any) (string, error) { return "", errors.New("no runtime in this test") },
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = listener.Addr().String()
	f.cfg = Config{
		Listener: listener, NodeName: "node", Pods: f.node, Runtime: f.node, LogDir: t.TempDir(),
		TLS: &tls.Config{Certificates: []tls.Certificate{f.ca.issue(pkix.Name{CommonName: "node"}, x509.ExtKeyUsageServerAuth)}, ClientCAs: f.ca.pool},
		Auth: func(_ context.Context, user string, groups []string, verb, subresource string) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.asked = append(f.asked, verb+" "+subresource)
			if f.deny[user] {
				return errors.New("no")
			}
			return nil
		},
		Token: func(_ context.Context, token string) (string, []string, error) {
			if token != "good" {
				return "", nil, errors.New("bad token")
			}
			return "token-user", nil, nil
		},
	}
	for _, c := range change {
		c(&f.cfg)
	}
	s, err := New(f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(f.stop)
	f.client = f.clientFor(f.ca, "admin")
	return f
}

// clientTLS is the configuration of a client with a certificate of ca.
func (f *fixture) clientTLS(ca *authority, user string) *tls.Config {
	c := &tls.Config{RootCAs: f.ca.pool, NextProtos: []string{"http/1.1"}}
	if ca != nil {
		c.Certificates = []tls.Certificate{ca.issue(pkix.Name{CommonName: user, Organization: []string{"group"}}, x509.ExtKeyUsageClientAuth)}
	}
	return c
}

func (f *fixture) clientFor(ca *authority, user string) *http.Client {
	transport := &http.Transport{TLSClientConfig: f.clientTLS(ca, user)}
	f.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (f *fixture) url(path string) string { return "https://" + f.addr + path }
