package apiserver_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestPhaseTransitionTime: the server notes when a volume's phase changed, and
// only then; a time that the writer gives stays.
func TestPhaseTransitionTime(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	volumes := s.Client.CoreV1().PersistentVolumes()
	v, err := volumes.Create(t.Context(), &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: corev1.PersistentVolumeSpec{
		Capacity: corev1.ResourceList{corev1.ResourceStorage: apiresource.MustParse("1Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		StorageClassName: "none", PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/v"}},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if at := v.Status.LastPhaseTransitionTime; at == nil || !at.Equal(&v.CreationTimestamp) {
		t.Errorf("a new volume's phase is of %v, want %v", at, v.CreationTimestamp)
	}
	long := metav1.NewTime(time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC))
	for _, tc := range []struct {
		name   string
		change func(*corev1.PersistentVolumeStatus)
		want   *metav1.Time
	}{
		{"a time that the writer gives", func(st *corev1.PersistentVolumeStatus) {
			st.Phase, st.LastPhaseTransitionTime = corev1.VolumeReleased, &long
		}, &long},
		{"no other phase", func(st *corev1.PersistentVolumeStatus) { st.Message, st.LastPhaseTransitionTime = "m", nil }, &long},
		{"another phase", func(st *corev1.PersistentVolumeStatus) { st.Phase = corev1.VolumeFailed }, nil},
	} {
		v, err := volumes.Get(t.Context(), "v", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		tc.change(&v.Status)
		v, err = volumes.UpdateStatus(t.Context(), v, metav1.UpdateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		at := v.Status.LastPhaseTransitionTime
		if tc.want != nil && !at.Equal(tc.want) || tc.want == nil && (at == nil || at.Equal(&long)) {
			t.Errorf("%s: the time is %v, want %v", tc.name, at, tc.want)
		}
	}
}
