package controlplane_test

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/controlplane"
	"coracle/pkg/pki"
	"coracle/pkg/storage"
	"coracle/pkg/storage/etcd"
	"coracle/pkg/testcluster"
)

const canary = "canary-c0ffee-0123456789"

func openEtcd(t *testing.T, dir string) *etcd.Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := etcd.StartEmbedded(ctx, etcd.Config{DataDir: dir, UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func encrypted(b storage.Backend, file string) []testcluster.Option {
	return []testcluster.Option{testcluster.WithBackend(b), testcluster.WithConfig(func(c *controlplane.Config) {
		if file != "" {
			c.Encryption = &controlplane.Encryption{File: file, Create: true}
		}
	})}
}

func createSecret(t *testing.T, c *testcluster.Cluster, namespace, name string) {
	t.Helper()
	_, err := c.Client.CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string][]byte{"k": []byte(canary)},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func wantSecret(t *testing.T, c *testcluster.Cluster, namespace, name string) {
	t.Helper()
	got, err := c.Client.CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil || string(got.Data["k"]) != canary {
		t.Errorf("the Secret reads %v, %v", got, err)
	}
}

// filesWith are the files below dir that hold the canary.
func filesWith(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(canary)) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestCanary searches the store's files, its log and a backup for the value of
// a Secret. Without encryption it is found in each of them, by the same search.
func TestCanary(t *testing.T) {
	for _, on := range []bool{true, false} {
		dir := t.TempDir()
		store := openEtcd(t, filepath.Join(dir, "etcd"))
		file := ""
		if on {
			file = filepath.Join(dir, "pki", pki.EncryptionFile)
		}
		c := testcluster.Start(t, encrypted(store, file)...)
		createSecret(t, c, "default", "a")
		wantSecret(t, c, "default", "a")
		var backup bytes.Buffer
		if err := store.Snapshot(t.Context(), &backup); err != nil {
			t.Fatal(err)
		}
		c.Stop()
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		found := strings.Join(filesWith(t, dir), " ")
		inBackup := bytes.Contains(backup.Bytes(), []byte(canary))
		if !bytes.Contains(backup.Bytes(), []byte("/registry/secrets/default/a")) {
			t.Error("the backup lacks the Secret's key")
		}
		if on {
			if found != "" || inBackup {
				t.Errorf("the canary is in %s, in the backup: %t", found, inBackup)
			}
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the key: %v, %v, want mode 0600", info, err)
			}
			// After a restart it is there.
			again := testcluster.Start(t, encrypted(openEtcd(t, filepath.Join(dir, "etcd")), file)...)
			wantSecret(t, again, "default", "a")
			again.Stop()
			continue
		}
		if !strings.Contains(found, ".wal") || !strings.Contains(found, "snap/db") || !inBackup {
			t.Errorf("without encryption the search finds the canary in %s, in the backup: %t: it can find nothing", found, inBackup)
		}
	}
}

// TestKeyRotation: what was stored before encryption is encrypted as it begins;
// a rotation rewrites all while the server runs, and is begun once only.
func TestKeyRotation(t *testing.T) {
	dir := t.TempDir()
	store := openEtcd(t, filepath.Join(dir, "etcd"))
	file := filepath.Join(dir, "pki", pki.EncryptionFile)
	before := testcluster.Start(t, encrypted(store, "")...)
	createSecret(t, before, "default", "a")
	before.Stop()

	c := testcluster.Start(t, encrypted(store, file)...)
	await(t, file)
	wantKey(t, store, "key1")
	begun, err := pki.RotateEncryption(file, bytes.NewReader(make([]byte, 32)))
	if err != nil || !begun {
		t.Fatalf("rotate: %t, %v", begun, err)
	}
	if begun, err := pki.RotateEncryption(file, bytes.NewReader(nil)); begun || err != nil {
		// The server may have finished already: then the lack of randomness shows.
		if done, _ := pki.EncryptionDone(file); !done {
			t.Errorf("a rotation was begun before the one before had ended: %t, %v", begun, err)
		}
	}
	await(t, file)
	wantKey(t, store, "key2")
	wantSecret(t, c, "default", "a")
	// What cannot be used changes nothing.
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := pki.WriteFile(file, []byte("kind: Nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	createSecret(t, c, "default", "b")
	wantKey(t, store, "key2")
	if err := pki.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
}

// await waits until all values are as the file says.
func await(t *testing.T, file string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		if done, err := pki.EncryptionDone(file); err == nil && done {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal("the stored values have not been rewritten")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func wantKey(t *testing.T, store storage.Backend, name string) {
	t.Helper()
	page, err := store.Range(t.Context(), "/registry/secrets/", storage.RangeOptions{})
	if err != nil || len(page.Items) == 0 {
		t.Fatalf("read the store: %v, %v", page, err)
	}
	for _, kv := range page.Items {
		if !bytes.HasPrefix(kv.Value, []byte("k8s:enc:aesgcm:v1:"+name+":")) {
			t.Errorf("%s is not encrypted with %s: %.40q", kv.Key, name, kv.Value)
		}
	}
}

// TestLostKey: a Secret whose key is lost says so, and harms no other.
func TestLostKey(t *testing.T) {
	dir := t.TempDir()
	store := openEtcd(t, filepath.Join(dir, "etcd"))
	file := filepath.Join(dir, "pki", pki.EncryptionFile)
	first := testcluster.Start(t, encrypted(store, file)...)
	createSecret(t, first, "default", "a")
	first.Stop()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	c := testcluster.Start(t, encrypted(store, file)...)
	createSecret(t, c, "kube-system", "b")
	wantSecret(t, c, "kube-system", "b")
	_, err := c.Client.CoreV1().Secrets("default").Get(t.Context(), "a", metav1.GetOptions{})
	if err == nil || !strings.Contains(err.Error(), "it is encrypted with key") {
		t.Errorf("the lost Secret: %v", err)
	}
}
