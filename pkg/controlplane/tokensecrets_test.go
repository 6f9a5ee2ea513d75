package controlplane_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"coracle/pkg/controlplane"
)

// TestTokenInSecret: a Secret of the type gets a token with which its account
// is known, until the Secret is marked, changed or deleted.
func TestTokenInSecret(t *testing.T) {
	admin := serve(t, t.TempDir(), func(o *controlplane.ServeOptions) { o.Roles = true })
	client := kubernetes.NewForConfigOrDie(admin)
	ctx := t.Context()
	if _, err := client.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	secrets := client.CoreV1().Secrets("default")
	filled := func(name string) string {
		t.Helper()
		_, err := secrets.Create(ctx, &corev1.Secret{Type: corev1.SecretTypeServiceAccountToken,
			ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{corev1.ServiceAccountNameKey: "robot"}}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var s *corev1.Secret
		within(t, "the secret is filled", func() (err error) {
			if s, err = secrets.Get(ctx, name, metav1.GetOptions{}); err == nil && len(s.Data) != 3 {
				err = fmt.Errorf("it has %d keys", len(s.Data))
			}
			return err
		})
		return string(s.Data["token"])
	}
	show := func(text string) int {
		t.Helper()
		stranger := rest.AnonymousClientConfig(admin)
		code, _ := ask(t, stranger, http.MethodGet, "/api", "Authorization", "Bearer "+text)
		return code
	}
	review := func(text string) authenticationv1.TokenReviewStatus {
		t.Helper()
		r, err := client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: text}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return r.Status
	}
	patch := func(name, text string) {
		t.Helper()
		if _, err := secrets.Patch(ctx, name, types.MergePatchType, []byte(text), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}

	began := time.Now().UTC()
	tracking, err := client.CoreV1().ConfigMaps("kube-system").Get(ctx, "kube-apiserver-legacy-service-account-token-tracking", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := time.Parse(time.DateOnly, tracking.Data["since"]); err != nil {
		t.Error(err)
	}
	text := filled("kept")
	if code := show(text); code != http.StatusOK {
		t.Fatalf("the token gets a %d: %+v", code, review(text))
	}
	s, err := secrets.Get(ctx, "kept", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if day := s.Labels["kubernetes.io/legacy-token-last-used"]; day != began.Format(time.DateOnly) && day != time.Now().UTC().Format(time.DateOnly) {
		t.Errorf("it was last used on %q", day)
	}
	if r := review(text); !r.Authenticated || r.User.Username != "system:serviceaccount:default:robot" || r.Error != "" {
		t.Errorf("the review says %+v", r)
	}
	refused := func(why, text string) {
		t.Helper()
		if code, r := show(text), review(text); code != http.StatusUnauthorized || r.Authenticated {
			t.Errorf("%s: it gets a %d, and the review says %+v", why, code, r)
		}
	}
	patch("kept", `{"metadata":{"labels":{"kubernetes.io/legacy-token-invalid-since":"2026-01-01"}}}`)
	refused("marked", text)
	patch("kept", `{"metadata":{"labels":{"kubernetes.io/legacy-token-invalid-since":null}}}`)
	if code := show(text); code != http.StatusOK {
		t.Errorf("with no mark any more it gets a %d", code)
	}
	patch("kept", `{"stringData":{"token":"another"}}`)
	refused("changed", text)
	refused("changed", "another")
	if err := secrets.Delete(ctx, "kept", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	refused("deleted", text)
	second := filled("second")
	if code := show(second); code != http.StatusOK {
		t.Errorf("the second token gets a %d", code)
	}
	if err := client.CoreV1().ServiceAccounts("default").Delete(ctx, "robot", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	refused("without its account", second)
}
