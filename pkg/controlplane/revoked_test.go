package controlplane_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"

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

// watching is a watch of a client's own connection, by HTTP/2 or 1.1, that has
// begun.
func watching(t *testing.T, config *rest.Config, pair *pki.Pair, protocol string) watch.Interface {
	t.Helper()
	config = rest.CopyConfig(config)
	config.CertData, config.KeyData, config.NextProtos = pair.CertPEM, pair.KeyPEM, []string{protocol}
	w, err := kubernetes.NewForConfigOrDie(config).CoreV1().Namespaces().Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	if e := <-w.ResultChan(); e.Type != watch.Added {
		t.Fatalf("the watch begins with %+v", e)
	}
	return w
}

// TestRevokedWatchesEnd: what is under way under a certificate ends when the
// certificate is put on the list, and what is under way under another goes on.
func TestRevokedWatchesEnd(t *testing.T) {
	dir := t.TempDir()
	config := serve(t, dir, func(o *controlplane.ServeOptions) { o.ReloadEvery = 20 * time.Millisecond })
	ca, err := pki.LoadOrCreateCA(filepath.Join(dir, "pki"), "ca", "", time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issue := func() *pki.Pair {
		pair, err := ca.Issue(pki.Request{CommonName: "ann", Organization: []string{"system:masters"}, ClientAuth: true}, time.Now(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	stolen, good := issue(), issue()
	var ending []watch.Interface
	for _, protocol := range []string{"h2", "http/1.1"} {
		ending = append(ending, watching(t, config, stolen, protocol))
	}
	staying := watching(t, config, good, "h2")
	put(t, filepath.Join(dir, "pki", pki.RevokedFile), []byte("serial="+stolen.Cert.SerialNumber.Text(16)+"\n"))
	for i, w := range ending {
		limit := time.After(time.Minute)
		for open := true; open; {
			select {
			case _, open = <-w.ResultChan():
			case <-limit:
				t.Fatalf("watch %d of the stolen certificate goes on", i)
			}
		}
	}
	_, err = kubernetes.NewForConfigOrDie(config).CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "later"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for e := range staying.ResultChan() {
		if ns, ok := e.Object.(*corev1.Namespace); ok && ns.Name == "later" {
			return
		}
	}
	t.Error("the watch of the other certificate has ended too")
}
