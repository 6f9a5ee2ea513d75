package volume

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clocktesting "k8s.io/utils/clock/testing"
)

// decideRequests plays the signer: it gives each undecided request the condition
// and, if that is Issued, a certificate for its key that is to be renewed in an
// hour. It returns how many there were.
func decideRequests(t *testing.T, client kubernetes.Interface, condition string, now time.Time) (n int) {
	t.Helper()
	requests := client.CertificatesV1().PodCertificateRequests("ns")
	list, err := requests.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list.Items {
		if len(r.Status.Conditions) > 0 {
			continue
		}
		n++
		r.Status.Conditions = []metav1.Condition{{Type: condition, Status: metav1.ConditionTrue, Reason: "Because", Message: "I say so"}}
		if condition == certificatesv1.PodCertificateRequestConditionTypeIssued {
			csr, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
			if err != nil {
				t.Fatal(err)
			}
			keyPEM, _, err := newPodKey("ED25519")
			if err != nil {
				t.Fatal(err)
			}
			block, _ := pem.Decode(keyPEM)
			signer, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			template := &x509.Certificate{SerialNumber: big.NewInt(now.Unix()), NotAfter: now.Add(2 * time.Hour)}
			der, err := x509.CreateCertificate(rand.Reader, template, template, csr.PublicKey, signer)
			if err != nil {
				t.Fatal(err)
			}
			r.Status.CertificateChain = "between the blocks\n" + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
			r.Status.BeginRefreshAt, r.Status.NotAfter = &metav1.Time{Time: now.Add(time.Hour)}, &metav1.Time{Time: now.Add(2 * time.Hour)}
		}
		if _, err := requests.UpdateStatus(t.Context(), &r, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// TestPodCertificate: a volume waits for its certificate, shows it with its key,
// renews it when the signer wants, keeps it while the next one waits, and gives up
// for good when it is refused.
func TestPodCertificate(t *testing.T) {
	for _, kind := range []string{"ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072"} {
		t.Run(kind, func(t *testing.T) {
			client := fake.NewClientset(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "sa", UID: "sa-uid"}},
				&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "node-uid"}})
			now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
			clk := clocktesting.NewFakePassiveClock(now)
			s := newPodCertificates(client, clk, slog.New(slog.DiscardHandler))
			src := &corev1.PodCertificateProjection{SignerName: "example.com/s", KeyType: kind}
			pod := podWith()
			pod.Spec.NodeName, pod.Spec.ServiceAccountName = "n1", "sa"
			get := func() (*credential, error) { return s.get(t.Context(), certificateKey{pod.UID, "v", 0}, pod, src) }
			for range 3 {
				if _, err := get(); err == nil || !strings.Contains(err.Error(), "has no certificate yet") {
					t.Fatalf("before it is issued: %v", err)
				}
			}
			if n := decideRequests(t, client, certificatesv1.PodCertificateRequestConditionTypeIssued, now); n != 1 {
				t.Fatalf("%d requests, want one", n)
			}
			first, err := get()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tls.X509KeyPair(first.chain, first.key); err != nil || strings.Contains(string(first.chain), "between") {
				t.Errorf("key and chain: %v: %s", err, first.chain)
			}
			clk.SetTime(now.Add(time.Hour))
			if again, err := get(); err != nil || again != first {
				t.Errorf("while the next one waits the first is not in use: %v", err)
			}
			decideRequests(t, client, certificatesv1.PodCertificateRequestConditionTypeIssued, now.Add(time.Hour))
			second, err := get()
			if err != nil || string(second.key) == string(first.key) || string(second.chain) == string(first.chain) {
				t.Errorf("it is not renewed with a new key: %v", err)
			}
			clk.SetTime(now.Add(2 * time.Hour))
			if _, err := get(); err != nil {
				t.Error(err)
			}
			decideRequests(t, client, certificatesv1.PodCertificateRequestConditionTypeDenied, now)
			for range 2 {
				if _, err := get(); err == nil || !strings.Contains(err.Error(), "Denied: Because: I say so") {
					t.Errorf("when it is refused: %v", err)
				}
			}
			if n := decideRequests(t, client, "x", now); n != 0 {
				t.Errorf("after a refusal there are %d new requests", n)
			}
		})
	}
}

// TestPodCertificateFiles: the files are where the source wants them.
func TestPodCertificateFiles(t *testing.T) {
	f := newFixture(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "sa"}}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	pod := podWith(vol("v", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{PodCertificate: &corev1.PodCertificateProjection{
		SignerName: "example.com/s", KeyType: "ED25519", CredentialBundlePath: "both.pem", KeyPath: "key.pem", CertificateChainPath: "chain.pem"}}}}}))
	pod.Spec.NodeName, pod.Spec.ServiceAccountName = "n1", "sa"
	if _, err := f.Mount(t.Context(), pod, PodFacts{}); err == nil {
		t.Fatal("it is mounted without a certificate")
	}
	decideRequests(t, f.client, certificatesv1.PodCertificateRequestConditionTypeIssued, time.Now())
	mounted, err := f.Mount(t.Context(), pod, PodFacts{})
	if err != nil {
		t.Fatal(err)
	}
	dir := mounted["v"].HostPath
	key, chain, both := read(t, dir, "key.pem"), read(t, dir, "chain.pem"), read(t, dir, "both.pem")
	if both != key+chain {
		t.Error("the bundle is not key and chain")
	}
	if _, err := tls.X509KeyPair([]byte(chain), []byte(key)); err != nil {
		t.Error(err)
	}
}
