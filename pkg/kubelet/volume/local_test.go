package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/localpath"
)

// madeVolume is a claim and the volume that the cluster made for it at path.
func madeVolume(name, path string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: "uid-c"},
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pvc-" + name},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
	}
	return claim, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-" + name, Annotations: map[string]string{localpath.ProvisionedBy: localpath.Provisioner}},
		Spec: corev1.PersistentVolumeSpec{
			ClaimRef:               &corev1.ObjectReference{UID: claim.UID},
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
		},
	}
}

// TestMadeVolumes follows a folder that the cluster made on the node.
func TestMadeVolumes(t *testing.T) {
	outside := t.TempDir()
	write(t, "precious", outside, "file")
	f := newFixture(t)
	claim, pv := madeVolume("data", filepath.Join(f.LocalDir(), "pvc-data"))
	strayClaim, stray := madeVolume("stray", filepath.Join(outside, "new"))
	for _, err := range []error{f.client.Tracker().Add(claim), f.client.Tracker().Add(pv), f.client.Tracker().Add(strayClaim), f.client.Tracker().Add(stray)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	use := func(name string) corev1.Volume {
		return vol("v", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}})
	}
	mounted, err := f.Mount(t.Context(), podWith(use("data")), PodFacts{})
	if err != nil {
		t.Fatal(err)
	}
	dir := mounted["v"].HostPath
	if info, err := os.Stat(dir); err != nil || fmt.Sprint(info.Mode()) != "drwxrwxrwx" {
		t.Errorf("%s is %v (%v)", dir, info, err)
	}
	write(t, "kept", dir, "file")
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := f.RemoveLocal("pvc-data"); !errors.Is(err, ErrInUse) {
		t.Errorf("removing a volume that a pod has: %v", err)
	}
	if err := f.Unmount(t.Context(), "uid-1"); err != nil {
		t.Fatal(err)
	}
	if read(t, dir, "file") != "kept" {
		t.Error("the data are gone with the pod")
	}
	for range 2 { // the second finds nothing
		if err := f.RemoveLocal("pvc-data"); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(f.LocalDir()); err != nil || len(left) != 0 {
		t.Errorf("%v is left (%v)", left, err)
	}
	if read(t, outside, "file") != "precious" {
		t.Error("the removal followed a link")
	}
	if _, err := f.Mount(t.Context(), podWith(use("stray")), PodFacts{}); err == nil {
		t.Error("a folder outside was made")
	}
	for _, name := range []string{"", ".", "..", "../x", "a/b", ".hidden"} {
		if err := f.RemoveLocal(name); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
}

// TestCutShortRemovalIsFinished: what a removal had put aside goes with the
// next one.
func TestCutShortRemovalIsFinished(t *testing.T) {
	f := newFixture(t)
	for _, dir := range []string{".gone-pvc-x", "pvc-x"} {
		if err := os.MkdirAll(filepath.Join(f.LocalDir(), dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, "", f.LocalDir(), ".gone-pvc-x/file")
	write(t, "", f.LocalDir(), "pvc-x/file")
	if err := f.RemoveLocal("pvc-x"); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(f.LocalDir()); err != nil || len(left) != 0 {
		t.Errorf("%v is left (%v)", left, err)
	}
}
