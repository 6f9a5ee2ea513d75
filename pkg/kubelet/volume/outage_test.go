package volume

import (
	"errors"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"
)

// TestMountWithoutAPIServer starts the containers of a pod again, by an agent
// that has just started, while nothing answers.
func TestMountWithoutAPIServer(t *testing.T) {
	data := t.TempDir()
	f := newFixture(t, configMap("cm", "k", "v"), secret("s", "k", "v"),
		&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pvc", UID: "c"},
			Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv"}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound}},
		&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{UID: "c"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: data}}}})
	cm := corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}
	pod := podWith(vol("cm", cm), vol("s", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}),
		vol("pvc", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "pvc", ReadOnly: true}}))
	before := f.mount(pod)

	var failure error
	f.client.PrependReactor("get", "*", func(k8stesting.Action) (bool, runtime.Object, error) { return true, nil, failure })
	restarted := New(Config{RootDir: f.cfg.RootDir, Client: f.client})
	for _, failure = range []error{errors.New("connection refused"), apierrors.NewServiceUnavailable("starting"), apierrors.NewInternalError(errors.New("x"))} {
		after, err := restarted.Mount(t.Context(), pod, PodFacts{})
		if err != nil {
			t.Fatal(err)
		}
		for name, src := range before {
			if after[name] != src {
				t.Errorf("%v: volume %s is %+v, was %+v", failure, name, after[name], src)
			}
		}
		if text := read(t, filepath.Join(after["s"].HostPath, "k")); text != "v" {
			t.Errorf("the secret reads %q", text)
		}
		if err := restarted.Refresh(t.Context(), pod, PodFacts{}); err == nil {
			t.Error("a refresh without the API server must say so")
		}
	}
	for _, failure = range []error{apierrors.NewNotFound(corev1.Resource("configmaps"), "cm"), apierrors.NewForbidden(corev1.Resource("secrets"), "s", nil)} {
		if mounted, err := restarted.Mount(t.Context(), pod, PodFacts{}); err == nil || len(mounted) != 0 {
			t.Errorf("%v: mounted %v, %v; an answer must be taken as one", failure, mounted, err)
		}
	}
	failure = errors.New("connection refused")
	fresh := podWith(vol("cm", cm))
	fresh.UID = "never-mounted"
	if _, err := restarted.Mount(t.Context(), fresh, PodFacts{}); err == nil {
		t.Error("a volume that was never filled must not be mounted empty")
	}
}

func TestSubPathOfMissingOptionalKey(t *testing.T) {
	f := newFixture(t)
	pod := podWith(vol("cm", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: "later"}, Optional: ptr(true)}}))
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "cm", MountPath: "/f", SubPath: "key"}}
	mounted := f.mount(pod)
	for range 2 {
		got, err := f.mounts(pod, mounted)
		if err != nil || !got[0].Readonly {
			t.Fatalf("%+v, %v", got, err)
		}
		if entries, err := filepath.Glob(got[0].HostPath + "/*"); err != nil || len(entries) != 0 {
			t.Errorf("shown: %v, %v", entries, err)
		}
	}
	if _, err := f.client.CoreV1().ConfigMaps("ns").Create(t.Context(), configMap("later", "key", "v"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := f.mounts(pod, f.mount(pod))
	if err != nil {
		t.Fatal(err)
	}
	if text := read(t, got[0].HostPath); text != "v" {
		t.Errorf("the key reads %q after it came", text)
	}
}
