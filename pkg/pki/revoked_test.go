package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestRevoked(t *testing.T) {
	ca, err := NewCA("ca", time.Hour, time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issue := func() *Pair {
		p, err := ca.Issue(Request{CommonName: "jane", ClientAuth: true}, time.Now(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	bySum, bySerial, good := issue(), issue(), issue()
	r, err := ParseRevoked(fmt.Appendf([]byte(RevokedHead), "X509SHA256=%x\r\n\n serial=00%X \n", sha256.Sum256(bySum.Cert.Raw), bySerial.Cert.SerialNumber))
	if err != nil {
		t.Fatal(err)
	}
	if !r.Has(bySum.Cert) || !r.Has(bySerial.Cert) || r.Has(good.Cert) {
		t.Error("the wrong certificates are refused")
	}
	if (&Revoked{}).Has(good.Cert) {
		t.Error("no list refuses")
	}
	for _, bad := range []string{"X509SHA256=12", "X509SHA256=" + strings.Repeat("g", 64), "serial=", "serial=-1", "serial=0", "serial=x", "jane", "serial=" + strings.Repeat("1", 41)} {
		if _, err := ParseRevoked([]byte("# fine\n" + bad + "\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzParseRevoked(f *testing.F) {
	f.Add([]byte(RevokedHead + "X509SHA256=" + strings.Repeat("0a", 32) + "\nserial=1f\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := ParseRevoked(data); err == nil && len(r.sums)+len(r.serials) > len(data)/len("serial=1") {
			t.Errorf("%q has %d certificates", data, len(r.sums)+len(r.serials))
		}
	})
}
