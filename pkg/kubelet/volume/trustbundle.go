package volume

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// addTrustBundle adds the certificates of one ClusterTrustBundle, or of all of
// a signer that match a selector.
func (m *Manager) addTrustBundle(ctx context.Context, p *payload, src *corev1.ClusterTrustBundleProjection) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	texts, err := m.trustBundles(ctx, src)
	if err != nil {
		return err
	}
	if len(texts) == 0 && !isTrue(src.Optional) {
		return fmt.Errorf("no ClusterTrustBundle matches the source of %q", src.Path)
	}
	return p.add(src.Path, mergeCertificates(texts), nil, src.User)
}

func (m *Manager) trustBundles(ctx context.Context, src *corev1.ClusterTrustBundleProjection) ([]string, error) {
	client := m.cfg.Client.CertificatesV1().ClusterTrustBundles()
	if src.Name != nil {
		bundle, err := client.Get(ctx, *src.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("ClusterTrustBundle %q: %w", *src.Name, answered(err))
		}
		return []string{bundle.Spec.TrustBundle}, nil
	}
	if src.SignerName == nil || src.LabelSelector == nil {
		return nil, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(src.LabelSelector)
	if err != nil {
		return nil, fmt.Errorf("label selector of ClusterTrustBundles: %w", err)
	}
	list, err := client.List(ctx, metav1.ListOptions{
		LabelSelector: selector.String(),
		FieldSelector: fields.OneTermEqualSelector("spec.signerName", *src.SignerName).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("ClusterTrustBundles of signer %q: %w", *src.SignerName, answered(err))
	}
	var texts []string
	for i := range list.Items {
		texts = append(texts, list.Items[i].Spec.TrustBundle)
	}
	return texts, nil
}

// mergeCertificates joins bundles, each certificate once and in an order that
// does not depend on that of the bundles.
func mergeCertificates(texts []string) []byte {
	var certificates [][]byte
	for _, text := range texts {
		rest := []byte(text)
		for {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			certificates = append(certificates, block.Bytes)
		}
	}
	slices.SortFunc(certificates, bytes.Compare)
	certificates = slices.CompactFunc(certificates, bytes.Equal)
	var out []byte
	for _, der := range certificates {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}
