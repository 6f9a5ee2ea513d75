package pki

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Names of the signers that every Kubernetes cluster has.
const (
	SignerAPIServerClient        = "kubernetes.io/kube-apiserver-client"
	SignerAPIServerClientKubelet = "kubernetes.io/kube-apiserver-client-kubelet"
	SignerKubeletServing         = "kubernetes.io/kubelet-serving"
	SignerLegacyUnknown          = "kubernetes.io/legacy-unknown"
)

const (
	nodesGroup     = "system:nodes"
	mastersGroup   = "system:masters"
	nodeUserPrefix = "system:node:"
	minRSABits     = 2048
	// maxNames bounds the names of a request.
	maxNames = 256
	// MinSignedLifetime is the shortest life a request may ask for.
	MinSignedLifetime = 10 * time.Minute
	// shortLifetime is from which on the few minutes of backdating are nothing.
	shortLifetime = 8 * time.Hour
)

// ErrUnknownSigner is returned for signers that are not of this package.
var ErrUnknownSigner = errors.New("not one of the cluster's own signers")

// ParseCSR reads a PEM certificate signing request and checks that its sender
// holds the key.
func ParseCSR(data []byte) (*x509.CertificateRequest, error) {
	if len(data) > maxPEM {
		return nil, fmt.Errorf("a signing request of %d bytes is too large", len(data))
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	if len(strings.TrimSpace(string(rest))) > 0 {
		return nil, errors.New("there is something after the CERTIFICATE REQUEST block")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("signing request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("signing request: %w", err)
	}
	return csr, nil
}

// CheckCSR says why the signer refuses the request, or nil. usages are the
// names of the CertificateSigningRequest's spec. Who may ask is not looked at:
// that is the approver's.
func CheckCSR(signer string, csr *x509.CertificateRequest, usages []string) error {
	if err := checkKey(csr.PublicKey); err != nil {
		return err
	}
	if n := len(csr.DNSNames) + len(csr.IPAddresses) + len(csr.EmailAddresses) + len(csr.URIs); n > maxNames {
		return fmt.Errorf("%d names are too many: at most %d", n, maxNames)
	}
	if _, _, err := parseUsages(usages); err != nil {
		return err
	}
	if slices.Contains(csr.Subject.Organization, mastersGroup) {
		return fmt.Errorf("the group %s cannot be asked for", mastersGroup)
	}
	switch signer {
	case SignerAPIServerClient:
		return checkUsages(usages, "client auth", false)
	case SignerAPIServerClientKubelet:
		if len(csr.DNSNames)+len(csr.IPAddresses)+len(csr.EmailAddresses)+len(csr.URIs) > 0 {
			return errors.New("a node's client certificate has no subject alternative names")
		}
		return errors.Join(checkNodeSubject(csr), checkUsages(usages, "client auth", true))
	case SignerKubeletServing:
		if len(csr.EmailAddresses)+len(csr.URIs) > 0 {
			return errors.New("a node's serving certificate has no e-mail or URI subject alternative names")
		}
		if len(csr.DNSNames)+len(csr.IPAddresses) == 0 {
			return errors.New("a node's serving certificate needs a DNS name or an address")
		}
		return errors.Join(checkNodeSubject(csr), checkUsages(usages, "server auth", true))
	case SignerLegacyUnknown:
		return nil
	default:
		return fmt.Errorf("signer %q: %w", signer, ErrUnknownSigner)
	}
}

func checkNodeSubject(csr *x509.CertificateRequest) error {
	if !slices.Equal(csr.Subject.Organization, []string{nodesGroup}) {
		return fmt.Errorf("the organization must be exactly %s", nodesGroup)
	}
	if name, ok := strings.CutPrefix(csr.Subject.CommonName, nodeUserPrefix); !ok || name == "" {
		return fmt.Errorf("the common name must be %s<node>", nodeUserPrefix)
	}
	return nil
}

// checkUsages wants the extended usage, digital signature (when it must be, or
// perhaps) and perhaps key encipherment, and nothing else.
func checkUsages(usages []string, extended string, signature bool) error {
	if !slices.Contains(usages, extended) {
		return fmt.Errorf("the usages must include %q", extended)
	}
	if signature && !slices.Contains(usages, "digital signature") {
		return fmt.Errorf("the usages must include %q and %q", extended, "digital signature")
	}
	for _, u := range usages {
		if u != extended && u != "digital signature" && u != "key encipherment" {
			return fmt.Errorf("usage %q is not one this signer gives", u)
		}
	}
	return nil
}

func checkKey(public any) error {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P224() {
			return errors.New("the key's curve is too weak: use P-256 or more")
		}
		return nil
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits || k.N.BitLen() > 16384 {
			return fmt.Errorf("an RSA key of %d bits is not accepted: use 2048 to 16384", k.N.BitLen())
		}
		return nil
	case ed25519.PublicKey:
		return nil
	default:
		return fmt.Errorf("a key of type %T is not accepted", public)
	}
}

// SignCSR checks a request as CheckCSR does and returns the certificate as
// PEM. Subject, names and key are the request's, usages those given; other
// extensions are dropped. The lifetime is raised to MinSignedLifetime and cut to
// DefaultLifetime, which zero means too; that of a certificate for long counts from
// its backdated begin.
func (c *CA) SignCSR(signer string, csr *x509.CertificateRequest, usages []string, lifetime time.Duration, now time.Time, rand io.Reader) ([]byte, error) {
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("signing request: %w", err)
	}
	if err := CheckCSR(signer, csr, usages); err != nil {
		return nil, err
	}
	keyUsage, ext, err := parseUsages(usages)
	if err != nil {
		return nil, err
	}
	if lifetime <= 0 {
		lifetime = DefaultLifetime
	}
	lifetime = min(max(lifetime, MinSignedLifetime), DefaultLifetime)
	if lifetime >= shortLifetime {
		lifetime -= backdate
	}
	t := &x509.Certificate{
		Subject:        csr.Subject,
		DNSNames:       csr.DNSNames,
		IPAddresses:    csr.IPAddresses,
		EmailAddresses: csr.EmailAddresses,
		URIs:           csr.URIs,
		KeyUsage:       keyUsage,
		ExtKeyUsage:    ext,
	}
	cert, err := c.sign(t, csr.PublicKey, lifetime, now, rand)
	if err != nil {
		return nil, err
	}
	return encodeCert(cert.Raw), nil
}

// parseUsages understands the usage names of the certificates API. Those that
// would make an authority are not among them.
func parseUsages(names []string) (x509.KeyUsage, []x509.ExtKeyUsage, error) {
	keyUsages := map[string]x509.KeyUsage{
		"signing":            x509.KeyUsageDigitalSignature,
		"digital signature":  x509.KeyUsageDigitalSignature,
		"content commitment": x509.KeyUsageContentCommitment,
		"key encipherment":   x509.KeyUsageKeyEncipherment,
		"key agreement":      x509.KeyUsageKeyAgreement,
		"data encipherment":  x509.KeyUsageDataEncipherment,
		"encipher only":      x509.KeyUsageEncipherOnly,
		"decipher only":      x509.KeyUsageDecipherOnly,
	}
	extUsages := map[string]x509.ExtKeyUsage{
		"any":              x509.ExtKeyUsageAny,
		"server auth":      x509.ExtKeyUsageServerAuth,
		"client auth":      x509.ExtKeyUsageClientAuth,
		"code signing":     x509.ExtKeyUsageCodeSigning,
		"email protection": x509.ExtKeyUsageEmailProtection,
		"s/mime":           x509.ExtKeyUsageEmailProtection,
		"ipsec end system": x509.ExtKeyUsageIPSECEndSystem,
		"ipsec tunnel":     x509.ExtKeyUsageIPSECTunnel,
		"ipsec user":       x509.ExtKeyUsageIPSECUser,
		"timestamping":     x509.ExtKeyUsageTimeStamping,
		"ocsp signing":     x509.ExtKeyUsageOCSPSigning,
		"microsoft sgc":    x509.ExtKeyUsageMicrosoftServerGatedCrypto,
		"netscape sgc":     x509.ExtKeyUsageNetscapeServerGatedCrypto,
	}
	var usage x509.KeyUsage
	var ext []x509.ExtKeyUsage
	for _, n := range names {
		if u, ok := keyUsages[n]; ok {
			usage |= u
		} else if e, ok := extUsages[n]; ok {
			if !slices.Contains(ext, e) {
				ext = append(ext, e)
			}
		} else {
			return 0, nil, fmt.Errorf("unrecognized usage %q", n)
		}
	}
	slices.Sort(ext)
	return usage, ext, nil
}
