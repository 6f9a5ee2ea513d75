package pki

import (
	"crypto/x509"
	"net"
	"slices"
	"time"
)

// RenewAt is the time from which a certificate should be replaced: two thirds
// into its life, so that a third is left to notice that renewal fails.
func RenewAt(cert *x509.Certificate) time.Time {
	return cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 3 * 2)
}

// Due says whether a certificate should be replaced now.
func Due(now time.Time, cert *x509.Certificate) bool {
	return !now.Before(RenewAt(cert)) || now.Before(cert.NotBefore)
}

// agingLeft is how long before its end an authority should be replaced: from then on
// it cuts short what it issues.
const agingLeft = DefaultLifetime

// AuthorityAging says whether an authority should be replaced.
func AuthorityAging(cert *x509.Certificate, now time.Time) bool {
	return cert.NotAfter.Sub(now) < agingLeft
}

// Outdated says why a certificate does not serve the request any more, or ""
// when it does: it is due, it is from another authority, or something asked
// for is not in it.
func Outdated(now time.Time, cert *x509.Certificate, r Request, ca *CA) string {
	switch {
	case Due(now, cert):
		return "it is due for renewal"
	case cert.CheckSignatureFrom(ca.Cert) != nil:
		return "it is from another authority"
	case cert.Subject.CommonName != r.CommonName || !sameSet(cert.Subject.Organization, r.Organization):
		return "its subject is another"
	case !containsUsages(cert.ExtKeyUsage, r.extUsages()):
		return "it lacks a usage"
	}
	for _, name := range r.DNSNames {
		if !slices.Contains(cert.DNSNames, name) {
			return "it lacks the name " + name
		}
	}
	for _, ip := range r.IPs {
		if !slices.ContainsFunc(cert.IPAddresses, func(have net.IP) bool { return have.Equal(ip) }) {
			return "it lacks the address " + ip.String()
		}
	}
	return ""
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

func containsUsages(have, want []x509.ExtKeyUsage) bool {
	return !slices.ContainsFunc(want, func(u x509.ExtKeyUsage) bool { return !slices.Contains(have, u) })
}
