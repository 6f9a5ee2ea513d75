package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
)

const foreignKubeconfig = `apiVersion: v1
kind: Config
preferences: {}
current-context: work
clusters:
- name: work
  cluster: {server: "https://work.example:6443"}
users:
- name: me
  user: {token: secret}
contexts:
- name: work
  context: {cluster: work, user: me, namespace: team}
`

// kubeconfigSpec makes a cluster folder that holds nothing but an
// administrator's kubeconfig.
func kubeconfigSpec(t *testing.T, file, name string) (folder, *Spec) {
	t.Helper()
	f := folder(filepath.Join(t.TempDir(), name))
	must(t, os.MkdirAll(f.control(), 0o755))
	admin := strings.ReplaceAll(foreignKubeconfig, "work", "internal")
	must(t, os.WriteFile(f.adminKubeconfig(), []byte(admin), 0o600))
	return f, &Spec{Name: name, Kubeconfig: file}
}

func TestKubeconfigRoundTrip(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	must(t, os.WriteFile(file, []byte(foreignKubeconfig), 0o640))
	before, err := clientcmd.LoadFromFile(file)
	must(t, err)
	f, s := kubeconfigSpec(t, file, "one")
	g, u := kubeconfigSpec(t, file, "two")
	must(t, mergeContext(t.Context(), f, s))
	must(t, mergeContext(t.Context(), g, u))
	must(t, mergeContext(t.Context(), f, s)) // a second start
	cfg, err := clientcmd.LoadFromFile(file)
	must(t, err)
	if cfg.CurrentContext != "one" || len(cfg.Contexts) != 3 || cfg.Contexts["work"].Namespace != "team" || cfg.AuthInfos["me"].Token != "secret" {
		t.Errorf("merged: %+v", cfg)
	}
	if got := cfg.Clusters["one"].Server; got != "https://internal.example:6443" {
		t.Errorf("server %q", got)
	}
	must(t, removeContext(t.Context(), file, g, "two"))
	must(t, removeContext(t.Context(), file, f, "one"))
	must(t, removeContext(t.Context(), file, f, "one"))
	after, err := clientcmd.LoadFromFile(file)
	must(t, err)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("after removing both (-before +after):\n%s", diff)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(file), "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("beside the kubeconfig: %v, %v", left, err)
	}
}

func TestKubeconfigOfItsOwnIsRemoved(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kube", "config")
	f, s := kubeconfigSpec(t, file, "one")
	must(t, mergeContext(t.Context(), f, s))
	must(t, removeContext(t.Context(), file, f, "one"))
	if there, _ := exists(filepath.Dir(file)); there {
		t.Error("the empty kubeconfig or its folder is still there")
	}
}

func TestKubeconfigKeepsForeignContext(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	must(t, os.WriteFile(file, []byte(foreignKubeconfig), 0o600))
	f, s := kubeconfigSpec(t, file, "work")
	for what, err := range map[string]error{
		"check": checkContext(file, f, "work"),
		"merge": mergeContext(t.Context(), f, s),
	} {
		if err == nil || !strings.Contains(err.Error(), "another cluster") {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, removeContext(t.Context(), file, f, "work"))
	if data, err := os.ReadFile(file); err != nil || string(data) != foreignKubeconfig {
		t.Errorf("the file changed: %s, %v", data, err)
	}
}

func TestKubeconfigDamagedIsLeftAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	must(t, os.WriteFile(file, []byte("contexts: {"), 0o600))
	f, s := kubeconfigSpec(t, file, "one")
	if err := mergeContext(t.Context(), f, s); err == nil || !strings.Contains(err.Error(), "left as it is") {
		t.Errorf("merge: %v", err)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "contexts: {" {
		t.Errorf("the file changed: %s, %v", data, err)
	}
}

// TestKubeconfigConcurrentMerges: clusters that are created at once must not
// lose each other's contexts.
func TestKubeconfigConcurrentMerges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	names := []string{"a", "b", "c", "d", "e", "f"}
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		f, s := kubeconfigSpec(t, file, name)
		wg.Go(func() { errs[i] = mergeContext(t.Context(), f, s) })
	}
	wg.Wait()
	for _, err := range errs {
		must(t, err)
	}
	cfg, err := clientcmd.LoadFromFile(file)
	must(t, err)
	if len(cfg.Contexts) != len(names) {
		t.Errorf("%d contexts, want %d", len(cfg.Contexts), len(names))
	}
}

func TestKubeconfigThroughLink(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	must(t, os.WriteFile(target, []byte(foreignKubeconfig), 0o600))
	must(t, os.Symlink(target, link))
	file, err := (&Machine{Kubeconfig: link}).kubeconfigFile()
	if err != nil || file != target {
		t.Errorf("kubeconfig file %q, %v", file, err)
	}
}
