package main

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// TestFlags: what would make a server unsafe cannot be said, and what keeps
// traces is on by default.
func TestFlags(t *testing.T) {
	flags := newCommand(slog.New(slog.DiscardHandler)).Flags()
	for _, name := range []string{"basic-auth-file", "password-file", "insecure-port", "insecure-bind-address", "anonymous-auth", "kubelet-https",
		"authorization-policy-file", "service-account-extend-token-expiration", "service-account-lookup", "cors-allowed-origins", "kubelet-insecure-tls"} {
		if flags.Lookup(name) != nil {
			t.Errorf("there is a flag --%s", name)
		}
	}
	for name, want := range map[string]string{"audit-log-maxage": "30", "audit-log-maxbackup": "10", "audit-log-maxsize": "100", "allow-external-ips": "false",
		"bind-address": "127.0.0.1", "enable-bootstrap-token-auth": "false", "authorization-mode": "[Node,RBAC]", "token-auth-file": ""} {
		if f := flags.Lookup(name); f == nil || f.DefValue != want {
			t.Errorf("--%s is %v by default, want %s", name, f, want)
		}
	}
}

// TestFilesAreTheOwners: nothing that the server writes can be read by others,
// but for certificates, and no folder of its can be entered.
func TestFilesAreTheOwners(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	config := startServer(t, dir, "--storage-backend", "etcd3", "--all-in-one", "--advertise-address", "192.0.2.10")
	client := kubernetes.NewForConfigOrDie(config)
	within(t, "the server takes a secret", func() error {
		_, err := client.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{GenerateName: "s-"}}, metav1.CreateOptions{})
		return err
	})
	seen := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil // etcd's files come and go
			}
			return err
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		name, _ := filepath.Rel(dir, path)
		seen[name] = true
		mode, public := info.Mode().Perm(), strings.HasSuffix(name, ".crt")
		if public && mode&0o022 != 0 || !public && mode&0o077 != 0 {
			t.Errorf("%s has mode %o", name, mode)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pki/ca.key", "pki/sa.key", "pki/encryption.yaml", "pki/apiserver.key", "pki/front-proxy-ca.key", "admin.kubeconfig", "etcd", "audit/audit.log", "lock"} {
		if !seen[name] {
			t.Errorf("there is no %s", name)
		}
	}
}
