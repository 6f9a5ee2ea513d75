package resource

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func clusterTrustBundles() *Resource {
	return define(Resource{
		Group: "certificates.k8s.io", Version: "v1", Kind: "ClusterTrustBundle", Plural: "clustertrustbundles",
		ReturnDeleted: true,
		ValidateName: func(name string, prefix bool) []string {
			// "signer:domain:name": the signer's slash is a colon here.
			return utilvalidation.IsDNS1123Subdomain(strings.ReplaceAll(name, ":", "."))
		},
		New:        func() runtime.Object { return &certificatesv1.ClusterTrustBundle{} },
		NewList:    func() runtime.Object { return &certificatesv1.ClusterTrustBundleList{} },
		FieldNames: []string{"spec.signerName"},
		FieldsRead: []string{"spec.signerName"},
		Columns:    columns("Name", "SignerName"),
	}, hooks[*certificatesv1.ClusterTrustBundle]{
		Validate: validateTrustBundle,
		ValidateUpdate: func(b, old *certificatesv1.ClusterTrustBundle) field.ErrorList {
			return checkImmutable(field.NewPath("spec", "signerName"), b.Spec.SignerName, old.Spec.SignerName)
		},
		Fields: func(b *certificatesv1.ClusterTrustBundle) map[string]string {
			return map[string]string{"spec.signerName": b.Spec.SignerName}
		},
		Row: func(b *certificatesv1.ClusterTrustBundle, _ time.Time) []any {
			return []any{b.Name, orNone(b.Spec.SignerName)}
		},
	})
}

func validateTrustBundle(b *certificatesv1.ClusterTrustBundle) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	signer, named := strings.ReplaceAll(b.Spec.SignerName, "/", ":")+":", strings.Contains(b.Name, ":")
	switch {
	case b.Spec.SignerName != "":
		errs = append(errs, checkSignerName(path.Child("signerName"), b.Spec.SignerName)...)
		if !strings.HasPrefix(b.Name, signer) {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), b.Name, "ClusterTrustBundle for signerName "+b.Spec.SignerName+" must be named with prefix "+signer))
		}
	case named:
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), b.Name, "ClusterTrustBundle without signer name must not have \":\" in its name"))
	}
	if err := checkAnchors([]byte(b.Spec.TrustBundle)); err != nil {
		errs = append(errs, field.Invalid(path.Child("trustBundle"), "<value omitted>", err.Error()))
	}
	return errs
}

// checkAnchors wants PEM blocks of different CA certificates.
func checkAnchors(data []byte) error {
	seen := map[string]bool{}
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		if block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			return errors.New("only CERTIFICATE PEM blocks without headers are allowed")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			return errors.New("a block does not hold a certificate: " + err.Error())
		case !cert.BasicConstraintsValid || !cert.IsCA:
			return errors.New("every certificate must be a CA's (basic constraints)")
		case seen[string(block.Bytes)]:
			return errors.New("a certificate is in the bundle twice")
		}
		seen[string(block.Bytes)] = true
	}
	if len(seen) == 0 {
		return errors.New("at least one trust anchor must be provided")
	}
	return nil
}

const (
	defaultPodCertificateSeconds = 86400
	maxPodCertificateSeconds     = 91 * 86400
	minPodCertificateSeconds     = 3600
	kubeSignerCertificateSeconds = 86400
)

func podCertificateRequests() *Resource {
	return define(Resource{
		Group: "certificates.k8s.io", Version: "v1", Kind: "PodCertificateRequest", Plural: "podcertificaterequests",
		Namespaced:          true,
		HasStatus:           true,
		UnconditionalUpdate: true,
		New:                 func() runtime.Object { return &certificatesv1.PodCertificateRequest{} },
		NewList:             func() runtime.Object { return &certificatesv1.PodCertificateRequestList{} },
		FieldNames:          []string{"spec.signerName", "spec.podName", "spec.nodeName"},
		FieldsRead:          []string{"spec.signerName", "spec.podName", "spec.nodeName"},
		Columns:             columns("Name", "PodName", "ServiceAccountName", "NodeName", "SignerName", "State"),
	}, hooks[*certificatesv1.PodCertificateRequest]{
		Default: func(r *certificatesv1.PodCertificateRequest) {
			defaultCount(&r.Spec.MaxExpirationSeconds, defaultPodCertificateSeconds)
		},
		Validate: validatePodCertificateRequest,
		ValidateUpdate: func(r, old *certificatesv1.PodCertificateRequest) field.ErrorList {
			return checkImmutable(field.NewPath("spec"), r.Spec, old.Spec)
		},
		ValidateStatus: validatePodCertificateStatus,
		Fields: func(r *certificatesv1.PodCertificateRequest) map[string]string {
			return map[string]string{"spec.signerName": r.Spec.SignerName, "spec.podName": r.Spec.PodName, "spec.nodeName": string(r.Spec.NodeName)}
		},
		Row: func(r *certificatesv1.PodCertificateRequest, _ time.Time) []any {
			state := "Pending"
			for _, c := range r.Status.Conditions {
				if c.Status == "True" {
					state = c.Type
				}
			}
			return []any{r.Name, r.Spec.PodName, r.Spec.ServiceAccountName, string(r.Spec.NodeName), r.Spec.SignerName, state}
		},
	})
}
