package controlplane

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clocktesting "k8s.io/utils/clock/testing"

	"coracle/pkg/pki"
)

// TestAgingAuthority: the log says in time that an authority ends.
func TestAgingAuthority(t *testing.T) {
	begin := time.Now()
	said := &bytes.Buffer{}
	clk := clocktesting.NewFakeClock(begin)
	o := ServeOptions{DataDir: t.TempDir(), BindAddress: "127.0.0.1"}
	o.Clock, o.Rand, o.ServiceCIDR = clk, rand.Reader, netip.MustParsePrefix("10.96.0.0/16")
	o.Log = slog.New(slog.NewTextHandler(said, nil))
	files, _, err := o.prepare(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 6443})
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel() // one look each
	for _, tc := range []struct {
		age  time.Duration
		want int
	}{{0, 0}, {pki.DefaultCALifetime - pki.DefaultLifetime - time.Hour, 0}, {pki.DefaultCALifetime - pki.DefaultLifetime + time.Hour, 2}} {
		said.Reset()
		clk.SetTime(begin.Add(tc.age))
		if err := o.watchAuthorities(over, files); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(said.String(), "ctl cluster rotate-ca"); got != tc.want {
			t.Errorf("after %s: %q", tc.age, said)
		}
	}
}

// TestOwnCertificatesRenew: every certificate that the server issued itself, and
// the administrator's kubeconfig, is replaced while the server runs, and not
// before its time.
func TestOwnCertificatesRenew(t *testing.T) {
	begin := time.Now()
	clk := clocktesting.NewFakeClock(begin)
	o := ServeOptions{DataDir: t.TempDir(), BindAddress: "127.0.0.1"}
	o.Clock, o.Rand, o.ServiceCIDR = clk, rand.Reader, netip.MustParsePrefix("10.96.0.0/16")
	files, _, err := o.prepare(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 6443})
	if err != nil {
		t.Fatal(err)
	}
	// state is what clients and servers see of each certificate.
	state := func() map[string][]byte {
		out := map[string][]byte{}
		for _, k := range files.keepers {
			if err := k.Refresh(); err != nil {
				t.Fatal(err)
			}
			out[k.Name] = k.Live.Leaf().Raw
			onDisk, err := os.ReadFile(pki.CertFile(files.PKI, k.Name))
			if err != nil {
				t.Fatal(err)
			}
			if certs, err := pki.ParseCertificates(onDisk); err != nil || !certs[0].Equal(k.Live.Leaf()) {
				t.Errorf("%s: in the file is another than in force (%v)", k.Name, err)
			}
		}
		config, err := clientcmd.LoadFromFile(files.Kubeconfig)
		if err != nil {
			t.Fatal(err)
		}
		admin := config.AuthInfos[config.Contexts[config.CurrentContext].AuthInfo]
		pair, err := pki.ParsePair(admin.ClientCertificateData, admin.ClientKeyData)
		if err != nil {
			t.Fatal(err)
		}
		out["admin.kubeconfig"] = pair.Cert.Raw
		return out
	}
	first := state()
	for _, name := range []string{"apiserver", "apiserver-kubelet-client", "front-proxy-client", "admin"} {
		if first[name] == nil {
			t.Errorf("%s is not kept", name)
		}
	}
	// What has a certificate of its own in the folder is kept fresh, all of it.
	entries, err := os.ReadDir(files.PKI)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name, isCert := bytes.CutSuffix([]byte(e.Name()), []byte(".crt"))
		if isCert && first[string(name)] == nil && !slices.Contains([]string{"ca", "front-proxy-ca"}, string(name)) {
			t.Errorf("nobody renews %s", e.Name())
		}
	}
	clk.SetTime(begin.Add(pki.DefaultLifetime / 2))
	for name, cert := range state() {
		if !bytes.Equal(cert, first[name]) {
			t.Errorf("%s is replaced after half its life", name)
		}
	}
	clk.SetTime(begin.Add(pki.DefaultLifetime * 3 / 4))
	for name, cert := range state() {
		if bytes.Equal(cert, first[name]) {
			t.Errorf("%s is not renewed in time", name)
		}
	}
}
