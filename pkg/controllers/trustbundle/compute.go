package trustbundle

import (
	"crypto/sha256"
	"fmt"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// signer is that of the API server's serving certificate.
const signer = "kubernetes.io/kube-apiserver-serving"

// actions are what makes the published bundles those that are wanted: at most one
// is created or updated, and when it is there the others are deleted.
type actions struct {
	create, update *certificatesv1.ClusterTrustBundle
	remove         []*certificatesv1.ClusterTrustBundle
}

// compute compares the bundles that there are, of whatever signer, with anchors.
func compute(have []*certificatesv1.ClusterTrustBundle, anchors string) actions {
	var a actions
	name, found := bundleName(anchors), false
	for _, b := range have {
		switch {
		case b.Spec.SignerName != signer:
		case b.Name != name:
			a.remove = append(a.remove, b)
		default:
			found = true
			if b.Spec.TrustBundle != anchors {
				a.update = b.DeepCopy()
				a.update.Spec.TrustBundle = anchors
			}
		}
	}
	if !found {
		a.create = &certificatesv1.ClusterTrustBundle{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: anchors},
		}
	}
	return a
}

// bundleName is another for each content, so that new anchors are there before the
// old ones go.
func bundleName(anchors string) string {
	sum := sha256.Sum256([]byte(anchors))
	return fmt.Sprintf("%s:%x", strings.ReplaceAll(signer, "/", ":"), sum[:12])
}
