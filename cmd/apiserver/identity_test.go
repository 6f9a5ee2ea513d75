package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// startServer runs the program with a folder of its own, until the test ends,
// and returns the administrator's client configuration.
func startServer(t *testing.T, dir string, args ...string) *rest.Config {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := newCommand(slog.New(slog.DiscardHandler))
	cmd.SetArgs(append([]string{"--data-dir", dir, "--storage-backend", "memory", "--secure-port", "0"}, args...))
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server: %v", err)
		}
	})
	path := filepath.Join(dir, "admin.kubeconfig")
	within(t, "the kubeconfig is there", func() error {
		_, err := os.Stat(path)
		return err
	})
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	return config
}

// within asks until the answer is nil.
func within(t *testing.T, what string, check func() error) {
	t.Helper()
	err := check()
	for deadline := time.Now().Add(time.Minute); err != nil && time.Now().Before(deadline); err = check() {
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// bearer is the client of who has nothing but a token.
func bearer(config *rest.Config, token string) *kubernetes.Clientset {
	c := rest.AnonymousClientConfig(config)
	c.BearerToken, c.QPS = token, -1
	return kubernetes.NewForConfigOrDie(c)
}

// whoami is how the server knows the bearer of a token.
func whoami(ctx context.Context, config *rest.Config, token string) (authenticationv1.UserInfo, error) {
	r, err := bearer(config, token).AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.UserInfo{}, err
	}
	return r.Status.UserInfo, nil
}

func bootstrapSecret() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-abc123", Namespace: "kube-system"}, Type: "bootstrap.kubernetes.io/token",
		StringData: map[string]string{
			"token-id": "abc123", "token-secret": "0123456789abcdef",
			"usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
			"auth-extra-groups": "system:bootstrappers:workers",
		},
	}
}

// TestBootstrapTokenAuth: a token lets a machine in when the flag is given,
// until its Secret is gone, and cluster-info is signed for everybody to read.
func TestBootstrapTokenAuth(t *testing.T) {
	const token = "abc123.0123456789abcdef"
	config := startServer(t, t.TempDir(), "--enable-bootstrap-token-auth", "--all-in-one", "--advertise-address", "192.0.2.10")
	admin := kubernetes.NewForConfigOrDie(config)
	if _, err := admin.CoreV1().Secrets("kube-system").Create(t.Context(), bootstrapSecret(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	me, err := whoami(t.Context(), config, token)
	if err != nil {
		t.Fatal(err)
	}
	if me.Username != "system:bootstrap:abc123" || len(me.Groups) != 3 || me.Groups[0] != "system:bootstrappers" ||
		me.Groups[1] != "system:bootstrappers:workers" || me.Groups[2] != "system:authenticated" {
		t.Errorf("known as %+v", me)
	}
	if _, err := whoami(t.Context(), config, "abc123.0123456789abcdee"); !apierrors.IsUnauthorized(err) {
		t.Errorf("a wrong secret: %v", err)
	}
	within(t, "anybody reads the signed cluster-info", func() error {
		m, err := bearer(config, "").CoreV1().ConfigMaps("kube-public").Get(t.Context(), "cluster-info", metav1.GetOptions{})
		if err == nil && m.Data["jws-kubeconfig-abc123"] == "" {
			return apierrors.NewNotFound(corev1.Resource("signatures"), "abc123")
		}
		return err
	})
	if _, err := bearer(config, "").CoreV1().ConfigMaps("kube-public").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("anybody lists: %v", err)
	}
	if err := admin.CoreV1().Secrets("kube-system").Delete(t.Context(), "bootstrap-token-abc123", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := whoami(t.Context(), config, token); !apierrors.IsUnauthorized(err) {
		t.Errorf("the token of a Secret that is gone: %v", err)
	}
}

// TestBootstrapTokensAreOffByDefault: without the flag a token is nothing.
func TestBootstrapTokensAreOffByDefault(t *testing.T) {
	config := startServer(t, t.TempDir())
	if _, err := kubernetes.NewForConfigOrDie(config).CoreV1().Secrets("kube-system").Create(t.Context(), bootstrapSecret(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := whoami(t.Context(), config, "abc123.0123456789abcdef"); !apierrors.IsUnauthorized(err) {
		t.Errorf("a bootstrap token without the flag: %v", err)
	}
}

func newAccount(name string) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
}
