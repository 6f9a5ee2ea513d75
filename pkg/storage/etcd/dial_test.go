package etcd_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"coracle/pkg/storage"
	"coracle/pkg/storage/etcd"
	"coracle/pkg/storage/storagetest"
)

// identity makes a certificate that is its own authority.
func identity(t *testing.T) (cert, key string, conf *tls.Config) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
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
	cert, key = filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for path, data := range map[string][]byte{cert: certPEM, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return cert, key, &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool}
}

// external starts an etcd that listens for clients with mutual TLS.
func external(t *testing.T) (addr string, conf *tls.Config) {
	t.Helper()
	cert, key, conf := identity(t)
	info := transport.TLSInfo{CertFile: cert, KeyFile: key, TrustedCAFile: cert, ClientCertAuth: true}
	return started(t, "https", info), conf
}

// plain starts an etcd without TLS.
func plain(t testing.TB) (addr string) { return started(t, "http", transport.TLSInfo{}) }

func started(t testing.TB, scheme string, info transport.TLSInfo) (addr string) {
	t.Helper()
	local := url.URL{Scheme: scheme, Host: "127.0.0.1:0"}
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	cfg.UnsafeNoFsync = true
	cfg.TickMs, cfg.ElectionMs = 50, 250
	cfg.ClientTLSInfo, cfg.PeerTLSInfo = info, info
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{local}, []url.URL{local}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{local}, []url.URL{local}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	select {
	case <-server.Server.ReadyNotify():
	case <-time.After(20 * time.Second):
		t.Fatal("etcd does not become ready")
	}
	return server.Clients[0].Addr().String()
}

func dial(t *testing.T, addr string, conf *tls.Config) *etcd.Store {
	t.Helper()
	s, err := etcd.Dial(t.Context(), etcd.External{Endpoints: []string{"https://" + addr}, TLS: conf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestExternalBackend(t *testing.T) {
	storagetest.Run(t, storagetest.Options{
		Open: func(t *testing.T) storage.Backend {
			addr, conf := external(t)
			s := dial(t, addr, conf)
			awaitLane(t, s)
			return s
		},
		ShortTTL: time.Second,
		MaxTTL:   10 * time.Second,
	})
}

// TestDialRefused says what is wrong within the time limit.
func TestDialRefused(t *testing.T) {
	addr, _ := external(t)
	_, _, stranger := identity(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if s, err := etcd.Dial(ctx, etcd.External{Endpoints: []string{"https://" + addr}, TLS: stranger}); err == nil {
		t.Error("an unknown certificate was accepted")
		_ = s.Close()
	}
	if _, err := etcd.Dial(ctx, etcd.External{}); err == nil {
		t.Error("no endpoint was accepted")
	}
}

// TestLostAnswer cuts off the answers of etcd: a write in flight has an unknown
// outcome and has happened; a watch goes on when the answers come again.
func TestLostAnswer(t *testing.T) {
	addr, conf := external(t)
	through, mute := proxy(t, addr)
	s, direct := dial(t, through, conf), dial(t, addr, conf)
	w, err := s.Watch(t.Context(), "/registry/", storage.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := s.Put(t.Context(), "/registry/a/before", nil, 0, 0); err != nil {
		t.Fatal(err)
	}
	mute.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err = s.Put(ctx, "/registry/a/lost", nil, 0, 0)
	if _, unknown := errors.AsType[*storage.OutcomeUnknownError](err); !unknown || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a write without an answer: %v", err)
	}
	if _, _, err := direct.Get(t.Context(), "/registry/a/lost"); err != nil {
		t.Errorf("the write has not happened: %v", err)
	}
	if _, _, err := s.Get(ctx, "/registry/a/lost"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a read without an answer: %v", err)
	}
	mute.Store(false)
	long, cancelLong := context.WithTimeout(t.Context(), time.Minute)
	defer cancelLong()
	seen := map[string]int{}
	for len(seen) < 2 {
		batch, err := w.Next(long)
		if err != nil {
			t.Fatalf("after %v: %v", seen, err)
		}
		for _, ev := range batch.Events {
			seen[ev.KV.Key]++
		}
	}
	if seen["/registry/a/lost"] != 1 || seen["/registry/a/before"] != 1 {
		t.Errorf("the watch told %v", seen)
	}
}

// TestWatchWithoutAnswer: who gives up while etcd does not confirm a watch does
// not wait for it.
func TestWatchWithoutAnswer(t *testing.T) {
	addr, conf := external(t)
	through, mute := proxy(t, addr)
	s := dial(t, through, conf)
	mute.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := s.Watch(ctx, "/registry/", storage.WatchOptions{From: 1})
		ended <- err
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a watch that was given up: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("a watch that etcd does not confirm outlives its caller")
	}
	// The next one is as if there had been none before.
	mute.Store(false)
	w, err := s.Watch(t.Context(), "/registry/", storage.WatchOptions{From: 1})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
}

// proxy forwards connections; while mute is set, it keeps back what the server
// says.
func proxy(t *testing.T, to string) (addr string, mute *atomic.Bool) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	mute = &atomic.Bool{}
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(server, client)
				_ = server.Close()
			}()
			go answers(client, server, mute, done)
		}
	}()
	return l.Addr().String(), mute
}

func answers(client, server net.Conn, mute *atomic.Bool, done <-chan struct{}) {
	defer client.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := server.Read(buf)
		for mute.Load() {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
		if _, werr := client.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}
