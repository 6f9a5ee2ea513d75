package cluster

import (
	"bytes"
	"crypto/rand"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"coracle/pkg/pki"
)

// rotation is a cluster that is stopped, with one node.
func rotation(t *testing.T) (*caRotation, *bytes.Buffer) {
	t.Helper()
	out := &bytes.Buffer{}
	root := t.TempDir()
	b := &boot{m: &Machine{Out: out, Root: root}, f: folderOf(root, "c"), s: &Spec{
		Name: "c", Subnet: netip.MustParsePrefix("10.89.0.0/24"), Port: 6443, ClusterDomain: "cluster.local",
		ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"), ClusterDNS: netip.MustParseAddr("10.96.0.10"), PodCIDR: netip.MustParsePrefix("10.244.0.0/16"),
		Nodes: []NodeSpec{{Name: "c-1", Address: netip.MustParseAddr("10.89.0.11")}}}}
	must(t, os.MkdirAll(b.f.control("pki"), 0o700))
	must(t, b.f.save(b.s))
	return &caRotation{boot: b}, out
}

// phases are those of both authorities.
func (r *caRotation) phases(t *testing.T) (out []pki.Phase) {
	t.Helper()
	for _, name := range replaced {
		a, err := r.load(name)
		must(t, err)
		out = append(out, a.Phase)
	}
	return out
}

// TestRotateCA: of a stopped cluster the authorities are replaced in two calls, and
// from wherever one was interrupted; the node's file says what counts.
func TestRotateCA(t *testing.T) {
	inPhase := func(r *caRotation, want pki.Phase) {
		t.Helper()
		for i, p := range r.phases(t) {
			if p != want {
				t.Errorf("%s is in phase %q, want %q", replaced[i], p, want)
			}
		}
		a, err := r.load(pki.ClusterCA)
		must(t, err)
		if data, err := os.ReadFile(r.f.rootfs("c-1", nodeCA)); err != nil || !bytes.Equal(data, a.Bundle()) {
			t.Errorf("the node's authorities are not those of phase %q (%v)", want, err)
		}
	}
	step := func(name string, to pki.Phase) func(r *caRotation) {
		return func(r *caRotation) { must(t, pki.Rotate(r.dir(), name, to, time.Now(), rand.Reader)) }
	}
	for name, before := range map[string][]func(*caRotation){
		"at once":               nil,
		"begun":                 {step(pki.ClusterCA, pki.Trusting)},
		"begun, both":           {step(pki.ClusterCA, pki.Trusting), step(pki.FrontProxyCA, pki.Trusting)},
		"between two of a kind": {step(pki.ClusterCA, pki.Trusting), step(pki.FrontProxyCA, pki.Trusting), step(pki.ClusterCA, pki.Issuing)},
	} {
		r, out := rotation(t)
		old, err := r.load(pki.ClusterCA)
		must(t, err)
		for _, f := range before {
			f(r)
		}
		must(t, r.replace(t.Context()))
		inPhase(r, pki.Issuing)
		must(t, r.replace(t.Context())) // again changes nothing
		inPhase(r, pki.Issuing)
		fresh, err := r.load(pki.ClusterCA)
		must(t, err)
		if !strings.Contains(out.String(), "--finish") {
			t.Errorf("%s: says %q", name, out)
		}
		list, err := r.m.Certificates("c", time.Now())
		must(t, err)
		notes := map[string]string{}
		for _, c := range list {
			notes[filepath.Base(c.File)] = c.Issuer + ": " + c.Note
		}
		if !strings.Contains(notes["ca-next.crt"], "the new authority") || notes["client.crt"] != fresh.Signer.Cert.Subject.CommonName+": " {
			t.Errorf("%s: the list says %q", name, notes)
		}
		step(pki.ClusterCA, pki.Steady)(r) // a finish that was interrupted
		must(t, r.finish(t.Context(), false))
		inPhase(r, pki.Steady)
		last, err := r.load(pki.ClusterCA)
		must(t, err)
		if !last.Signer.Cert.Equal(fresh.Signer.Cert) || last.Signer.Cert.Equal(old.Signer.Cert) {
			t.Errorf("%s: the authority is %s", name, last.Signer.Cert.Subject)
		}
	}
	r, _ := rotation(t)
	step(pki.ClusterCA, pki.Trusting)(r)
	if err := r.finish(t.Context(), false); err == nil || !strings.Contains(err.Error(), "not in use yet") {
		t.Errorf("a finish too early: %v", err)
	}
}

// TestRenewedBy: a node has what it needs when both its certificates are of the new
// authority.
func TestRenewedBy(t *testing.T) {
	dir := t.TempDir()
	old, err := pki.NewCA("old", 0, time.Now(), rand.Reader)
	must(t, err)
	fresh, err := pki.NewCA("fresh", 0, time.Now(), rand.Reader)
	must(t, err)
	write := func(file string, ca *pki.CA) {
		pair, err := ca.Issue(pki.Request{CommonName: "system:node:c-1", ClientAuth: true}, time.Now(), rand.Reader)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, file), append(pair.CertPEM, pair.KeyPEM...), 0o600))
	}
	for i, by := range []*pki.CA{nil, old, fresh} {
		for _, file := range agentCertificates {
			if renewedBy(dir, fresh) == nil {
				t.Errorf("step %d: renewed too early", i)
			}
			if by != nil {
				write(file, by)
			}
		}
	}
	if err := renewedBy(dir, fresh); err != nil {
		t.Error(err)
	}
}
