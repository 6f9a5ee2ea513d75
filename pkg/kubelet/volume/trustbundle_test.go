package volume

import (
	"encoding/pem"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestTrustBundles(t *testing.T) {
	block := func(s string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(s)}))
	}
	bundle := func(name string, certs ...string) *certificatesv1.ClusterTrustBundle {
		b := &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"use": "yes"}}}
		b.Spec.SignerName = "example.com/s"
		b.Spec.TrustBundle = "# a comment\n" + strings.Join(certs, "")
		return b
	}
	f := newFixture(t, bundle("one", block("b"), block("a")), bundle("two", block("b"), block("c")))
	all := &metav1.LabelSelector{MatchLabels: map[string]string{"use": "yes"}}
	for name, tt := range map[string]struct {
		src     corev1.ClusterTrustBundleProjection
		want    string
		wantErr bool
	}{
		"by name":          {src: corev1.ClusterTrustBundleProjection{Name: ptr("one")}, want: block("a") + block("b")},
		"by signer":        {src: corev1.ClusterTrustBundleProjection{SignerName: ptr("example.com/s"), LabelSelector: all}, want: block("a") + block("b") + block("c")},
		"no selector":      {src: corev1.ClusterTrustBundleProjection{SignerName: ptr("example.com/s")}, wantErr: true},
		"missing":          {src: corev1.ClusterTrustBundleProjection{Name: ptr("none")}, wantErr: true},
		"missing optional": {src: corev1.ClusterTrustBundleProjection{Name: ptr("none"), Optional: ptr(true)}},
	} {
		t.Run(name, func(t *testing.T) {
			tt.src.Path = "ca.pem"
			pod := podWith(vol("v", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ClusterTrustBundle: &tt.src}}}}))
			mounted, err := f.Mount(t.Context(), pod, PodFacts{})
			if (err != nil) != tt.wantErr {
				t.Fatalf("error %v", err)
			}
			if err == nil {
				if got := read(t, mounted["v"].HostPath, "ca.pem"); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			}
		})
	}
}
