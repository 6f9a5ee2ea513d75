package controllers_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"coracle/pkg/controllers"
	"coracle/pkg/pki"
)

func request(t testing.TB, name, commonName string, groups ...string) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	return requestOf(t, name, x509.CertificateRequest{Subject: pkix.Name{CommonName: commonName, Organization: groups}})
}

func requestOf(t testing.TB, name string, what x509.CertificateRequest) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &what, key)
	if err != nil {
		t.Fatal(err)
	}
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName,
			Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		},
	}
}

// bind gives a subject a ClusterRole.
func (c *cluster) bind(role string, subject rbacv1.Subject) {
	c.t.Helper()
	_, err := c.Client.RbacV1().ClusterRoleBindings().Create(c.t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{subject},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
}

func TestNodesRenewTheirCertificate(t *testing.T) {
	ca, err := pki.NewCA("test", 0, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	scenario(t, func(t *testing.T, c *cluster) {
		admin := c.Client.CertificatesV1().CertificateSigningRequests()
		c.bind("system:node-bootstrapper", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: "eve"})
		c.bind("system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "system:nodes"})
		for _, ask := range []struct {
			as     *rest.Config
			name   string
			groups []string
			what   *certificatesv1.CertificateSigningRequest
		}{
			{c.As("system:node:node-1", "system:nodes"), "system:node:node-1", []string{"system:nodes", "system:authenticated"}, request(t, "own", "system:node:node-1", "system:nodes")},
			{c.As("eve"), "eve", []string{"system:authenticated"}, request(t, "anothers", "system:node:node-1", "system:nodes")},
		} {
			ask.what.Spec.Username, ask.what.Spec.Groups = ask.name, ask.groups
			client := kubernetes.NewForConfigOrDie(ask.as).CertificatesV1().CertificateSigningRequests()
			c.eventually("the request is made", func() error { // once the new binding counts
				_, err := client.Create(t.Context(), ask.what, metav1.CreateOptions{})
				return err
			})
		}
		c.eventually("the node's own certificate is issued", func() error {
			r, err := admin.Get(t.Context(), "own", metav1.GetOptions{})
			if err != nil || len(r.Status.Certificate) == 0 {
				return fmt.Errorf("status %+v, err %v", r.Status, err)
			}
			block, _ := pem.Decode(r.Status.Certificate)
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil || cert.Subject.CommonName != "system:node:node-1" {
				t.Fatalf("certificate for %v, err %v", cert.Subject, err)
			}
			return nil
		})
		r, err := admin.Get(t.Context(), "anothers", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Status.Conditions) != 0 || len(r.Status.Certificate) != 0 {
			t.Errorf("somebody got a node's certificate: %+v", r.Status)
		}
		bad := request(t, "bad", "system:node:node-1", "system:nodes", "system:masters")
		if bad, err = admin.Create(t.Context(), bad, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		bad.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{
			Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "ByHand",
		}}
		if _, err := admin.UpdateApproval(t.Context(), "bad", bad, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("a request that must not be signed fails, though approved", func() error {
			r, err := admin.Get(t.Context(), "bad", metav1.GetOptions{})
			if err != nil {
				return err
			}
			for _, cond := range r.Status.Conditions {
				if cond.Type == certificatesv1.CertificateFailed && cond.Reason == "SignerValidationFailure" {
					return nil
				}
			}
			return fmt.Errorf("status %+v", r.Status)
		})
		c.node.stop() // its steps would fill the day
		time.Sleep(61 * time.Minute)
		for _, name := range []string{"own", "bad"} {
			if _, err := admin.Get(t.Context(), name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("request %s is kept for ever: %v", name, err)
			}
		}
	}, func(c *controllers.Config) { c.Signer = ca })
}

// TestTokensDoNotPose: with a token to join a machine becomes a new node, but not
// one that is there.
func TestTokensDoNotPose(t *testing.T) {
	ca, err := pki.NewCA("test", 0, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	scenario(t, func(t *testing.T, c *cluster) {
		const joiner = "system:bootstrap:abcdef"
		subject := rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: joiner}
		c.bind("system:node-bootstrapper", subject)
		c.bind("system:certificates.k8s.io:certificatesigningrequests:nodeclient", subject)
		c.eventually("the node is ready", func() error {
			n, err := c.Client.CoreV1().Nodes().Get(t.Context(), "node-1", metav1.GetOptions{})
			if err != nil {
				return err
			}
			for _, cond := range n.Status.Conditions {
				if cond.Type == corev1.NodeReady && cond.Status == corev1.ConditionTrue {
					return nil
				}
			}
			return fmt.Errorf("%+v", n.Status.Conditions)
		})
		client := kubernetes.NewForConfigOrDie(c.As(joiner, "system:bootstrappers")).CertificatesV1().CertificateSigningRequests()
		for _, name := range []string{"node-1", "node-9"} { // the first is decided first
			r := request(t, name, "system:node:"+name, "system:nodes")
			r.Spec.Username, r.Spec.Groups = joiner, []string{"system:bootstrappers", "system:authenticated"}
			c.eventually("the request is made", func() error {
				_, err := client.Create(t.Context(), r, metav1.CreateOptions{})
				return err
			})
		}
		admin := c.Client.CertificatesV1().CertificateSigningRequests()
		c.eventually("the new node's certificate is issued", func() error {
			r, err := admin.Get(t.Context(), "node-9", metav1.GetOptions{})
			if err != nil || len(r.Status.Certificate) == 0 {
				return fmt.Errorf("status %+v, err %v", r.Status, err)
			}
			return nil
		})
		r, err := admin.Get(t.Context(), "node-1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Status.Conditions) != 0 || len(r.Status.Certificate) != 0 {
			t.Errorf("a token got the certificate of a node that is there: %+v", r.Status)
		}
	}, func(c *controllers.Config) { c.Signer = ca })
}

// TestNodesGetServingCertificates: a node's server gets a certificate for what the
// Node object says, as soon as it says so, and for nothing else.
func TestNodesGetServingCertificates(t *testing.T) {
	ca, err := pki.NewCA("test", 0, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	scenario(t, func(t *testing.T, c *cluster) {
		admin := c.Client.CertificatesV1().CertificateSigningRequests()
		own := kubernetes.NewForConfigOrDie(c.As("system:node:node-1", "system:nodes")).CertificatesV1().CertificateSigningRequests()
		subject := pkix.Name{CommonName: "system:node:node-1", Organization: []string{"system:nodes"}}
		for name, what := range map[string]x509.CertificateRequest{
			"named":   {Subject: subject, DNSNames: []string{"node-1"}},
			"later":   {Subject: subject, DNSNames: []string{"node-1"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}},
			"foreign": {Subject: subject, DNSNames: []string{"node-1", "node-2"}},
		} {
			r := requestOf(t, name, what)
			r.Spec.SignerName = certificatesv1.KubeletServingSignerName
			r.Spec.Usages = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth}
			r.Spec.Username, r.Spec.Groups = "system:node:node-1", []string{"system:nodes", "system:authenticated"}
			if _, err := own.Create(t.Context(), r, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		issued := func(name string) func() error {
			return func() error {
				r, err := admin.Get(t.Context(), name, metav1.GetOptions{})
				if err != nil {
					return err
				}
				if len(r.Status.Certificate) == 0 {
					return fmt.Errorf("status %+v", r.Status)
				}
				return nil
			}
		}
		c.eventually("the node's name is certified", issued("named"))
		synctest.Wait()
		if issued("later")() == nil {
			t.Error("the node got a certificate for an address that it did not have")
		}
		node, err := c.Client.CoreV1().Nodes().Get(t.Context(), "node-1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}
		if _, err := c.Client.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("the address is certified when the node has it", issued("later"))
		r, err := admin.Get(t.Context(), "foreign", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Status.Conditions) != 0 || len(r.Status.Certificate) != 0 {
			t.Errorf("a node got a certificate with another's name: %+v", r.Status)
		}
	}, func(c *controllers.Config) { c.Signer = ca })
}

// TestAuthorityIsPublished: the API server's authority is a ClusterTrustBundle,
// and comes back when somebody deletes or changes it.
func TestAuthorityIsPublished(t *testing.T) {
	ca, err := pki.NewCA("test", 0, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	scenario(t, func(t *testing.T, c *cluster) {
		bundles := c.Client.CertificatesV1().ClusterTrustBundles()
		const signer = "kubernetes.io/kube-apiserver-serving"
		published := func() error {
			list, err := bundles.List(t.Context(), metav1.ListOptions{FieldSelector: "spec.signerName=" + signer})
			if err != nil {
				return err
			}
			if len(list.Items) != 1 || list.Items[0].Spec.TrustBundle != string(ca.CertPEM()) {
				return fmt.Errorf("bundles are %+v", list.Items)
			}
			return nil
		}
		c.eventually("the authority is published", published)
		other, err := pki.NewCA("other", 0, time.Now(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		_, err = bundles.Create(t.Context(), &certificatesv1.ClusterTrustBundle{
			ObjectMeta: metav1.ObjectMeta{Name: "kubernetes.io:kube-apiserver-serving:old"},
			Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: string(other.CertPEM())},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c.eventually("an old authority goes", published)
		list, err := bundles.List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := bundles.Delete(t.Context(), list.Items[0].Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("the authority is published again", published)
	}, func(c *controllers.Config) { c.CABundle = pki.NewBundle(ca.CertPEM()) })
}
