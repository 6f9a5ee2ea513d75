package resource

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxUID              = 128
	maxCertificateChain = 100 * 1024
	minPodCertificate   = time.Hour
	// refreshMargin lies between the times of a certificate and of its refresh.
	refreshMargin = 10 * time.Minute
)

func validatePodCertificateRequest(r *certificatesv1.PodCertificateRequest) field.ErrorList {
	path, spec := field.NewPath("spec"), &r.Spec
	errs := checkSignerName(path.Child("signerName"), spec.SignerName)
	for _, f := range []struct{ name, value string }{
		{"podName", spec.PodName}, {"serviceAccountName", spec.ServiceAccountName}, {"nodeName", string(spec.NodeName)},
	} {
		errs = append(errs, invalid(path.Child(f.name), f.value, utilvalidation.IsDNS1123Subdomain(f.value))...)
	}
	for _, f := range []struct{ name, value string }{
		{"podUID", string(spec.PodUID)}, {"serviceAccountUID", string(spec.ServiceAccountUID)}, {"nodeUID", string(spec.NodeUID)},
	} {
		if f.value == "" {
			errs = append(errs, field.Invalid(path.Child(f.name), f.value, "must not be empty"))
		}
		if len(f.value) > maxUID {
			errs = append(errs, field.TooLong(path.Child(f.name), f.value, maxUID))
		}
	}
	errs = append(errs, checkUserAnnotations(path.Child("unverifiedUserAnnotations"), spec.UnverifiedUserAnnotations)...)
	p := path.Child("maxExpirationSeconds")
	most := int32(maxPodCertificateSeconds)
	if strings.HasPrefix(spec.SignerName, "kubernetes.io/") {
		most = kubeSignerCertificateSeconds
	}
	if s := spec.MaxExpirationSeconds; s == nil {
		errs = append(errs, field.Required(p, "must be set"))
	} else if *s < minPodCertificateSeconds || *s > most {
		errs = append(errs, field.Invalid(p, *s, fmt.Sprintf("must be in the range [%d, %d]", minPodCertificateSeconds, most)))
	}
	if req, err := x509.ParseCertificateRequest(spec.StubPKCS10Request); err != nil {
		errs = append(errs, field.Invalid(path.Child("stubPKCS10Request"), "<value omitted>", err.Error()))
	} else if err := req.CheckSignature(); err != nil {
		errs = append(errs, field.Invalid(path.Child("stubPKCS10Request"), "<value omitted>", err.Error()))
	} else if !goodPodKey(req.PublicKey) {
		errs = append(errs, field.Invalid(path.Child("stubPKCS10Request"), "<value omitted>",
			"the public key must be Ed25519, ECDSA on P256, P384 or P521, or RSA of 3072 or 4096 bits"))
	}
	return errs
}

// goodPodKey holds the API doc of stubPKCS10Request.
func goodPodKey(key crypto.PublicKey) bool {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return true
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P256() || k.Curve == elliptic.P384() || k.Curve == elliptic.P521()
	case *rsa.PublicKey:
		return k.Size() == 3072/8 || k.Size() == 4096/8
	}
	return false
}

// validatePodCertificateStatus: a request is answered once, by a certificate
// or by a condition that says why there is none.
func validatePodCertificateStatus(r, old *certificatesv1.PodCertificateRequest) field.ErrorList {
	path, s := field.NewPath("status"), &r.Status
	if errs := checkPodCertificateConditions(path.Child("conditions"), s.Conditions); len(errs) > 0 {
		return errs
	}
	same := func(want certificatesv1.PodCertificateRequestStatus, message string) field.ErrorList {
		if equality.Semantic.DeepEqual(*s, want) {
			return nil
		}
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, message)}
	}
	switch {
	case len(old.Status.Conditions) > 0:
		return same(old.Status, "immutable after PodCertificateRequest is issued, denied, or failed")
	case len(s.Conditions) == 0:
		return same(old.Status, `status is immutable unless transitioning to "Issued", "Denied", or "Failed"`)
	case s.Conditions[0].Type != certificatesv1.PodCertificateRequestConditionTypeIssued:
		return same(certificatesv1.PodCertificateRequestStatus{Conditions: s.Conditions},
			"non-condition status fields must be empty when denying or failing the PodCertificateRequest")
	}
	return checkIssued(path, r)
}

func checkPodCertificateConditions(path *field.Path, list []metav1.Condition) field.ErrorList {
	var errs field.ErrorList
	known := []string{
		certificatesv1.PodCertificateRequestConditionTypeIssued, certificatesv1.PodCertificateRequestConditionTypeDenied,
		certificatesv1.PodCertificateRequestConditionTypeFailed,
	}
	found := false
	for i, c := range list {
		p := path.Index(i)
		if !slices.Contains(known, c.Type) {
			errs = append(errs, field.NotSupported(p.Child("type"), c.Type, known))
			continue
		}
		if found {
			errs = append(errs, field.Invalid(p.Child("type"), c.Type, `There may be at most one condition with type "Issued", "Denied", or "Failed"`))
		}
		found = true
		if c.Status != metav1.ConditionTrue {
			errs = append(errs, field.NotSupported(p.Child("status"), c.Status, []metav1.ConditionStatus{metav1.ConditionTrue}))
		}
	}
	return append(errs, metav1validation.ValidateConditions(list, path)...)
}

// checkIssued wants a certificate for the key of the request, and the times
// that it has.
func checkIssued(path *field.Path, r *certificatesv1.PodCertificateRequest) field.ErrorList {
	s, p := &r.Status, path.Child("certificateChain")
	if len(s.CertificateChain) > maxCertificateChain {
		return field.ErrorList{field.TooLong(p, "", maxCertificateChain)}
	}
	leaf, err := parseChain([]byte(s.CertificateChain))
	if err != nil {
		return field.ErrorList{field.Invalid(p, s.CertificateChain, err.Error())}
	}
	req, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
	if err != nil {
		return field.ErrorList{field.Invalid(field.NewPath("spec", "stubPKCS10Request"), "<value omitted>", err.Error())}
	}
	if key, ok := req.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !key.Equal(leaf.PublicKey) {
		return field.ErrorList{field.Invalid(p, s.CertificateChain, "leaf certificate was not issued to the requested public key")}
	}
	return checkIssuedTimes(path, r, leaf)
}

func parseChain(data []byte) (leaf *x509.Certificate, err error) {
	for {
		block, rest := pem.Decode(data)
		switch {
		case block == nil && leaf == nil:
			return nil, errors.New("issued certificate chain must contain at least one certificate")
		case block == nil:
			return leaf, nil
		case block.Type != "CERTIFICATE":
			return nil, errors.New("issued certificate chain must consist entirely of CERTIFICATE PEM blocks")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil && leaf == nil:
			return nil, errors.New("leaf certificate does not parse as valid X.509")
		case err != nil:
			return nil, errors.New("intermediate certificate does not parse as valid X.509")
		case leaf == nil:
			leaf = cert
		}
		data = rest
	}
}

func checkIssuedTimes(path *field.Path, r *certificatesv1.PodCertificateRequest, leaf *x509.Certificate) field.ErrorList {
	var errs field.ErrorList
	s := &r.Status
	for _, f := range []struct {
		name    string
		value   *metav1.Time
		message string
	}{
		{"notBefore", s.NotBefore, "must be present and consistent with the issued certificate"},
		{"notAfter", s.NotAfter, "must be present and consistent with the issued certificate"},
		{"beginRefreshAt", s.BeginRefreshAt, "must be present and in the range [notbefore+10min, notafter-10min]"},
	} {
		if f.value == nil {
			errs = append(errs, field.Required(path.Child(f.name), f.message))
		}
	}
	if len(errs) > 0 {
		return errs
	}
	one := func(name string, value any, message string) field.ErrorList {
		return field.ErrorList{field.Invalid(path.Child(name), value, message)}
	}
	lifetime := leaf.NotAfter.Sub(leaf.NotBefore)
	switch longest := count(r.Spec.MaxExpirationSeconds, 0); {
	case !s.NotBefore.Time.Equal(leaf.NotBefore):
		return one("notBefore", s.NotBefore.Time, "must be set to the NotBefore time encoded in the leaf certificate")
	case !s.NotAfter.Time.Equal(leaf.NotAfter):
		return one("notAfter", s.NotAfter.Time, "must be set to the NotAfter time encoded in the leaf certificate")
	case lifetime < minPodCertificate:
		return one("certificateChain", lifetime, "leaf certificate lifetime must be >= 1 hour")
	case lifetime > time.Duration(longest)*time.Second:
		return one("certificateChain", lifetime, fmt.Sprintf("leaf certificate lifetime must be <= spec.maxExpirationSeconds (%d)", longest))
	case s.BeginRefreshAt.Time.Before(s.NotBefore.Time.Add(refreshMargin)):
		return one("beginRefreshAt", s.BeginRefreshAt.Time, "must be at least 10 minutes after status.notBefore")
	case s.BeginRefreshAt.Time.After(s.NotAfter.Time.Add(-refreshMargin)):
		return one("beginRefreshAt", s.BeginRefreshAt.Time, "must be at least 10 minutes before status.notAfter")
	}
	return nil
}
