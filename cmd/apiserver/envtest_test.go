package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"go.etcd.io/etcd/server/v3/etcdmain"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// roleVariable makes the test binary one of the programs that envtest starts.
const roleVariable = "CORACLE_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "etcd":
		etcdmain.Main(append([]string{"etcd"}, os.Args[1:]...))
		return
	case "kube-apiserver":
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		cmd := newCommand(slog.New(slog.NewTextHandler(os.Stderr, nil)))
		cmd.SetArgs(os.Args[1:])
		if err := cmd.ExecuteContext(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// assets makes a folder with the programs that envtest looks for. kubectl is
// only asked for when users are provisioned by it, so it is not there.
func assets(t testing.TB) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, role := range []string{"etcd", "kube-apiserver"} {
		script := fmt.Sprintf("#!/bin/sh\nexport %s=%s\nexec %q \"$@\"\n", roleVariable, role, self)
		if err := os.WriteFile(filepath.Join(dir, role), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestEnvtest starts controller-runtime's envtest, unmodified, with this API
// server in place of kube-apiserver, over a stock etcd.
func TestEnvtest(t *testing.T) {
	env := &envtest.Environment{
		BinaryAssetsDirectory: assets(t), AttachControlPlaneOutput: testing.Verbose(),
	}
	// What suites add to the flags.
	env.ControlPlane.GetAPIServer().Configure().Append("feature-gates", "Some=true,Other=false").
		Append("runtime-config", "resource.k8s.io/v1=true").Append("v", "2").
		Append("audit-log-path", "-").Append("audit-log-format", "json").
		Append("disable-admission-plugins", "MutatingAdmissionWebhook", "ValidatingAdmissionWebhook")
	config, err := env.Start()
	if err != nil {
		t.Fatalf("start envtest: %v", err)
	}
	defer func() {
		if err := env.Stop(); err != nil {
			t.Errorf("stop envtest: %v", err)
		}
	}()
	client := kubernetes.NewForConfigOrDie(config)
	if _, err := client.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	// Without controllers, a pod still gets the service account it needs.
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	made, err := client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if made.Spec.ServiceAccountName != "default" && made.Spec.ServiceAccountName != "" {
		t.Errorf("service account %q", made.Spec.ServiceAccountName)
	}
	// A user of envtest's own authority is authenticated and authorized.
	user, err := env.AddUser(envtest.User{Name: "jane", Groups: []string{"devs"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = kubernetes.NewForConfigOrDie(user.Config()).CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("a user without rights lists pods: %v", err)
	}
}
