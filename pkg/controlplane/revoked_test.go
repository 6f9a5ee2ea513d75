package controlplane_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	authenticationv1 "k8s.io/api/authentication/v1"

	"coracle/pkg/controlplane"
	"coracle/pkg/pki"
)

// TestStolenCertificate: a certificate is refused as soon as it is on the list,
// also on connections that are open, and whatever else the request shows; others
// are not, and a list that cannot be read changes nothing.
func TestStolenCertificate(t *testing.T) {
	dir := t.TempDir()
	config := serve(t, dir, func(o *controlplane.ServeOptions) { o.ReloadEvery = 20 * time.Millisecond })
	client := kubernetes.NewForConfigOrDie(config) // one connection for all requests
	who := func() (authenticationv1.UserInfo, error) {
		r, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			return authenticationv1.UserInfo{}, err
		}
		return r.Status.UserInfo, nil
	}
	me, err := who()
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "pki", pki.RevokedFile)
	head, err := os.ReadFile(list)
	if err != nil || string(head) != pki.RevokedHead {
		t.Fatalf("the list begins with %q, %v", head, err)
	}
	// The audit log knows the certificate by the same text.
	put(t, list, append(head, me.Extra["authentication.kubernetes.io/credential-id"][0]+"\n"...))
	within(t, "the certificate is refused", func() error {
		if _, err := who(); !apierrors.IsUnauthorized(err) {
			return apierrors.NewBadRequest("it is not")
		}
		return nil
	})
	if code, _ := ask(t, config, "GET", "/livez"); code != 401 {
		t.Errorf("on a path for everybody: %d", code)
	}
	put(t, list, []byte("not a list\n"))
	if _, err := who(); !apierrors.IsUnauthorized(err) {
		t.Errorf("under a list that cannot be read: %v", err)
	}
	put(t, list, append(head, "serial=1234\n"...))
	within(t, "the certificate is good again", func() error {
		_, err := who()
		return err
	})
}
