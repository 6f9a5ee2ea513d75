package main

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"coracle/pkg/pki"
)

// TestShowing: connections to an external etcd are made with the certificate that
// is in the files then, and with the last good one while the files do not fit
// together.
func TestShowing(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c.crt"), filepath.Join(dir, "c.key")
	ca, err := pki.NewCA("test", 0, time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pair := func() *pki.Pair {
		p, err := ca.Issue(pki.Request{CommonName: "x", ClientAuth: true}, time.Now(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	put := func(file string, data []byte) {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := showing(cert, key, nil); err == nil {
		t.Error("files that are not there are no error")
	}
	first, second := pair(), pair()
	put(cert, first.CertPEM)
	put(key, first.KeyPEM)
	show, err := showing(cert, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := func(when string, p *pki.Pair) {
		t.Helper()
		got, err := show(nil)
		if err != nil || !bytes.Equal(got.Certificate[0], p.Cert.Raw) {
			t.Errorf("%s: not the right certificate (%v)", when, err)
		}
	}
	want("at first", first)
	put(cert, second.CertPEM)
	want("between two files", first)
	put(key, second.KeyPEM)
	want("after both", second)
}
