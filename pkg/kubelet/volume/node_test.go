package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var updateOptions = metav1.UpdateOptions{}

func TestHostPath(t *testing.T) {
	dir := t.TempDir()
	write(t, "", dir, "file")
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	if err := unix.Bind(socket, &unix.SockaddrUnix{Name: filepath.Join(dir, "sock")}); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		path string
		kind corev1.HostPathType
		ok   bool
	}{
		{dir, "", true}, {dir + "/none", "", true},
		{dir, corev1.HostPathDirectory, true}, {dir + "/file", corev1.HostPathDirectory, false}, {dir + "/none", corev1.HostPathDirectory, false},
		{dir + "/made/deep", corev1.HostPathDirectoryOrCreate, true}, {dir + "/file", corev1.HostPathDirectoryOrCreate, false},
		{dir + "/file", corev1.HostPathFile, true}, {dir, corev1.HostPathFile, false}, {dir + "/none", corev1.HostPathFile, false},
		{dir + "/new", corev1.HostPathFileOrCreate, true}, {dir + "/file", corev1.HostPathFileOrCreate, true},
		{dir + "/no/parent", corev1.HostPathFileOrCreate, false}, {dir, corev1.HostPathFileOrCreate, false},
		{dir + "/sock", corev1.HostPathSocket, true}, {dir + "/file", corev1.HostPathSocket, false},
		{"/dev/null", corev1.HostPathCharDev, true}, {dir + "/file", corev1.HostPathCharDev, false},
		{"/dev/null", corev1.HostPathBlockDev, false}, {dir, "Odd", false},
		{dir + "/../x", "", false}, {"relative", "", false},
	}
	for _, tt := range tests {
		src, err := hostPath(&corev1.HostPathVolumeSource{Path: tt.path, Type: &tt.kind})
		if (err == nil) != tt.ok || tt.ok && (src.HostPath != tt.path || src.ReadOnly) {
			t.Errorf("%s as %q: %+v, %v; want ok %v", strings.TrimPrefix(tt.path, dir), tt.kind, src, err, tt.ok)
		}
	}
}

func TestClaims(t *testing.T) {
	data := t.TempDir()
	pv := func(name string, uid types.UID, src corev1.PersistentVolumeSource) *corev1.PersistentVolume {
		return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: src, ClaimRef: &corev1.ObjectReference{UID: uid}}}
	}
	claim := func(name, volume string, phase corev1.PersistentVolumeClaimPhase) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)},
			Spec: corev1.PersistentVolumeClaimSpec{VolumeName: volume}, Status: corev1.PersistentVolumeClaimStatus{Phase: phase}}
	}
	local := corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: data}}
	own := claim("pod-own", "pv-own", corev1.ClaimBound)
	own.OwnerReferences = []metav1.OwnerReference{{UID: "uid-1", Controller: ptr(true)}}
	f := newFixture(t,
		claim("local", "pv-local", corev1.ClaimBound), pv("pv-local", "uid-local", local),
		claim("host", "pv-host", corev1.ClaimBound), pv("pv-host", "uid-host", corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: data}}),
		claim("pending", "", corev1.ClaimPending),
		claim("thief", "pv-local", corev1.ClaimBound),
		claim("gone", "pv-gone", corev1.ClaimBound), pv("pv-gone", "uid-gone", corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: data + "/gone"}}),
		claim("nfs", "pv-nfs", corev1.ClaimBound), pv("pv-nfs", "uid-nfs", corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{}}),
		own, pv("pv-own", "uid-pod-own", local),
		claim("pod-foreign", "pv-own", corev1.ClaimBound),
	)
	pvc := func(name string, readOnly bool) corev1.VolumeSource {
		return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name, ReadOnly: readOnly}}
	}
	for _, tt := range []struct {
		volume  string
		src     corev1.VolumeSource
		wantErr string
	}{
		{"v", pvc("local", false), ""}, {"v", pvc("host", true), ""},
		{"v", pvc("pending", false), "is not bound to a volume yet"}, {"v", pvc("none", false), "not found"},
		{"v", pvc("thief", false), `is not bound to claim "thief"`}, {"v", pvc("gone", false), "no such file"},
		{"v", pvc("nfs", false), "does not support"},
		{"own", corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}, ""},
		{"foreign", corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}, "was not made for this pod"},
	} {
		mounted, err := f.Mount(t.Context(), podWith(vol(tt.volume, tt.src)), PodFacts{})
		if tt.wantErr != "" {
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("%+v: error %v, want one with %q", tt.src, err, tt.wantErr)
			}
			continue
		}
		readOnly := tt.src.PersistentVolumeClaim != nil && tt.src.PersistentVolumeClaim.ReadOnly
		if got := mounted[tt.volume]; err != nil || got.HostPath != data || got.ReadOnly != readOnly {
			t.Errorf("%+v: %+v, %v", tt.src, got, err)
		}
	}
	write(t, "kept", data, "file")
	if err := f.Unmount(t.Context(), "uid-1"); err != nil {
		t.Fatal(err)
	}
	if read(t, data, "file") != "kept" {
		t.Error("unmounting the pod touched its persistent data")
	}
}

func TestGroupOfLocalVolume(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	write(t, "", outside, "file")
	write(t, "", dir, "file")
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, "", dir, "a/b/file")
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	pod := podWith()
	policy := corev1.FSGroupChangeOnRootMismatch
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr(int64(1234)), FSGroupChangePolicy: &policy}
	check := func(want map[string]string) {
		t.Helper()
		if err := applyGroup(dir, pod); err != nil {
			t.Fatal(err)
		}
		for path, text := range want {
			info, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%v %d", info.Mode(), info.Sys().(*syscall.Stat_t).Gid); got != text {
				t.Errorf("%s: %s, want %s", path, got, text)
			}
		}
	}
	check(map[string]string{
		dir: "dgrwxrwxr-x 1234", dir + "/file": "-rw-rw-r-- 1234", dir + "/a/b": "dgrwxrwx--- 1234",
		dir + "/a/b/file": "-rw-rw-r-- 1234", outside: "drwxr-xr-x 0", outside + "/file": "-rw-r--r-- 0",
	})
	write(t, "", dir, "later")
	if err := os.Chown(filepath.Join(dir, "later"), 0, 0); err != nil {
		t.Fatal(err)
	}
	check(map[string]string{dir + "/later": "-rw-r--r-- 0"})
	pod.Spec.SecurityContext.FSGroupChangePolicy = nil
	check(map[string]string{dir + "/later": "-rw-rw-r-- 1234"})
}

// TestCleanUpStaysInside builds what an attacker would want the agent to
// delete through, and checks that it is all still there.
func TestCleanUpStaysInside(t *testing.T) {
	f := newFixture(t)
	pod := podWith(emptyDir("dir"))
	dir := f.mount(pod)["dir"].HostPath
	precious := t.TempDir()
	write(t, "keep", precious, "file")
	if err := os.Symlink(precious, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	// A bind mount that some container left, with a space in its name and
	// another mount inside.
	for _, point := range []string{"a mount", "a mount/inner"} {
		if err := os.MkdirAll(filepath.Join(dir, point), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(precious, filepath.Join(dir, point), "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeTree(filepath.Dir(dir), filepath.Base(dir)); err == nil || !strings.Contains(err.Error(), "mounted") {
		t.Errorf("removing a folder with a mount in it: %v", err)
	}
	if read(t, precious, "file") != "keep" {
		t.Fatal("removal entered a mount")
	}
	// Something is using a mount: it must not stop the clean-up.
	busy, err := os.Open(filepath.Join(dir, "a mount/inner"))
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if err := f.Unmount(t.Context(), pod.UID); err != nil {
		t.Fatal(err)
	}
	if read(t, precious, "file") != "keep" {
		t.Error("clean-up followed a link or entered a mount")
	}
	if _, err := os.Lstat(f.PodDir(pod.UID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the pod's folder: %v", err)
	}
	if err := f.Unmount(t.Context(), pod.UID); err != nil {
		t.Errorf("unmounting twice: %v", err)
	}
}

func TestRemoveDeepAndWideTrees(t *testing.T) {
	base := t.TempDir()
	fd, err := unix.Open(base, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1500 {
		if err := unix.Mkdirat(fd, "tree", 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, "tree", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		fd = next
		if i == 0 {
			for j := range 1200 {
				if err := unix.Mknodat(fd, fmt.Sprint("file", j), unix.S_IFREG|0o600, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	unix.Close(fd)
	if err := removeTree(base, "tree"); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(base); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	write(t, "", base, "file")
	if err := removeTree(base, "file"); err != nil {
		t.Error(err)
	}
	if err := removeTree(filepath.Join(base, "none"), "file"); err != nil {
		t.Error(err)
	}
}

func TestOrphans(t *testing.T) {
	f := newFixture(t)
	for _, uid := range []types.UID{"a", "b"} {
		pod := podWith(vol("mem", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}))
		pod.UID = uid
		f.mount(pod)
	}
	// Another agent process, started on the same folder, finds and removes them.
	next := New(Config{RootDir: f.cfg.RootDir, Client: f.client})
	orphans, err := next.Orphans(func(uid types.UID) bool { return uid == "a" })
	if err != nil || len(orphans) != 1 || orphans[0] != "b" {
		t.Fatalf("orphans %v, %v", orphans, err)
	}
	if err := next.Unmount(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if points, err := mountsBeneath(f.cfg.RootDir); err != nil || len(points) != 1 {
		t.Errorf("mounts %v, %v", points, err)
	}
	for _, uid := range []types.UID{"", "..", "a/b", "x\x00"} {
		if err := next.Unmount(t.Context(), uid); err == nil {
			t.Errorf("pod UID %q was accepted", uid)
		}
	}
}

// TestConcurrentPods mounts, refreshes and removes many pods at once.
func TestConcurrentPods(t *testing.T) {
	f := newFixture(t, configMap("cm", "k", "v"), secret("s", "k", "v"))
	ctx := t.Context()
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			pod := podWith(
				vol("cm", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}),
				vol("s", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}), emptyDir("e"))
			pod.UID = types.UID(fmt.Sprint("pod", i%4))
			for range 10 {
				if _, err := f.Mount(ctx, pod, PodFacts{}); err != nil {
					t.Error(err)
				}
				if err := f.Refresh(ctx, pod, PodFacts{}); err != nil {
					t.Error(err)
				}
				if err := f.Unmount(ctx, pod.UID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	f.objects.mu.Lock()
	defer f.objects.mu.Unlock()
	if len(f.objects.watched) != 0 || len(f.objects.uses) != 0 {
		t.Errorf("objects of pods that are gone: %v", f.objects.watched)
	}
}

func FuzzCheckPath(f *testing.F) {
	for _, s := range []string{"a/b", "../x", "a/../b", "/x", "..data", "a//b", "./a", "a/."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if checkPath(s) != nil {
			return
		}
		if clean := filepath.Clean(s); !filepath.IsLocal(s) || clean == "." || strings.HasPrefix(clean, "..") {
			t.Errorf("%q was accepted", s)
		}
	})
}

func FuzzParseMounts(f *testing.F) {
	f.Add([]byte(`22 1 0:5 / /dir/with\040space rw - tmpfs t rw`+"\n"), "/dir")
	f.Fuzz(func(t *testing.T, table []byte, dir string) {
		for _, point := range parseMounts(table, dir) {
			if point != dir && !strings.HasPrefix(point, dir+"/") {
				t.Errorf("%q is not below %q", point, dir)
			}
		}
	})
}
