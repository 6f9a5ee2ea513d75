package admission

import (
	"context"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/resource"
)

// CertificateRequester writes into a CertificateSigningRequest who made it,
// which approvers and signers go by. Upstream does this in the storage of the
// kind, which does not know users here.
type CertificateRequester struct{}

// Name implements Plugin.
func (CertificateRequester) Name() string { return "CertificateRequester" }

// Handles implements Selective.
func (CertificateRequester) Handles(r schema.GroupResource) bool {
	return r.Group == certificatesv1.GroupName && r.Resource == "certificatesigningrequests"
}

// Admit implements Mutator.
func (CertificateRequester) Admit(_ context.Context, a *Attributes) error {
	csr, ok := a.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok || a.Operation != Create || a.Subresource != "" || a.User == nil {
		return nil
	}
	resource.StampRequester(csr, a.User.Name, a.User.UID, a.User.Groups, a.User.Extra)
	return nil
}
