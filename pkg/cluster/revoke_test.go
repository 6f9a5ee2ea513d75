package cluster

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"coracle/pkg/pki"
)

// TestRevoke: certificates get onto the list by file, fingerprint or serial
// number, once, and off again; what is none does not, and what somebody else wrote
// into the list stays.
func TestRevoke(t *testing.T) {
	b := &boot{f: folder(t.TempDir()), s: &Spec{Name: "c"}}
	must(t, os.MkdirAll(b.f.control("pki"), 0o700))
	ca, err := pki.NewCA("c", 0, time.Now(), rand.Reader)
	must(t, err)
	pair, err := ca.Issue(pki.Request{CommonName: "ann", ClientAuth: true}, time.Now(), rand.Reader)
	must(t, err)
	file, authority, text := filepath.Join(t.TempDir(), "ann.crt"), filepath.Join(t.TempDir(), "ca.crt"), filepath.Join(t.TempDir(), "text")
	must(t, os.WriteFile(file, pair.CertPEM, 0o600))
	must(t, os.WriteFile(authority, ca.CertPEM(), 0o600))
	must(t, os.WriteFile(text, []byte("hello"), 0o600))
	for name, want := range map[string]string{"serial=": "neither", "/nowhere": "neither", text: "no certificate", authority: "rotate-ca", "# serial=12": "neither"} {
		if _, err := revokedLines([]string{name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", name, err, want)
		}
	}
	list := b.f.control("pki", pki.RevokedFile)
	must(t, os.WriteFile(list, []byte("# mine\nserial=99"), 0o600))
	lines, err := revokedLines([]string{file, "serial=12"})
	must(t, err)
	for i, undo := range []bool{false, false, true, true} {
		changed, err := b.revoke(lines, undo)
		if err != nil || changed != (i%2 == 0) {
			t.Errorf("step %d: changed %v, %v", i, changed, err)
		}
		data, err := os.ReadFile(list)
		must(t, err)
		got, err := pki.ParseRevoked(data)
		must(t, err)
		if got.Has(pair.Cert) == undo || !strings.HasPrefix(string(data), "# mine\nserial=99\n") || strings.Contains(string(data), "serial=12\n") == undo {
			t.Errorf("step %d: the list is %q", i, data)
		}
	}
	must(t, os.WriteFile(list, []byte("what?\n"), 0o600))
	if _, err := b.revoke(lines, false); err == nil {
		t.Error("a list that the API server cannot read is written")
	}
}
