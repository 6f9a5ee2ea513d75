package cgroup

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestReadUsage(t *testing.T) {
	v2 := map[string]string{"cgroup.controllers": "cpu memory", "cpu.stat": "usage_usec 2500\nuser_usec 1\n",
		"memory.current": "10000\n", "memory.stat": "anon 5\ninactive_file 4000\nactive_file 1\n"}
	v1 := map[string]string{"cpuacct/cpuacct.usage": "2500000\n", "memory/memory.usage_in_bytes": "10000\n",
		"memory/memory.stat": "inactive_file 1\ntotal_inactive_file 4000\n"}
	with := func(files map[string]string, name, text string) map[string]string {
		files = maps.Clone(files)
		files[name] = text
		if text == "" {
			delete(files, name)
		}
		return files
	}
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  uint64 // memory; 0 with refused
		fails string
	}{
		{"v2", v2, 6000, ""},
		{"v1", v1, 6000, ""},
		{"more cold pages than pages", with(v2, "memory.stat", "inactive_file 10001\n"), 0, ""},
		{"no cpu.stat", with(v2, "cpu.stat", ""), 0, "cpu.stat"},
		{"no line", with(v2, "memory.stat", "anon 5\n"), 0, "memory.stat has no line inactive_file"},
		{"no number", with(v2, "memory.current", "max\n"), 0, "holds no number"},
		{"v1 without memory", with(v1, "memory/memory.usage_in_bytes", ""), 0, "memory.usage_in_bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mount := t.TempDir()
			for name, text := range tc.files {
				if err := os.MkdirAll(filepath.Join(mount, filepath.Dir(name)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(mount, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := ReadUsage(mount)
			if tc.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fails) {
					t.Errorf("error %v, want one with %q", err, tc.fails)
				}
				return
			}
			if want := (Usage{CPU: 2500 * time.Microsecond, Memory: tc.want}); err != nil || got != want {
				t.Errorf("got %v, %v; want %v", got, err, want)
			}
		})
	}
}

// TestReadUsageOfMachine: the root group of a machine with cgroup v2 has no
// memory.current.
func TestReadUsageOfMachine(t *testing.T) {
	mount := t.TempDir()
	for name, text := range map[string]string{"cgroup.controllers": "cpu", "cpu.stat": "usage_usec 1\n"} {
		if err := os.WriteFile(filepath.Join(mount, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := ReadUsage(mount); err != nil || got.CPU != time.Microsecond || got.Memory == 0 {
		t.Errorf("got %v, %v", got, err)
	}
}
