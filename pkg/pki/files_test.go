package pki

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func TestLoadOrCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	ca, err := LoadOrCreateCA(dir, "ca", "the-ca", start, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadOrCreateCA(dir, "ca", "the-ca", start, rand.Reader)
	if err != nil || !again.Cert.Equal(ca.Cert) {
		t.Fatalf("a second authority: %v", err)
	}
	r := Request{CommonName: "api", DNSNames: []string{"one"}, ServerAuth: true}
	load := func(at time.Time) *Pair {
		t.Helper()
		p, err := LoadOrCreate(dir, "api", ca, r, at, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := load(start)
	if !load(start).Cert.Equal(first.Cert) {
		t.Error("issued again without need")
	}
	r.DNSNames = append(r.DNSNames, "two")
	second := load(start)
	if second.Cert.Equal(first.Cert) {
		t.Error("not issued again for a new name")
	}
	if third := load(start.Add(DefaultLifetime)); third.Cert.Equal(second.Cert) {
		t.Error("not issued again when due")
	}
	// A crash between the two files leaves a pair that does not fit.
	if err := WriteFile(KeyFile(dir, "api"), first.KeyPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	load(start.Add(DefaultLifetime))
	if err := os.WriteFile(CertFile(dir, "api"), []byte("garbage"), 0o644); err != nil {
		t.Fatal(err)
	}
	load(start.Add(DefaultLifetime))

	for name, want := range map[string]os.FileMode{"ca.key": 0o600, "ca.crt": 0o644, "api.key": 0o600, "api.crt": 0o644, ".": 0o700} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v", name, info.Mode().Perm(), err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Errorf("%v %v", entries, err)
	}
}

func TestWideKeyIsTightened(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadOrCreateCA(dir, "ca", "c", start, rand.Reader); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(KeyFile(dir, "ca"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateCA(dir, "ca", "c", start, rand.Reader); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(KeyFile(dir, "ca")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

func TestAuthorityIsNeverReplaced(t *testing.T) {
	dir := t.TempDir()
	ca, err := LoadOrCreateCA(dir, "ca", "c", start, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := newCA(t).KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func() error{
		"foreign key": func() error { return os.WriteFile(KeyFile(dir, "ca"), other, 0o600) },
		"lost key":    func() error { return os.Remove(KeyFile(dir, "ca")) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadOrCreateCA(dir, "ca", "c", start, rand.Reader); err == nil {
			t.Errorf("%s: no error", name)
		}
		if data, err := os.ReadFile(CertFile(dir, "ca")); err != nil || !bytes.Equal(data, ca.CertPEM()) {
			t.Errorf("%s: the certificate was touched", name)
		}
	}
	// A key without a certificate is what a crash during the first start leaves.
	fresh := t.TempDir()
	if err := os.WriteFile(KeyFile(fresh, "ca"), other, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateCA(fresh, "ca", "c", start, rand.Reader); err != nil {
		t.Error(err)
	}
}

func TestConcurrentCreation(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	cas := make([]*CA, 8)
	for i := range cas {
		wg.Go(func() {
			ca, err := LoadOrCreateCA(dir, "ca", "c", start, rand.Reader)
			if err != nil {
				t.Error(err)
				return
			}
			cas[i] = ca
			if _, err := LoadOrCreate(dir, "x", ca, Request{CommonName: "x", ClientAuth: true}, start, rand.Reader); err != nil {
				t.Error(err)
			}
			if _, err := LoadOrCreateKey(filepath.Join(dir, "sa.key"), rand.Reader); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, ca := range cas {
		if ca == nil || !ca.Cert.Equal(cas[0].Cert) {
			t.Fatal("several authorities were made")
		}
	}
}

func TestLoadOrCreateKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "sa.key")
	a, err := LoadOrCreateKey(path, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := LoadOrCreateKey(path, rand.Reader)
	if err != nil || !samePublic(a.Public(), b.Public()) {
		t.Errorf("another key: %v", err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateKey(path, rand.Reader); err == nil {
		t.Error("a damaged key is replaced")
	}
}

func TestWriteFileFailsWhole(t *testing.T) {
	if err := WriteFile(filepath.Join(t.TempDir(), "none", "x"), []byte("a"), 0o600); err == nil {
		t.Error("no error")
	}
	dir := t.TempDir()
	target := filepath.Join(dir, "x")
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(target, []byte("a"), 0o600); err == nil {
		t.Error("a directory was overwritten")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("something is left behind: %v", entries)
	}
}
