package trustbundle

import (
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func bundle(name, signer, anchors string) *certificatesv1.ClusterTrustBundle {
	return &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: anchors}}
}

func TestCompute(t *testing.T) {
	right := bundle(bundleName("new"), signer, "new")
	for _, tc := range []struct {
		name                   string
		have                   []*certificatesv1.ClusterTrustBundle
		create, update, remove int
	}{
		{"nothing is there", nil, 1, 0, 0},
		{"it is there", []*certificatesv1.ClusterTrustBundle{right}, 0, 0, 0},
		{"somebody changed it", []*certificatesv1.ClusterTrustBundle{bundle(right.Name, signer, "else")}, 0, 1, 0},
		{"the authority is another", []*certificatesv1.ClusterTrustBundle{bundle(bundleName("old"), signer, "old")}, 1, 0, 1},
		{"others are others", []*certificatesv1.ClusterTrustBundle{right, bundle("x", "", "x"), bundle("example.org:s:x", "example.org/s", "x")}, 0, 0, 0},
	} {
		a := compute(tc.have, "new")
		if (a.create != nil) != (tc.create > 0) || (a.update != nil) != (tc.update > 0) || len(a.remove) != tc.remove {
			t.Errorf("%s: %+v", tc.name, a)
		}
		for _, written := range []*certificatesv1.ClusterTrustBundle{a.create, a.update} {
			if written != nil && (written.Name != right.Name || written.Spec.TrustBundle != "new" || written.Spec.SignerName != signer) {
				t.Errorf("%s: writes %+v", tc.name, written)
			}
		}
	}
}
