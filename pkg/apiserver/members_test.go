package apiserver_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"coracle/pkg/storage/etcd"
	"coracle/pkg/testcluster"
)

// members are an etcd of three members with an API server on each.
type members struct {
	cfg     []etcd.Config
	stores  []*etcd.Store
	servers []*server
}

// startMembers starts all three.
func startMembers(t *testing.T) *members {
	t.Helper()
	m := &members{cfg: make([]etcd.Config, 3), stores: make([]*etcd.Store, 3), servers: make([]*server, 3)}
	files, urls := peerIdentity(t), map[string]string{}
	for i := range m.cfg {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprint("m", i)
		urls[name] = "https://" + l.Addr().String()
		closeIt(t, l)
		m.cfg[i] = etcd.Config{DataDir: t.TempDir(), Name: name, Members: urls, PeerTLS: files, UnsafeNoFsync: true}
	}
	var wg sync.WaitGroup
	for i := range m.cfg {
		wg.Go(func() { m.startStore(t, i) })
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for i := range m.cfg {
		m.startServer(t, i)
	}
	return m
}

func (m *members) startStore(t *testing.T, i int) {
	store, err := etcd.StartEmbedded(t.Context(), m.cfg[i])
	if err != nil {
		t.Errorf("member %d: %v", i, err)
		return
	}
	m.stores[i] = store
	t.Cleanup(func() { _ = store.Close() }) // it may be closed already
}

func (m *members) startServer(t *testing.T, i int) {
	t.Helper()
	m.servers[i] = newServer(t, testcluster.WithBackend(m.stores[i]), soleWriter(false))
}

// peerIdentity makes the certificate that all members show and trust.
func peerIdentity(t *testing.T) etcd.TLSFiles {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "member"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return etcd.TLSFiles{Cert: cert, Key: key, CA: cert}
}

// checkReadsAcrossLeaders: RV-7. Each of three members of etcd is stopped and
// started again in turn, so that one of the stops took the leader. What clients
// of the others read never goes back, and no revision is given twice.
func checkReadsAcrossLeaders(t *testing.T) {
	m := startMembers(t)
	m.servers[0].makeConfigMap(t, configMap("a", "n", "0"))
	n, last := 0, int64(0)
	given := map[int64]bool{}
	round := func(s *server) {
		t.Helper()
		n++
		body := fmt.Sprintf(`{"data":{"n":"%d"}}`, n)
		// A write may fail while there is no leader; one that did happen is the
		// same write when it is sent again.
		wrote := &corev1.ConfigMap{}
		eventually(t, "no write succeeds", func(context.Context) (bool, error) {
			a := s.do(t, "PATCH", configMaps("/a?timeout=5s"), body, contentType("application/merge-patch+json"))
			if a.code == http.StatusOK {
				a.decode(t, wrote)
			}
			return a.code == http.StatusOK, nil
		})
		rev := revision(t, wrote)
		if rev <= last || given[rev] {
			t.Fatalf("write %d is at %d, after %d", n, rev, last)
		}
		given[rev] = true
		last = rev
		for _, reader := range m.servers {
			if reader == nil {
				continue
			}
			list := &corev1.ConfigMapList{}
			eventually(t, "no list succeeds", func(context.Context) (bool, error) {
				a := reader.do(t, "GET", configMaps("?fieldSelector=metadata.name%%3Da&timeout=5s"), "")
				if a.code == http.StatusOK {
					a.decode(t, list)
				}
				return a.code == http.StatusOK, nil
			})
			if got := revision(t, list); got < last || len(list.Items) != 1 || list.Items[0].Data["n"] != fmt.Sprint(n) {
				t.Fatalf("a list is at %d with %v, after write %d at %d", got, list.Items, n, last)
			}
			last = max(last, revision(t, list))
		}
	}
	for i := range m.servers {
		for _, s := range m.servers {
			round(s)
		}
		m.servers[i].Stop()
		m.servers[i] = nil
		if err := m.stores[i].Close(); err != nil {
			t.Fatal(err)
		}
		for _, s := range slices.Concat(m.servers, m.servers) {
			if s != nil {
				round(s)
			}
		}
		if m.startStore(t, i); t.Failed() {
			return
		}
		m.startServer(t, i)
	}
	round(m.servers[2])
}

// checkPagesAtRate: PG-1. While 500 writes are let go every second, the pages of
// a chain are one snapshot, with dozens of writes between any two of them.
func checkPagesAtRate(t *testing.T) {
	onBackends(t, func(t *testing.T, s *server) {
		const objects, pages, between = 60, 12, 40
		for i := range objects {
			s.makeConfigMap(t, configMap(fmt.Sprintf("c%02d", i), "n", "0"))
		}
		var writes atomic.Int64
		stop := make(chan struct{})
		pace := time.NewTicker(time.Second / 500)
		var writers sync.WaitGroup
		defer func() { close(stop); writers.Wait(); pace.Stop() }()
		for id := range 4 {
			writers.Go(func() {
				for n := id; ; n += 4 {
					select {
					case <-stop:
						return
					case <-pace.C:
					}
					path := configMaps("/c%02d", n%objects)
					if a := s.do(t, "PATCH", path, fmt.Sprintf(`{"data":{"n":"%d"}}`, n+1), contentType("application/merge-patch+json")); a.code != http.StatusOK {
						t.Errorf("writer %d: %d %s", id, a.code, a.body)
						return
					}
					writes.Add(1)
				}
			})
		}
		whole := &corev1.ConfigMapList{}
		token, version := "", ""
		for page := range pages {
			goal := writes.Load() + between
			eventually(t, "the writers stand still", func(context.Context) (bool, error) { return writes.Load() >= goal, nil })
			list := &corev1.ConfigMapList{}
			s.must(t, http.StatusOK, "GET", configMaps("?limit=%d&continue=%s", objects/pages, token), "").decode(t, list)
			if page == 0 {
				version = list.ResourceVersion
			}
			if list.ResourceVersion != version || len(list.Items) != objects/pages {
				t.Fatalf("page %d has %d items at %s, the first is at %s", page, len(list.Items), list.ResourceVersion, version)
			}
			whole.Items = append(whole.Items, list.Items...)
			token = list.Continue
		}
		snapshot := &corev1.ConfigMapList{}
		s.must(t, http.StatusOK, "GET", configMaps("?resourceVersionMatch=Exact&resourceVersion=%s", version), "").decode(t, snapshot)
		if token != "" || !cmp.Equal(snapshot.Items, whole.Items) {
			t.Fatalf("the pages differ from the snapshot at %s: %s", version, cmp.Diff(snapshot.Items, whole.Items))
		}
	})
}
