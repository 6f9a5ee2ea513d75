package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// snapshot is the content of all files of an authority, nil for those that are not
// there.
func snapshot(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, file := range AuthorityFiles(dir, "ca") {
		data, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		out[filepath.Base(file)] = data
	}
	return out
}

// restored is a folder with these files.
func restored(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if data == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func authorities(t *testing.T, dir string) *Authorities {
	t.Helper()
	a, err := LoadAuthorities(dir, "ca", "test", start, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func rotate(t *testing.T, dir string, to Phase) *Authorities {
	t.Helper()
	if err := Rotate(dir, "ca", to, start, rand.Reader); err != nil {
		t.Fatal(err)
	}
	return authorities(t, dir)
}

func trusts(a *Authorities, ca *CA) bool {
	return slices.ContainsFunc(a.Trusted, func(c *x509.Certificate) bool { return c.Equal(ca.Cert) })
}

// TestRotate: an authority is replaced in three steps. In between both are trusted,
// and who knows one of them alone knows what is issued in each phase.
func TestRotate(t *testing.T) {
	dir := t.TempDir()
	old := authorities(t, dir)
	if old.Phase != Steady || len(old.Trusted) != 1 || old.Cross != nil {
		t.Fatalf("begins as %+v", old)
	}
	for _, wrong := range []Phase{Issuing, finishing, "x"} {
		if Rotate(dir, "ca", wrong, start, rand.Reader) == nil {
			t.Errorf("from nothing to %q", wrong)
		}
	}
	trusting := rotate(t, dir, Trusting)
	if trusting.Phase != Trusting || !trusting.Signer.Cert.Equal(old.Signer.Cert) || len(trusting.Trusted) != 2 || !trusts(trusting, old.Signer) {
		t.Fatalf("trusting: %+v", trusting)
	}
	if again := rotate(t, dir, Trusting); !bytes.Equal(again.Bundle(), trusting.Bundle()) {
		t.Error("a second begin makes another authority")
	}
	issuing := rotate(t, dir, Issuing)
	fresh := issuing.Signer
	if issuing.Phase != Issuing || fresh.Cert.Equal(old.Signer.Cert) || !trusts(trusting, fresh) || !trusts(issuing, old.Signer) || !issuing.Trusted[0].Equal(fresh.Cert) {
		t.Fatalf("issuing: %+v", issuing)
	}
	if fresh.Cert.Subject.String() == old.Signer.Cert.Subject.String() {
		t.Error("both authorities have one name")
	}
	pair, err := fresh.Issue(Request{CommonName: "x", ServerAuth: true, DNSNames: []string{"x"}}, start, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cross, err := ParseCertificates(issuing.Cross)
	if err != nil {
		t.Fatal(err)
	}
	for name, root := range map[string]*CA{"the old": old.Signer, "the new": fresh} {
		between := x509.NewCertPool()
		between.AddCert(cross[0])
		if _, err := pair.Cert.Verify(x509.VerifyOptions{DNSName: "x", Roots: root.Pool(), Intermediates: between, CurrentTime: start}); err != nil {
			t.Errorf("who knows %s authority alone: %v", name, err)
		}
	}
	if Rotate(dir, "ca", Trusting, start, rand.Reader) == nil {
		t.Error("a rotation goes back")
	}
	done := rotate(t, dir, Steady)
	if done.Phase != Steady || len(done.Trusted) != 1 || !done.Signer.Cert.Equal(fresh.Cert) || done.Cross != nil {
		t.Errorf("done: %+v", done)
	}
	for name, data := range snapshot(t, dir) {
		if (data == nil) != (name != "ca.crt" && name != "ca.key") {
			t.Errorf("%s is left: %v", name, data != nil)
		}
	}
	if err := os.WriteFile(phaseFile(dir, "ca"), []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadAuthorities(dir, "ca", "test", start, rand.Reader); err == nil {
		t.Error("a phase that there is not")
	}
}

// TestRotateSurvivesCrashes: after a crash at any write of any step there is a
// whole authority that is trusted, the old one is trusted as long as the step away
// from it was not begun, and the step can be taken again.
func TestRotateSurvivesCrashes(t *testing.T) {
	dir := t.TempDir()
	old := authorities(t, dir).Signer
	for _, step := range []struct {
		to     Phase
		writes []string // in their order
	}{
		{Trusting, []string{"ca-next.key", "ca-next.crt", "ca-next-cross.crt", "ca-rotation"}},
		{Issuing, []string{"ca-rotation"}},
		{Steady, []string{"ca.key", "ca.crt", "ca-next.crt", "ca-next.key", "ca-next-cross.crt", "ca-rotation"}},
	} {
		before := snapshot(t, dir)
		rotate(t, dir, step.to)
		after := snapshot(t, dir)
		at := before
		if step.to == Steady {
			at["ca-rotation"] = []byte(finishing) // the first write
		}
		for i := range len(step.writes) + 1 {
			if i > 0 {
				at[step.writes[i-1]] = after[step.writes[i-1]]
			}
			crashed := restored(t, at)
			a := authorities(t, crashed)
			if !trusts(a, a.Signer) || step.to != Steady && !trusts(a, old) || step.to == Steady && trusts(a, old) {
				t.Errorf("to %q, %d writes: %+v", step.to, i, a)
			}
			if got := rotate(t, crashed, step.to); got.Phase != step.to {
				t.Errorf("to %q, %d writes, then again: %+v", step.to, i, got)
			}
		}
		for name, data := range at {
			if !bytes.Equal(data, after[name]) {
				t.Errorf("to %q: %s is written, too", step.to, name)
			}
		}
	}
}
