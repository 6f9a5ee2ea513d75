package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"strings"
	"testing"

	"coracle/pkg/pki"
)

// TestRotateKey: of a stopped cluster the rotation is left to its start, and
// not begun twice; of a running one it is waited for.
func TestRotateKey(t *testing.T) {
	out := &bytes.Buffer{}
	m := &Machine{Out: out}
	b := &boot{f: folder(t.TempDir()), s: &Spec{Name: "c"}}
	file := b.f.control("pki", pki.EncryptionFile)
	must(t, os.MkdirAll(b.f.control("pki"), 0o700))
	if err := b.rotateKey(t.Context(), m, false); err == nil || !strings.Contains(err.Error(), "has no key yet") {
		t.Errorf("without a key: %v", err)
	}
	data, err := pki.LoadOrCreateEncryption(file, rand.Reader)
	must(t, err)
	must(t, pki.MarkEncryptionDone(file, data))
	for _, want := range []string{"when it starts", "under way already"} {
		out.Reset()
		must(t, b.rotateKey(t.Context(), m, false))
		if !strings.Contains(out.String(), want) {
			t.Errorf("says %q, want %q", out, want)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.rotateKey(ended, m, true); err == nil || !strings.Contains(err.Error(), "can be repeated") {
		t.Errorf("an API server that does not get on: %v", err)
	}
	data, err = os.ReadFile(file)
	must(t, err)
	must(t, pki.MarkEncryptionDone(file, data))
	server := make(chan error, 1)
	go func() { // what the API server does
		server <- poll(t.Context(), func() (bool, error) {
			fresh, err := os.ReadFile(file)
			if err != nil || bytes.Equal(fresh, data) {
				return false, err
			}
			return true, pki.MarkEncryptionDone(file, fresh)
		})
	}()
	must(t, b.rotateKey(t.Context(), m, true))
	must(t, <-server)
	if !strings.Contains(out.String(), "are encrypted with the new key") {
		t.Errorf("says %q", out)
	}
}
