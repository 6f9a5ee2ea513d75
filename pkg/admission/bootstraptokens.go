package admission

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/auth/bootstraptoken"
	"coracle/pkg/resource"
)

// nodeUserPrefix begins the names of nodes as users.
const nodeUserPrefix = "system:node:"

// BootstrapTokenUse has a bootstrap token let in the machines that it is for, and
// no others: the first request for a node's certificate binds the token to the
// node's name and to the machine's key. Whoever else has come by the token gets
// nothing with it.
type BootstrapTokenUse struct {
	// LetIn asks the token for a machine, and notes it unless dry.
	LetIn func(ctx context.Context, token string, m bootstraptoken.Machine, dry bool) error
	// Limited says whether a token is for certain machines. One of which nothing is
	// known is not.
	Limited func(ctx context.Context, token string) (bool, error)
}

// Name implements Plugin.
func (BootstrapTokenUse) Name() string { return "BootstrapTokenUse" }

// Handles implements Selective.
func (BootstrapTokenUse) Handles(r schema.GroupResource) bool {
	return r.Group == certificatesv1.GroupName && r.Resource == "certificatesigningrequests"
}

// Validate implements Validator.
func (p BootstrapTokenUse) Validate(ctx context.Context, a *Attributes) error {
	csr, ok := a.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok || a.Operation != Create || a.Subresource != "" || a.User == nil {
		return nil
	}
	token, ok := strings.CutPrefix(a.User.Name, bootstraptoken.UserPrefix)
	if !ok {
		return nil
	}
	limited, err := p.Limited(ctx, token)
	if err != nil || !limited {
		return err
	}
	if csr.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return forbidden(a, fmt.Errorf("a token to join is for certificates of the signer %s", certificatesv1.KubeAPIServerClientKubeletSignerName))
	}
	asked, err := resource.ParseCertificateRequest(csr.Spec.Request)
	if err != nil {
		return forbidden(a, fmt.Errorf("failed to parse CSR: %w", err))
	}
	node, ok := strings.CutPrefix(asked.Subject.CommonName, nodeUserPrefix)
	if !ok {
		return forbidden(a, errors.New("a token to join is for a node's certificate"))
	}
	sum := sha256.Sum256(asked.RawSubjectPublicKeyInfo)
	if err := p.LetIn(ctx, token, bootstraptoken.Machine{Node: node, Key: hex.EncodeToString(sum[:])}, a.DryRun); err != nil {
		return forbidden(a, err)
	}
	return nil
}
