package admission

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

var (
	csrGVR    = certificatesv1.SchemeGroupVersion.WithResource("certificatesigningrequests")
	bundleGVR = certificatesv1.SchemeGroupVersion.WithResource("clustertrustbundles")
)

func csr(signer string, change func(*certificatesv1.CertificateSigningRequest)) *certificatesv1.CertificateSigningRequest {
	c := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: signer}}
	if change != nil {
		change(c)
	}
	return c
}

func TestCertificateApprovalAndSigning(t *testing.T) {
	approved := func(c *certificatesv1.CertificateSigningRequest) {
		c.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved}}
	}
	issued := func(c *certificatesv1.CertificateSigningRequest) { c.Status.Certificate = []byte("x") }
	tests := []struct {
		name, sub string
		rules     []string
		change    func(*certificatesv1.CertificateSigningRequest)
		refusal   string
	}{
		{"approve", "approval", []string{"approve signers example.com/a"}, approved, ""},
		{"approve by domain", "approval", []string{"approve signers example.com/*"}, approved, ""},
		{"approve another's", "approval", []string{"approve signers example.com/b", "sign signers example.com/a"}, approved,
			`user not permitted to approve requests with signerName "example.com/a"`},
		{"approve what asks for an allowed signer", "approval", []string{"approve signers example.com/b"},
			func(c *certificatesv1.CertificateSigningRequest) { c.Spec.SignerName = "example.com/b" }, "not permitted to approve"},
		{"sign", "status", []string{"sign signers example.com/a"}, issued, ""},
		{"sign another's", "status", []string{"approve signers example.com/a"}, issued,
			`user not permitted to sign requests with signerName "example.com/a"`},
		{"fail another's", "status", nil, approved, "not permitted to sign"},
		{"change nothing", "status", nil, nil, ""},
		{"labels", "", nil, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			authz := allowing(tt.rules...)
			a := request(t, Update, csrGVR, tt.sub, csr("example.com/a", tt.change), csr("example.com/a", nil))
			err := pass(t, CertificateApproval{Authorizer: authz}, a)
			if err == nil {
				err = pass(t, CertificateSigning{Authorizer: authz}, a)
			}
			refused(t, err, tt.refusal)
		})
	}
}

func TestCertificateSubjectRestriction(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	asks := func(groups ...string) func(*certificatesv1.CertificateSigningRequest) {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "u", Organization: groups}}, key)
		if err != nil {
			t.Fatal(err)
		}
		return func(c *certificatesv1.CertificateSigningRequest) {
			c.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
		}
	}
	const client = certificatesv1.KubeAPIServerClientSignerName
	for _, tt := range []struct {
		name    string
		csr     *certificatesv1.CertificateSigningRequest
		refusal string
	}{
		{"a group", csr(client, asks("dev")), ""},
		{"masters", csr(client, asks("dev", "system:masters")), "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"},
		{"masters of another signer", csr("example.com/a", asks("system:masters")), ""},
		{"not a request", csr(client, nil), "failed to parse CSR"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refused(t, pass(t, CertificateSubjectRestriction{}, request(t, Create, csrGVR, "", tt.csr, nil)), tt.refusal)
		})
	}
}

func TestClusterTrustBundleAttest(t *testing.T) {
	bundle := func(signer, anchors string) *certificatesv1.ClusterTrustBundle {
		return &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "b"},
			Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: anchors}}
	}
	collected := bundle("example.com/a", "x")
	collected.Finalizers = []string{"example.com/f"}
	plugin := ClusterTrustBundleAttest{Authorizer: allowing("attest signers example.com/b")}
	for _, tt := range []struct {
		name     string
		op       Operation
		obj, old runtime.Object
		refusal  string
	}{
		{"no signer", Create, bundle("", "x"), nil, ""},
		{"may", Create, bundle("example.com/b", "x"), nil, ""},
		{"may not", Create, bundle("example.com/a", "x"), nil, `user not permitted to attest for signerName "example.com/a"`},
		{"new anchors", Update, bundle("example.com/a", "y"), bundle("example.com/a", "x"), "not permitted to attest"},
		{"a finalizer", Update, collected, bundle("example.com/a", "x"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refused(t, pass(t, plugin, request(t, tt.op, bundleGVR, "", tt.obj, tt.old)), tt.refusal)
		})
	}
}

func TestOwnerReferencesPermissionEnforcement(t *testing.T) {
	ref := func(kind, uid string, blocks bool) metav1.OwnerReference {
		r := metav1.OwnerReference{APIVersion: "v1", Kind: kind, Name: "o", UID: "u"}
		if blocks {
			r.BlockOwnerDeletion = new(true)
		}
		return r
	}
	owned := func(refs ...metav1.OwnerReference) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns", OwnerReferences: refs}}
	}
	for _, tt := range []struct {
		name     string
		rules    []string
		op       Operation
		obj, old runtime.Object
		refusal  string
	}{
		{"none", nil, Create, owned(), nil, ""},
		{"created with", nil, Create, owned(ref("Pod", "u", false)), nil, ""},
		{"added by who may delete", []string{"delete configmaps c"}, Update, owned(ref("Pod", "u", false)), owned(), ""},
		{"added by who may not", nil, Update, owned(ref("Pod", "u", false)), owned(), "cannot set an ownerRef on a resource you can't delete: , <nil>"},
		{"kept", nil, Update, owned(ref("Pod", "u", true)), owned(ref("Pod", "u", true)), ""},
		{"blocks", nil, Create, owned(ref("Pod", "u", true)), nil, "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>"},
		{"blocks and may", []string{"update pods/finalizers o"}, Create, owned(ref("Pod", "u", true)), nil, ""},
		{"blocks and may everything", []string{"update */finalizers *"}, Create, owned(ref("Nothing", "u", true)), nil, ""},
		{"blocks an unknown kind", nil, Create, owned(ref("Nothing", "u", true)), nil,
			"cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion v1 Kind Nothing"},
		{"begins to block", []string{"delete configmaps c"}, Update, owned(ref("Pod", "u", true)), owned(ref("Pod", "u", false)), "cannot set blockOwnerDeletion"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plugin := OwnerReferencesPermissionEnforcement{Authorizer: allowing(tt.rules...), Kinds: table.ByGVK}
			refused(t, pass(t, plugin, request(t, tt.op, corev1.SchemeGroupVersion.WithResource("configmaps"), "", tt.obj, tt.old)), tt.refusal)
		})
	}
}
