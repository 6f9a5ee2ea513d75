package server

import (
	"crypto/tls"
	"strings"
	"testing"
)

// TestSuites: the agent's port speaks TLS with ephemeral keys and authenticated
// encryption only.
func TestSuites(t *testing.T) {
	f := newFixture(t)
	accepted := 0
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if s.SupportedVersions[len(s.SupportedVersions)-1] == tls.VersionTLS13 {
			continue
		}
		c := f.clientTLS(f.ca, "admin")
		c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{s.ID}
		conn, err := tls.Dial("tcp", f.addr, c)
		if err != nil {
			continue
		}
		accepted++
		if !strings.Contains(s.Name, "ECDHE") || strings.Contains(s.Name, "CBC") || strings.Contains(s.Name, "RC4") {
			t.Errorf("%s is accepted", s.Name)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	if accepted == 0 {
		t.Error("no suite of TLS 1.2 is accepted")
	}
	c := f.clientTLS(f.ca, "admin")
	c.MinVersion = tls.VersionTLS13
	conn, err := tls.Dial("tcp", f.addr, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}
