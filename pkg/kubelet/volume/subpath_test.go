package volume

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func emptyDir(name string) corev1.Volume {
	return vol(name, corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
}

// mounts gives the mounts of the pod's one container.
func (f *fixture) mounts(pod *corev1.Pod, mounted Mounted, env ...*runtimeapi.KeyValue) ([]*runtimeapi.Mount, error) {
	return f.ContainerMounts(pod, &pod.Spec.Containers[0], env, mounted)
}

func write(t *testing.T, text string, path ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(path...), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestContainerMounts(t *testing.T) {
	f := newFixture(t, configMap("cm", "key", "value"))
	pod := podWith(emptyDir("dir"), vol("cm", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}))
	both, down := corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer
	possible := corev1.RecursiveReadOnlyIfPossible
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{
		{Name: "dir", MountPath: "/a", MountPropagation: &both},
		{Name: "dir", MountPath: "rel", ReadOnly: true, RecursiveReadOnly: &possible, MountPropagation: &down},
		{Name: "cm", MountPath: "/cm"},
		{Name: "cm", MountPath: "/etc/file", SubPath: "key"},
		{Name: "dir", MountPath: "/logs", SubPathExpr: "logs/$(POD)"},
	}
	mounted := f.mount(pod)
	got, err := f.mounts(pod, mounted, &runtimeapi.KeyValue{Key: "POD", Value: []byte("p1")})
	if err != nil {
		t.Fatal(err)
	}
	type short struct {
		to        string
		readOnly  bool
		recursive bool
		spread    runtimeapi.MountPropagation
	}
	var shorts []short
	for _, m := range got {
		shorts = append(shorts, short{m.ContainerPath, m.Readonly, m.RecursiveReadOnly, m.Propagation})
	}
	want := []short{
		{"/a", false, false, runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL},
		{"/rel", true, false, runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
		{"/cm", true, false, 0}, {"/etc/file", true, false, 0}, {"/logs", false, false, 0},
	}
	if diff := cmp.Diff(want, shorts, cmp.AllowUnexported(short{})); diff != "" {
		t.Error(diff)
	}
	if text := read(t, got[3].HostPath); text != "value" {
		t.Errorf("the subPath of a key shows %q", text)
	}
	write(t, "x", got[4].HostPath, "file")
	if text := read(t, mounted["dir"].HostPath, "logs/p1/file"); text != "x" {
		t.Errorf("a file written at the subPath reads %q in the volume", text)
	}
	if info, err := os.Stat(filepath.Join(mounted["dir"].HostPath, "logs/p1")); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("a subPath that was made has mode %v, %v; want that of the volume", info.Mode(), err)
	}
	again, err := f.mounts(pod, mounted, &runtimeapi.KeyValue{Key: "POD", Value: []byte("p2")})
	if err != nil || again[4].HostPath != got[4].HostPath {
		t.Fatalf("a restart of the container: %v", err)
	}
	if _, err := os.Stat(filepath.Join(again[4].HostPath, "file")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the mount of the last start is still there")
	}
	if points, err := mountsBeneath(f.PodDir(pod.UID)); err != nil || len(points) != 2 {
		t.Errorf("mounts %v, %v; want two", points, err)
	}
}

func TestSubPathsOfChangedConfigMap(t *testing.T) {
	f := newFixture(t, configMap("cm", "key", "1"))
	pod := podWith(vol("cm", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}))
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "cm", MountPath: "/f", SubPath: "key"}}
	mounted := f.mount(pod)
	first, err := f.mounts(pod, mounted)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.client.CoreV1().ConfigMaps("ns").Update(t.Context(), configMap("cm", "key", "2"), updateOptions); err != nil {
		t.Fatal(err)
	}
	f.mount(pod)
	if text := read(t, first[0].HostPath); text != "1" {
		t.Errorf("a running container sees %q at its subPath, want what it started with", text)
	}
	second, err := f.mounts(pod, mounted)
	if err != nil {
		t.Fatal(err)
	}
	if text := read(t, second[0].HostPath); text != "2" {
		t.Errorf("a restarted container sees %q", text)
	}
}

func TestSubPathsThatLeadOut(t *testing.T) {
	outside := t.TempDir()
	write(t, "secret", outside, "file")
	place := map[string]func(dir string) error{
		"absolute link":     func(dir string) error { return os.Symlink(outside, filepath.Join(dir, "x")) },
		"relative link":     func(dir string) error { return os.Symlink("../../../../..", filepath.Join(dir, "x")) },
		"magic link":        func(dir string) error { return os.Symlink("/proc/self/root", filepath.Join(dir, "x")) },
		"link to a file":    func(dir string) error { return os.Symlink(filepath.Join(outside, "file"), filepath.Join(dir, "x")) },
		"dangling link out": func(dir string) error { return os.Symlink("/does/not/exist/yet", filepath.Join(dir, "x")) },
	}
	for name, put := range place {
		for _, sub := range []string{"x", "x/new/folder"} {
			t.Run(name+" "+sub, func(t *testing.T) {
				f := newFixture(t)
				pod := podWith(emptyDir("dir"))
				pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "dir", MountPath: "/m", SubPath: sub}}
				mounted := f.mount(pod)
				if err := put(mounted["dir"].HostPath); err != nil {
					t.Fatal(err)
				}
				if got, err := f.mounts(pod, mounted); err == nil {
					t.Errorf("the subPath was mounted at %s", got[0].HostPath)
				}
			})
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("something was made outside: %v, %v", left, err)
	}
}

func TestSubPathErrors(t *testing.T) {
	f := newFixture(t)
	pod := podWith(emptyDir("dir"))
	mounted := f.mount(pod)
	write(t, "", mounted["dir"].HostPath, "file")
	env := []*runtimeapi.KeyValue{{Key: "UP", Value: []byte("..")}, {Key: "ABS", Value: []byte("/tmp")}, {Key: "IN", Value: []byte("ok")}}
	enabled := corev1.RecursiveReadOnlyEnabled
	for want, vm := range map[string]corev1.VolumeMount{
		"must not contain '..'":           {Name: "dir", SubPathExpr: "a/$(UP)"},
		`subPath ".." must not contain`:   {Name: "dir", SubPathExpr: "$(UP)"},
		"must not be an absolute path":    {Name: "dir", SubPathExpr: "$(ABS)"},
		`"MISSING", which the container`:  {Name: "dir", SubPathExpr: "$(IN)/$(MISSING)"},
		"not a directory":                 {Name: "dir", SubPath: "file/below"},
		`mounts volume "none"`:            {Name: "none"},
		"recursiveReadOnly needs":         {Name: "dir", RecursiveReadOnly: &enabled},
		"cannot make mounts read-only re": {Name: "dir", ReadOnly: true, RecursiveReadOnly: &enabled},
	} {
		pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{vm}
		if _, err := f.mounts(pod, mounted, env...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want one with %q", vm, err, want)
		}
	}
}

// TestSubPathRace swaps a folder of the volume for a link to the outside, over
// and over, while the path through it is resolved and made. None of the
// descriptors that come out may lie outside, and nothing may be made there.
func TestSubPathRace(t *testing.T) {
	rounds := 100_000
	if testing.Short() {
		rounds = 5_000
	}
	base := t.TempDir()
	volume, outside := filepath.Join(base, "volume"), filepath.Join(base, "outside")
	for _, dir := range []string{filepath.Join(volume, "a/target"), outside} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(outside, "target"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../outside", filepath.Join(volume, "b")); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var attacker sync.WaitGroup
	attacker.Go(func() {
		a, b := filepath.Join(volume, "a"), filepath.Join(volume, "b")
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
		}
	})
	root, err := unix.Open(volume, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	var forbidden unix.Stat_t
	if err := unix.Stat(filepath.Join(outside, "target"), &forbidden); err != nil {
		t.Fatal(err)
	}
	resolved := 0
	for i := range rounds {
		path := "a/target"
		if i%4 == 0 {
			path = "a/made/here"
		}
		fd, err := makeBeneath(root, path, 0o755)
		if err != nil {
			continue
		}
		var got unix.Stat_t
		if err := unix.Fstat(fd, &got); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		if got.Ino == forbidden.Ino && got.Dev == forbidden.Dev {
			t.Fatalf("round %d: the path led outside", i)
		}
		resolved++
	}
	close(stop)
	attacker.Wait()
	if resolved == 0 {
		t.Error("the path was never resolved: the race was not run")
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("something was made outside: %v, %v", left, err)
	}
	t.Logf("%d of %d rounds resolved", resolved, rounds)
}

func TestEnvFile(t *testing.T) {
	f := newFixture(t)
	pod := podWith(emptyDir("dir"))
	mounted := f.mount(pod)
	dir := mounted["dir"].HostPath
	write(t, "A='1'", dir, "env")
	write(t, strings.Repeat("x", maxEnvFile+1), dir, "big")
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o666); err != nil {
		t.Fatal(err)
	}
	if data, err := f.EnvFile(mounted, "dir", "env"); err != nil || string(data) != "A='1'" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := f.EnvFile(mounted, "dir", "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	for _, path := range []string{"big", "out", "pipe", "../x", "/etc/hostname", "."} {
		if data, err := f.EnvFile(mounted, "dir", path); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %d bytes, %v", path, len(data), err)
		}
	}
}
