package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
)

func ptr[T any](v T) *T { return &v }

// fixture is a manager over a fake API server and a folder of its own.
type fixture struct {
	*Manager
	t       *testing.T
	client  *fake.Clientset
	changes chan types.UID
}

func newFixture(t *testing.T, objects ...runtime.Object) *fixture {
	t.Helper()
	client := fake.NewClientset(objects...)
	f := &fixture{t: t, client: client, changes: make(chan types.UID, 100)}
	f.Manager = New(Config{
		RootDir: t.TempDir(), Client: client,
		OnChange: func(uid types.UID) { f.changes <- uid },
		NodeAllocatable: func() corev1.ResourceList {
			return corev1.ResourceList{"memory": resource.MustParse("1Gi"), "cpu": resource.MustParse("2")}
		},
	})
	t.Cleanup(func() {
		orphans, err := f.Orphans(func(types.UID) bool { return false })
		if err != nil {
			t.Error(err)
		}
		for _, uid := range orphans {
			if err := f.Unmount(context.Background(), uid); err != nil {
				t.Error(err)
			}
		}
	})
	return f
}

func configMap(name string, kv ...string) *corev1.ConfigMap {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Data: map[string]string{}}
	for i := 0; i < len(kv); i += 2 {
		cm.Data[kv[i]] = kv[i+1]
	}
	return cm
}

func secret(name string, kv ...string) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Data: map[string][]byte{}}
	for i := 0; i < len(kv); i += 2 {
		s.Data[kv[i]] = []byte(kv[i+1])
	}
	return s
}

func podWith(volumes ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", UID: "uid-1", Labels: map[string]string{"app": "x"}},
		Spec:       corev1.PodSpec{Volumes: volumes, Containers: []corev1.Container{{Name: "app"}}},
	}
}

func vol(name string, src corev1.VolumeSource) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: src}
}

func (f *fixture) mount(pod *corev1.Pod) Mounted {
	f.t.Helper()
	mounted, err := f.Mount(f.t.Context(), pod, PodFacts{})
	if err != nil {
		f.t.Fatal(err)
	}
	return mounted
}

// shown lists the files of a volume as a container sees them, with mode and
// owner where these are not 0644 0:0.
func shown(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	err := filepath.Walk(filepath.Join(dir, dataLink)+"/", func(path string, info fs.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		rel := strings.TrimPrefix(path, filepath.Join(dir, dataLink)+"/")
		data, err := os.ReadFile(filepath.Join(dir, rel))
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		text := string(data)
		if mode := info.Mode().Perm(); mode != 0o644 || stat.Uid != 0 || stat.Gid != 0 {
			text += " " + mode.String() + " " + itoa(stat.Uid) + ":" + itoa(stat.Gid)
		}
		out[rel] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func itoa(n uint32) string { return strconv.Itoa(int(n)) }

func isTmpfs(t *testing.T, dir string) bool {
	t.Helper()
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Type == 0x01021994
}

func TestPublishedVolumes(t *testing.T) {
	binary := configMap("cm", "a", "1", "b", "2")
	binary.BinaryData = map[string][]byte{"bin": {0, 255}}
	other := secret("sec", "user", "wrong")
	other.Namespace = "other"
	objects := []runtime.Object{binary, secret("sec", "user", "root", "pass", "x"), other}
	ref := corev1.LocalObjectReference{Name: "cm"}
	gone := corev1.LocalObjectReference{Name: "gone"}
	group := func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr(int64(1001))} }
	tests := []struct {
		name    string
		src     corev1.VolumeSource
		change  func(*corev1.Pod)
		want    map[string]string
		memory  bool
		wantErr string
	}{
		{name: "configMap with binary data", src: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref}},
			want: map[string]string{"a": "1", "b": "2", "bin": "\x00\xff"}},
		{name: "configMap items and modes", src: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref,
			DefaultMode: ptr(int32(0o400)), Items: []corev1.KeyToPath{{Key: "a", Path: "path/to/a"}, {Key: "b", Path: "path/b", Mode: ptr(int32(0o755))}}}},
			want: map[string]string{"path/to/a": "1 -r-------- 0:0", "path/b": "2 -rwxr-xr-x 0:0"}},
		{name: "configMap missing", src: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: gone}},
			wantErr: `volume "v": configmap "gone": configmaps "gone" not found`},
		{name: "configMap missing but optional", src: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: gone, Optional: ptr(true)}},
			want: map[string]string{}},
		{name: "key missing", src: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref, Items: []corev1.KeyToPath{{Key: "z", Path: "z"}}}},
			wantErr: `volume "v": configmap "cm": it has no key "z"`},
		{name: "path leads out", src: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref, Items: []corev1.KeyToPath{{Key: "a", Path: "x/../../../etc/a"}}}},
			wantErr: `volume "v": configmap "cm": path "x/../../../etc/a" must not start with '..'`},
		{name: "path is file and folder", src: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref, Items: []corev1.KeyToPath{{Key: "a", Path: "x"}, {Key: "b", Path: "x/y"}}}},
			wantErr: `volume "v": path "x" cannot be a file, since "x/y" lies in it`},
		{name: "secret", src: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "sec"}},
			want: map[string]string{"user": "root", "pass": "x"}, memory: true},
		{name: "secret with fsGroup", src: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "sec", DefaultMode: ptr(int32(0o440))}}, change: group,
			want: map[string]string{"user": "root -r--r----- 0:1001", "pass": "x -r--r----- 0:1001"}, memory: true},
		{name: "downward", src: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
			{Path: "cpu", Mode: ptr(int32(0o400)), ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "app", Resource: "limits.cpu"}}}}},
			want: map[string]string{"labels": `app="x"`, "cpu": "2 -r-------- 0:0"}},
		{name: "projected", src: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: ref, Items: []corev1.KeyToPath{{Key: "a", Path: "all/a"}}}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "all/name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: gone, Optional: ptr(true)}}}}},
			want: map[string]string{"all/a": "1", "user": "root", "pass": "x", "all/name": "pod"}, memory: true},
		{name: "unknown kind", src: corev1.VolumeSource{GitRepo: &corev1.GitRepoVolumeSource{}},
			wantErr: `volume "v": volume "v" is of a kind that this node does not support`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, objects...)
			pod := podWith(vol("v", tt.src))
			if tt.change != nil {
				tt.change(pod)
			}
			mounted, err := f.Mount(t.Context(), pod, PodFacts{})
			if tt.wantErr != "" {
				if err == nil || err.Error() != tt.wantErr {
					t.Fatalf("error %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			src := mounted["v"]
			if diff := cmp.Diff(tt.want, shown(t, src.HostPath)); diff != "" {
				t.Error(diff)
			}
			if !src.ReadOnly || isTmpfs(t, src.HostPath) != tt.memory {
				t.Errorf("read-only %v, in memory %v", src.ReadOnly, isTmpfs(t, src.HostPath))
			}
			f.mount(pod)
			if err := f.Unmount(t.Context(), pod.UID); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(f.PodDir(pod.UID)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the pod's folder is still there: %v", err)
			}
		})
	}
}

func TestRefreshFollowsObjects(t *testing.T) {
	f := newFixture(t, configMap("cm", "a", "1", "old", "x"))
	pod := podWith(
		vol("cm", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}),
		vol("opt", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "later", Optional: ptr(true)}}),
		vol("meta", corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}),
	)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	mounted := f.mount(pod)
	link := func() string {
		target, err := os.Readlink(filepath.Join(mounted["cm"].HostPath, dataLink))
		if err != nil {
			t.Fatal(err)
		}
		return target
	}
	first := link()
	if err := f.Refresh(t.Context(), pod, PodFacts{}); err != nil {
		t.Fatal(err)
	}
	if link() != first {
		t.Error("a refresh without a change must not write anew")
	}
	if _, err := f.client.CoreV1().ConfigMaps("ns").Update(ctx, func() *corev1.ConfigMap { c := configMap("cm", "a", "2", "b", "3"); c.ResourceVersion = "2"; return c }(), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client.CoreV1().Secrets("ns").Create(ctx, func() *corev1.Secret { s := secret("later", "k", "v"); s.ResourceVersion = "3"; return s }(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod.Labels = map[string]string{"app": "y"}
	want := map[string]map[string]string{
		"cm": {"a": "2", "b": "3"}, "opt": {"k": "v"}, "meta": {"labels": `app="y"`},
	}
	waitShown(t, f, pod, mounted, want)
	if link() == first {
		t.Error("a change must appear as a new version")
	}
	if err := f.client.CoreV1().Secrets("ns").Delete(ctx, "later", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	want["opt"] = map[string]string{}
	waitShown(t, f, pod, mounted, want)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// waitShown refreshes the pod at each announced change until it shows what is wanted.
func waitShown(t *testing.T, f *fixture, pod *corev1.Pod, mounted Mounted, want map[string]map[string]string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		if err := f.Refresh(t.Context(), pod, PodFacts{}); err != nil {
			t.Fatal(err)
		}
		got := make(map[string]map[string]string)
		for name := range want {
			got[name] = shown(t, mounted[name].HostPath)
		}
		diff := cmp.Diff(want, got)
		if diff == "" {
			return
		}
		select {
		case uid := <-f.changes:
			if uid != pod.UID {
				t.Fatalf("a change of pod %q was announced", uid)
			}
		case <-deadline:
			t.Fatal("no change was announced; still different:\n" + diff)
		}
	}
}

func TestTokens(t *testing.T) {
	f := newFixture(t)
	issued := 0
	f.client.PrependReactor("create", "serviceaccounts", func(a k8stesting.Action) (bool, runtime.Object, error) {
		create := a.(k8stesting.CreateAction)
		req := create.GetObject().(*authenticationv1.TokenRequest)
		if create.GetSubresource() != "token" || req.Spec.BoundObjectRef.UID != "uid-1" || req.Spec.Audiences[0] != "vault" || *req.Spec.ExpirationSeconds != 600 {
			t.Errorf("unexpected token request %+v", req.Spec)
		}
		issued++
		req.Status = authenticationv1.TokenRequestStatus{Token: "t" + itoa(uint32(issued)), ExpirationTimestamp: metav1.NewTime(time.Now().Add(10 * time.Minute))}
		return true, req, nil
	})
	src := corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "vault", ExpirationSeconds: ptr(int64(600)), Path: "token"}}}}}
	run := func(name string, want string, change func(*corev1.Pod)) {
		t.Run(name, func(t *testing.T) {
			pod := podWith(vol("v", src))
			change(pod)
			if diff := cmp.Diff(map[string]string{"token": want}, shown(t, f.mount(pod)["v"].HostPath)); diff != "" {
				t.Error(diff)
			}
		})
	}
	run("user unknown", "t1", func(*corev1.Pod) {})
	run("one user", "t1 -rw------- 1000:0", func(p *corev1.Pod) {
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: ptr(int64(1000))}
	})
	run("group", "t1 -rw-r----- 0:2000", func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr(int64(2000))}
	})
	if issued != 1 {
		t.Errorf("%d tokens were issued for one pod, want 1", issued)
	}
}

func TestTokenRenewal(t *testing.T) {
	start := time.Unix(0, 0)
	for _, tt := range []struct {
		life, age time.Duration
		want      bool
	}{
		{time.Hour, 47 * time.Minute, false}, {time.Hour, 48 * time.Minute, true}, {time.Hour, 2 * time.Hour, true},
		{100 * time.Hour, 24 * time.Hour, false}, {100 * time.Hour, 25 * time.Hour, true},
	} {
		if got := due(start, start.Add(tt.life), start.Add(tt.age)); got != tt.want {
			t.Errorf("a token of %v at %v: due %v, want %v", tt.life, tt.age, got, tt.want)
		}
	}
}

func TestEmptyDir(t *testing.T) {
	f := newFixture(t)
	group := &corev1.PodSecurityContext{FSGroup: ptr(int64(1001))}
	pod := podWith(
		vol("disk", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		vol("mem", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: ptr(resource.MustParse("1Mi"))}}),
	)
	for _, sc := range []*corev1.PodSecurityContext{nil, group} {
		pod.Spec.SecurityContext = sc
		mounted := f.mount(pod)
		for name, src := range mounted {
			info, err := os.Stat(src.HostPath)
			if err != nil {
				t.Fatal(err)
			}
			wantMode, wantGroup := fs.ModeDir|0o777, uint32(0)
			if sc != nil {
				wantMode, wantGroup = wantMode|fs.ModeSetgid, 1001
			}
			if gid := info.Sys().(*syscall.Stat_t).Gid; info.Mode() != wantMode || gid != wantGroup || src.ReadOnly {
				t.Errorf("%s: mode %v, group %d, read-only %v", name, info.Mode(), gid, src.ReadOnly)
			}
			if isTmpfs(t, src.HostPath) != (name == "mem") {
				t.Errorf("%s: wrong medium", name)
			}
			if err := os.WriteFile(filepath.Join(src.HostPath, "kept"), make([]byte, 1000), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(mounted["mem"].HostPath, "big"), make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("writing 2 MiB to a volume of 1 MiB: %v", err)
		}
		for _, src := range f.mount(pod) {
			if _, err := os.Stat(filepath.Join(src.HostPath, "kept")); err != nil {
				t.Errorf("mounting again lost a file: %v", err)
			}
		}
		if err := f.Unmount(t.Context(), pod.UID); err != nil {
			t.Fatal(err)
		}
	}
}
