package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestTokenAuthFile: the bearer of a token of the file is who the file says.
func TestTokenAuthFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "tokens.csv")
	if err := os.WriteFile(file, []byte("sesame,ali,42,\"system:masters,cave\"\nplain,baba,43\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := startServer(t, dir, "--token-auth-file", file)
	me, err := whoami(t.Context(), config, "sesame")
	if err != nil {
		t.Fatal(err)
	}
	if me.Username != "ali" || me.UID != "42" || !slices.Equal(me.Groups, []string{"system:masters", "cave", "system:authenticated"}) {
		t.Errorf("known as %+v", me)
	}
	if _, err := bearer(config, "sesame").CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("one of the masters lists secrets: %v", err)
	}
	if _, err := bearer(config, "plain").CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("one without groups lists secrets: %v", err)
	}
	if _, err := whoami(t.Context(), config, "Sesame"); !apierrors.IsUnauthorized(err) {
		t.Errorf("a token that is not in the file: %v", err)
	}
}

func TestNoTokenFileWhenHardened(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "tokens.csv")
	if err := os.WriteFile(file, []byte("sesame,ali,42\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := newCommand(slog.New(slog.DiscardHandler))
	cmd.SetArgs([]string{"--data-dir", dir, "--storage-backend", "memory", "--secure-port", "0", "--hardened", "--token-auth-file", file})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := cmd.ExecuteContext(ctx); err == nil || !strings.Contains(err.Error(), "refused by --hardened") {
		t.Errorf("the server ended with %v", err)
	}
}
