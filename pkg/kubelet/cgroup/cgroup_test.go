package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// hierarchy makes folders that look like mounted cgroups.
func hierarchy(t *testing.T, v2 bool) string {
	mount := t.TempDir()
	write := func(name, text string) {
		if err := os.MkdirAll(filepath.Join(mount, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(mount, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if v2 {
		for _, dir := range []string{"", "k", "k/burstable", "k/burstable/podu"} {
			write(filepath.Join(dir, "cgroup.controllers"), "cpu memory")
			write(filepath.Join(dir, "cgroup.subtree_control"), "")
		}
		for _, f := range []string{"cpu.weight", "cpu.max", "memory.max"} {
			write("k/burstable/podu/"+f, "")
		}
		write("k/burstable/cpu.weight", "")
		for _, f := range []string{"cgroup.controllers", "cgroup.subtree_control"} {
			write("k/besteffort/"+f, "")
		}
		return mount
	}
	for _, c := range []string{"cpu", "memory"} {
		write(c+"/cgroup.procs", "")
	}
	for _, f := range []string{"cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"} {
		write("cpu/k/burstable/podu/"+f, "")
	}
	write("cpu/k/burstable/cpu.shares", "")
	write("memory/k/burstable/podu/memory.limit_in_bytes", "")
	return mount
}

func burstable() *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u"}}
	p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: apiresource.MustParse("250m")},
		Limits:   corev1.ResourceList{corev1.ResourceCPU: apiresource.MustParse("500m"), corev1.ResourceMemory: apiresource.MustParse("64Mi")},
	}}}
	return p
}

func TestCreateSetsLimits(t *testing.T) {
	for _, tc := range []struct {
		name string
		v2   bool
		want map[string]string
	}{
		{"v1", false, map[string]string{
			"cpu/k/burstable/podu/cpu.shares": "256", "cpu/k/burstable/podu/cpu.cfs_quota_us": "50000",
			"cpu/k/burstable/cpu.shares": "256", "memory/k/burstable/podu/memory.limit_in_bytes": "67108864",
		}},
		{"v2", true, map[string]string{
			"k/burstable/podu/cpu.weight": "10", "k/burstable/podu/cpu.max": "50000 100000",
			"k/burstable/podu/memory.max": "67108864", "k/burstable/cpu.weight": "10",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mount := hierarchy(t, tc.v2)
			m, err := New(Config{Mount: mount, Root: "/k"})
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Create(burstable()); err != nil {
				t.Fatal(err)
			}
			for file, want := range tc.want {
				if got, _ := os.ReadFile(filepath.Join(mount, file)); string(got) != want {
					t.Errorf("%s holds %q, want %q", file, got, want)
				}
			}
			if got := m.Parent(burstable()); got != "/k/burstable/podu" {
				t.Errorf("parent %s", got)
			}
		})
	}
}

func TestRemoveTakesWhatTheRuntimeMade(t *testing.T) {
	mount := t.TempDir()
	for _, dir := range []string{"cpu", "memory/k/podu/container", "freezer/k/podu/container/deeper"} {
		if err := os.MkdirAll(filepath.Join(mount, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(mount, "cpu/cgroup.procs"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	m, err := New(Config{Mount: mount, Root: "/k"})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Remove("u"); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"memory/k/podu", "freezer/k/podu"} {
		if _, err := os.Stat(filepath.Join(mount, dir)); err == nil {
			t.Errorf("%s is still there", dir)
		}
	}
}

func TestNewExplains(t *testing.T) {
	if _, err := New(Config{Mount: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "no cgroup hierarchy") {
		t.Errorf("error %v", err)
	}
	if _, err := New(Config{Root: "../x"}); err == nil {
		t.Error("a relative root is accepted")
	}
}
