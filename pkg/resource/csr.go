package resource

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func certificateSigningRequests() *Resource {
	return define(Resource{
		Group: "certificates.k8s.io", Version: "v1", Kind: "CertificateSigningRequest",
		Plural: "certificatesigningrequests", ShortNames: []string{"csr"},
		HasStatus:           true,
		UnconditionalUpdate: true,
		Subresources: []Subresource{{
			Name: "approval", Verbs: []string{"get", "patch", "update"},
			Prepare: two(prepareApproval), Validate: twoResult(validateApproval),
		}},
		New:        func() runtime.Object { return &certificatesv1.CertificateSigningRequest{} },
		NewList:    func() runtime.Object { return &certificatesv1.CertificateSigningRequestList{} },
		FieldNames: []string{"spec.signerName"},
		FieldsRead: []string{"spec.signerName"},
		Columns:    columns("Name", "Age", "SignerName", "Requestor", "RequestedDuration", "Condition"),
	}, hooks[*certificatesv1.CertificateSigningRequest]{
		Prepare: func(csr, old *certificatesv1.CertificateSigningRequest) {
			if old != nil {
				old.Spec.DeepCopyInto(&csr.Spec)
			}
		},
		PrepareStatus:  prepareCSRStatus,
		Stamp:          stampCSR,
		Validate:       validateCSR,
		ValidateStatus: validateCSRStatus,
		Fields: func(csr *certificatesv1.CertificateSigningRequest) map[string]string {
			return map[string]string{"spec.signerName": csr.Spec.SignerName}
		},
		Row: csrRow,
	})
}

// stampCSR fills in the times that the writer of a condition left out.
func stampCSR(csr, old *certificatesv1.CertificateSigningRequest, now metav1.Time) {
	if old == nil {
		return
	}
	for i := range csr.Status.Conditions {
		c := &csr.Status.Conditions[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = now
		}
		if !c.LastTransitionTime.IsZero() {
			continue
		}
		c.LastTransitionTime = now
		for _, was := range old.Status.Conditions {
			if was.Type == c.Type && was.Status == c.Status && !was.LastTransitionTime.IsZero() {
				c.LastTransitionTime = was.LastTransitionTime
				break
			}
		}
	}
}

// StampRequester writes who asks into a new CertificateSigningRequest, whatever
// the request says: signers decide by it. The registry calls it on create,
// before validation.
func StampRequester(csr *certificatesv1.CertificateSigningRequest, name, uid string, groups []string, extra map[string][]string) {
	csr.Spec.Username, csr.Spec.UID = name, uid
	csr.Spec.Groups = slices.Clone(groups)
	csr.Spec.Extra = nil
	for key, values := range extra {
		if csr.Spec.Extra == nil {
			csr.Spec.Extra = make(map[string]certificatesv1.ExtraValue, len(extra))
		}
		csr.Spec.Extra[key] = certificatesv1.ExtraValue(slices.Clone(values))
	}
}

// ParseCertificateRequest reads the PEM block that a request holds and checks
// its signature.
func ParseCertificateRequest(data []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	return req, req.CheckSignature()
}

func isVerdict(t certificatesv1.RequestConditionType) bool {
	return t == certificatesv1.CertificateApproved || t == certificatesv1.CertificateDenied
}

// prepareApproval leaves only the conditions to who approves.
func prepareApproval(csr, old *certificatesv1.CertificateSigningRequest) {
	conditions := csr.Status.Conditions
	old.Spec.DeepCopyInto(&csr.Spec)
	csr.Status = *old.Status.DeepCopy()
	csr.Status.Conditions = conditions
}

// prepareCSRStatus leaves the verdict to /approval: a signer's update keeps
// the verdict that is stored.
func prepareCSRStatus(csr, old *certificatesv1.CertificateSigningRequest) {
	var kept []certificatesv1.CertificateSigningRequestCondition
	for _, c := range old.Status.Conditions {
		if isVerdict(c.Type) {
			kept = append(kept, c)
		}
	}
	for _, c := range csr.Status.Conditions {
		if !isVerdict(c.Type) {
			kept = append(kept, c)
		}
	}
	if !equality.Semantic.DeepEqual(csr.Status.Conditions, kept) && !sameConditions(csr.Status.Conditions, kept) {
		csr.Status.Conditions = kept
	}
}

// sameConditions compares without order.
func sameConditions(a, b []certificatesv1.CertificateSigningRequestCondition) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return !slices.ContainsFunc(b, func(d certificatesv1.CertificateSigningRequestCondition) bool {
			return equality.Semantic.DeepEqual(c, d)
		})
	})
}

// minCertificateSeconds is the shortest certificate that may be asked for.
const minCertificateSeconds = 600

var keyUsages = []certificatesv1.KeyUsage{
	certificatesv1.UsageAny, certificatesv1.UsageCRLSign, certificatesv1.UsageCertSign, certificatesv1.UsageClientAuth,
	certificatesv1.UsageCodeSigning, certificatesv1.UsageContentCommitment, certificatesv1.UsageDataEncipherment,
	certificatesv1.UsageDecipherOnly, certificatesv1.UsageDigitalSignature, certificatesv1.UsageEmailProtection,
	certificatesv1.UsageEncipherOnly, certificatesv1.UsageIPsecEndSystem, certificatesv1.UsageIPsecTunnel,
	certificatesv1.UsageIPsecUser, certificatesv1.UsageKeyAgreement, certificatesv1.UsageKeyEncipherment,
	certificatesv1.UsageMicrosoftSGC, certificatesv1.UsageNetscapeSGC, certificatesv1.UsageOCSPSigning,
	certificatesv1.UsageSMIME, certificatesv1.UsageServerAuth, certificatesv1.UsageSigning, certificatesv1.UsageTimestamping,
}

func validateCSR(csr *certificatesv1.CertificateSigningRequest) field.ErrorList {
	path, spec := field.NewPath("spec"), &csr.Spec
	var errs field.ErrorList
	if _, err := ParseCertificateRequest(spec.Request); err != nil {
		errs = append(errs, field.Invalid(path.Child("request"), spec.Request, err.Error()))
	}
	if len(spec.Usages) == 0 {
		errs = append(errs, field.Required(path.Child("usages"), ""))
	}
	for i, u := range spec.Usages {
		if !slices.Contains(keyUsages, u) {
			errs = append(errs, field.NotSupported(path.Child("usages").Index(i), u, keyUsages))
		}
		if slices.Index(spec.Usages, u) < i {
			errs = append(errs, field.Duplicate(path.Child("usages").Index(i), u))
		}
	}
	if spec.SignerName == "kubernetes.io/legacy-unknown" {
		errs = append(errs, field.Invalid(path.Child("signerName"), spec.SignerName, "the legacy signerName is not allowed via this API version"))
	} else {
		errs = append(errs, checkSignerName(path.Child("signerName"), spec.SignerName)...)
	}
	if s := spec.ExpirationSeconds; s != nil && *s < minCertificateSeconds {
		errs = append(errs, field.Invalid(path.Child("expirationSeconds"), *s, "may not specify a duration less than 600 seconds (10 minutes)"))
	}
	return append(errs, checkCSRConditions(csr.Status.Conditions)...)
}

func checkCSRConditions(list []certificatesv1.CertificateSigningRequestCondition) field.ErrorList {
	path := field.NewPath("status", "conditions")
	var errs field.ErrorList
	seen := map[certificatesv1.RequestConditionType]bool{}
	for i, c := range list {
		p := path.Index(i)
		if c.Type == "" {
			errs = append(errs, field.Required(p.Child("type"), ""))
		}
		known := isVerdict(c.Type) || c.Type == certificatesv1.CertificateFailed
		switch {
		case c.Status == "":
			errs = append(errs, field.Required(p.Child("status"), ""))
		case known:
			errs = append(errs, checkSet(p.Child("status"), c.Status, corev1.ConditionTrue)...)
		default:
			errs = append(errs, checkSet(p.Child("status"), c.Status, corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown)...)
		}
		if seen[c.Type] {
			errs = append(errs, field.Duplicate(p.Child("type"), c.Type))
		}
		seen[c.Type] = true
	}
	if seen[certificatesv1.CertificateApproved] && seen[certificatesv1.CertificateDenied] {
		errs = append(errs, field.Invalid(path, certificatesv1.CertificateDenied, "Approved and Denied conditions are mutually exclusive"))
	}
	return errs
}

// validateApproval: a verdict stands.
func validateApproval(csr, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
	errs := checkCSRConditions(csr.Status.Conditions)
	for _, was := range old.Status.Conditions {
		kept := slices.ContainsFunc(csr.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == was.Type })
		if !kept && (isVerdict(was.Type) || was.Type == certificatesv1.CertificateFailed) {
			errs = append(errs, field.Forbidden(field.NewPath("status", "conditions"),
				"updates may not remove a condition of type \""+string(was.Type)+"\""))
		}
	}
	return errs
}

func validateCSRStatus(csr, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
	errs := validateApproval(csr, old)
	path := field.NewPath("status", "certificate")
	if len(old.Status.Certificate) > 0 && !slices.Equal(csr.Status.Certificate, old.Status.Certificate) {
		errs = append(errs, field.Forbidden(path, "updates may not set certificate content if existing certificate content is not empty"))
	}
	if len(csr.Status.Certificate) > 0 && !slices.Equal(csr.Status.Certificate, old.Status.Certificate) {
		if err := checkCertificates(csr.Status.Certificate); err != nil {
			errs = append(errs, field.Invalid(path, "<certificate data>", err.Error()))
		}
	}
	return errs
}

// checkCertificates wants PEM blocks of certificates, and nothing else in them.
func checkCertificates(data []byte) error {
	found := false
	for len(data) > 0 {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return errors.New("only CERTIFICATE PEM blocks are allowed, found \"" + block.Type + "\"")
		}
		if len(block.Headers) > 0 {
			return errors.New("no PEM block headers are permitted")
		}
		if _, err := x509.ParseCertificates(block.Bytes); err != nil {
			return err
		}
		found, data = true, rest
	}
	if !found {
		return errors.New("must contain at least one CERTIFICATE PEM block")
	}
	return nil
}

func csrRow(csr *certificatesv1.CertificateSigningRequest, now time.Time) []any {
	asked := "<none>"
	if s := csr.Spec.ExpirationSeconds; s != nil {
		asked = duration.HumanDuration(time.Duration(*s) * time.Second)
	}
	return []any{csr.Name, age(csr.CreationTimestamp, now), orNone(csr.Spec.SignerName), csr.Spec.Username, asked, csrText(csr)}
}

func csrText(csr *certificatesv1.CertificateSigningRequest) string {
	has := map[certificatesv1.RequestConditionType]bool{}
	for _, c := range csr.Status.Conditions {
		has[c.Type] = true
	}
	text := "Pending"
	switch {
	case has[certificatesv1.CertificateDenied]:
		text = "Denied"
	case has[certificatesv1.CertificateApproved]:
		text = "Approved"
	}
	if has[certificatesv1.CertificateFailed] {
		text += ",Failed"
	}
	if len(csr.Status.Certificate) > 0 {
		text += ",Issued"
	}
	return text
}
