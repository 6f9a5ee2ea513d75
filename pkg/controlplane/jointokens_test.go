package controlplane_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"coracle/pkg/auth/bootstraptoken"
	"coracle/pkg/controlplane"
)

// joiner is a machine with a key of its own and a token.
type joiner struct {
	key    *ecdsa.PrivateKey
	client kubernetes.Interface
}

func newJoiner(t *testing.T, config *rest.Config, token string) *joiner {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := rest.AnonymousClientConfig(config)
	c.BearerToken, c.QPS = token, -1
	return &joiner{key, kubernetes.NewForConfigOrDie(c)}
}

// ask asks for the certificate of a node.
func (j *joiner) ask(t *testing.T, name, node, signer string, dry bool) error {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}}}, j.key)
	if err != nil {
		t.Error(err)
		return err
	}
	opts := metav1.CreateOptions{}
	if dry {
		opts.DryRun = []string{metav1.DryRunAll}
	}
	_, err = j.client.CertificatesV1().CertificateSigningRequests().Create(t.Context(), &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: signer,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		}}, opts)
	return err
}

// TestTokenIsForOneMachine: of many machines that come with a token at once, one
// gets in, and it alone afterwards; a token without a number, as other tools make
// them, lets all in, but not on a hardened cluster.
func TestTokenIsForOneMachine(t *testing.T) {
	const node = certificatesv1.KubeAPIServerClientKubeletSignerName
	for _, tc := range []struct {
		name     string
		limits   bootstraptoken.Limits
		hardened bool
		want     int
	}{
		{"one", bootstraptoken.Limits{Machines: 1}, false, 1},
		{"three", bootstraptoken.Limits{Machines: 3}, false, 3},
		{"of another tool", bootstraptoken.Limits{}, false, 8},
		{"of another tool, hardened", bootstraptoken.Limits{}, true, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			config := serve(t, t.TempDir(), func(o *controlplane.ServeOptions) { o.Roles, o.BootstrapTokens, o.Hardened = true, true, tc.hardened })
			secret := bootstraptoken.NewSecret(rand.Text(), time.Now().Add(time.Hour), tc.limits)
			made, err := bootstraptoken.Parse(secret)
			if err != nil {
				t.Fatal(err)
			}
			admin := kubernetes.NewForConfigOrDie(config)
			if _, err := admin.CoreV1().Secrets(secret.Namespace).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			token := made.ID + "." + made.Secret
			if tc.limits.Machines > 0 {
				j := newJoiner(t, config, token)
				if err := j.ask(t, "dry", "dry", node, true); err != nil {
					t.Errorf("a dry run: %v", err)
				}
				if err := j.ask(t, "user", "n1", certificatesv1.KubeAPIServerClientSignerName, false); !apierrors.IsForbidden(err) {
					t.Errorf("a certificate that is no node's: %v", err)
				}
			}
			machines := make([]*joiner, 8)
			errs := make([]error, len(machines))
			for i := range machines {
				machines[i] = newJoiner(t, config, token)
			}
			var wg sync.WaitGroup
			for i, j := range machines {
				wg.Go(func() { errs[i] = j.ask(t, fmt.Sprintf("first-%d", i), fmt.Sprintf("n%d", i), node, false) })
			}
			wg.Wait()
			in := 0
			for i, err := range errs {
				if err == nil {
					in++
				} else if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "as many machines as it is for") {
					t.Errorf("machine %d: %v", i, err)
				}
				again := machines[i].ask(t, fmt.Sprintf("again-%d", i), fmt.Sprintf("n%d", i), node, false)
				if (again == nil) != (err == nil) {
					t.Errorf("machine %d, first %v, then %v", i, err, again)
				}
				if tc.want < len(machines) {
					if err := machines[i].ask(t, fmt.Sprintf("other-%d", i), "other", node, false); !apierrors.IsForbidden(err) {
						t.Errorf("machine %d as another node: %v", i, err)
					}
				}
			}
			if in != tc.want {
				t.Errorf("%d machines came in, want %d", in, tc.want)
			}
			within(t, "who came in has a certificate", func() error {
				list, err := admin.CertificatesV1().CertificateSigningRequests().List(t.Context(), metav1.ListOptions{})
				if err != nil {
					return err
				}
				for i := range list.Items {
					if len(list.Items[i].Status.Certificate) == 0 {
						return fmt.Errorf("%s: %+v", list.Items[i].Name, list.Items[i].Status)
					}
				}
				return nil
			})
		})
	}
}
