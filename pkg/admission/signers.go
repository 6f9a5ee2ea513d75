package admission

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/auth"
	"coracle/pkg/resource"
)

// maySign says that user may do verb on a signer, by its name or by its
// domain ("example.com/*").
func maySign(ctx context.Context, authz auth.Authorizer, user *auth.User, verb, signer string) bool {
	domain, _, _ := strings.Cut(signer, "/")
	return slices.ContainsFunc([]string{signer, domain + "/*"}, func(name string) bool {
		d, _, _ := authz.Authorize(ctx, auth.Attributes{
			User: user, Verb: verb, APIGroup: certificatesv1.GroupName, APIVersion: "*",
			Resource: "signers", Name: name, ResourceRequest: true,
		})
		return d == auth.Allow
	})
}

// CertificateApproval lets only those decide on a CertificateSigningRequest
// who may approve for its signer.
type CertificateApproval struct{ Authorizer auth.Authorizer }

// Name implements Plugin.
func (CertificateApproval) Name() string { return "CertificateApproval" }

// Handles implements Selective.
func (CertificateApproval) Handles(r schema.GroupResource) bool {
	return r.Group == certificatesv1.GroupName && r.Resource == "certificatesigningrequests"
}

// Validate implements Validator.
func (p CertificateApproval) Validate(ctx context.Context, a *Attributes) error {
	old, ok := a.Old().(*certificatesv1.CertificateSigningRequest)
	if !ok || a.Operation != Update || a.Subresource != "approval" {
		return nil
	}
	// The stored signer counts, whatever the request says.
	if !maySign(ctx, p.Authorizer, a.User, "approve", old.Spec.SignerName) {
		return forbidden(a, fmt.Errorf("user not permitted to approve requests with signerName %q", old.Spec.SignerName))
	}
	return nil
}

// CertificateSigning lets only those issue a certificate who may sign for the
// request's signer.
type CertificateSigning struct{ Authorizer auth.Authorizer }

// Name implements Plugin.
func (CertificateSigning) Name() string { return "CertificateSigning" }

// Handles implements Selective.
func (CertificateSigning) Handles(r schema.GroupResource) bool {
	return r.Group == certificatesv1.GroupName && r.Resource == "certificatesigningrequests"
}

// Validate implements Validator.
func (p CertificateSigning) Validate(ctx context.Context, a *Attributes) error {
	csr, ok := a.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok || a.Operation != Update || a.Subresource != "status" {
		return nil
	}
	old := a.Old().(*certificatesv1.CertificateSigningRequest)
	if bytes.Equal(old.Status.Certificate, csr.Status.Certificate) && equality.Semantic.DeepEqual(old.Status.Conditions, csr.Status.Conditions) {
		return nil
	}
	if !maySign(ctx, p.Authorizer, a.User, "sign", old.Spec.SignerName) {
		return forbidden(a, fmt.Errorf("user not permitted to sign requests with signerName %q", old.Spec.SignerName))
	}
	return nil
}

// CertificateSubjectRestriction keeps the signer of API clients from making
// members of system:masters, whom no role can be taken from.
type CertificateSubjectRestriction struct{}

// Name implements Plugin.
func (CertificateSubjectRestriction) Name() string { return "CertificateSubjectRestriction" }

// Handles implements Selective.
func (CertificateSubjectRestriction) Handles(r schema.GroupResource) bool {
	return r.Group == certificatesv1.GroupName && r.Resource == "certificatesigningrequests"
}

// Validate implements Validator.
func (CertificateSubjectRestriction) Validate(_ context.Context, a *Attributes) error {
	csr, ok := a.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok || a.Operation != Create || a.Subresource != "" || csr.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return nil
	}
	asked, err := resource.ParseCertificateRequest(csr.Spec.Request)
	if err != nil {
		return forbidden(a, fmt.Errorf("failed to parse CSR: %w", err))
	}
	if slices.Contains(asked.Subject.Organization, auth.GroupMasters) {
		return forbidden(a, fmt.Errorf("use of %s signer with %s group is not allowed", csr.Spec.SignerName, auth.GroupMasters))
	}
	return nil
}

// ClusterTrustBundleAttest lets only those publish the trust anchors of a
// signer who may attest for it.
type ClusterTrustBundleAttest struct{ Authorizer auth.Authorizer }

// Name implements Plugin.
func (ClusterTrustBundleAttest) Name() string { return "ClusterTrustBundleAttest" }

// Handles implements Selective.
func (ClusterTrustBundleAttest) Handles(r schema.GroupResource) bool {
	return r.Group == certificatesv1.GroupName && r.Resource == "clustertrustbundles"
}

// Validate implements Validator.
func (p ClusterTrustBundleAttest) Validate(ctx context.Context, a *Attributes) error {
	bundle, ok := a.Object.(*certificatesv1.ClusterTrustBundle)
	if !ok || a.Operation != Create && a.Operation != Update || bundle.Spec.SignerName == "" {
		return nil
	}
	if old, ok := a.Old().(*certificatesv1.ClusterTrustBundle); ok && equality.Semantic.DeepEqual(bundle.Spec, old.Spec) &&
		equality.Semantic.DeepEqual(bundle.Labels, old.Labels) && equality.Semantic.DeepEqual(bundle.Annotations, old.Annotations) {
		return nil // the garbage collector and storage migration change neither
	}
	if !maySign(ctx, p.Authorizer, a.User, "attest", bundle.Spec.SignerName) {
		return forbidden(a, fmt.Errorf("user not permitted to attest for signerName %q", bundle.Spec.SignerName))
	}
	return nil
}
