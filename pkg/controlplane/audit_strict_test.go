package controlplane_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/audit"
	"coracle/pkg/controlplane"
	"coracle/pkg/testcluster"
)

// TestStrictAudit: a request that cannot be recorded is not served.
func TestStrictAudit(t *testing.T) {
	policy, err := audit.ParsePolicy([]byte(`{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata, resources: [{resources: [configmaps]}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "audit")
	// Each event goes to a file of its own, which a folder is needed for.
	log, err := audit.New(audit.Config{Path: filepath.Join(dir, "audit.log"), Mode: audit.ModeBlockingStrict, Policy: policy, MaxBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	c := testcluster.Start(t, testcluster.WithConfig(func(cfg *controlplane.Config) { cfg.Audit = log }))
	maps := c.Client.CoreV1().ConfigMaps("default")
	if _, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	_, err = maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "b"}}, metav1.CreateOptions{})
	if !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), "failed to store audit event") {
		t.Errorf("a change that cannot be recorded: %v", err)
	}
	if _, err := c.Client.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
		t.Errorf("a request that the policy leaves out: %v", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := maps.Get(t.Context(), "b", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("what was refused is there, or the log is not used again: %v", err)
	}
}
