package protection

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDecide(t *testing.T) {
	const f = "example.com/f"
	tests := []struct {
		name       string
		deleting   bool
		finalizers []string
		want       verdict
		then       []string
	}{
		{"protected", false, []string{f}, leave, nil},
		{"unprotected", false, []string{"x"}, protect, []string{"x", f}},
		{"going", true, []string{"x", f, "y"}, release, []string{"x", "y"}},
		{"going without", true, []string{"x"}, leave, []string{"x", f}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			obj := &metav1.ObjectMeta{Finalizers: tt.finalizers}
			if tt.deleting {
				obj.DeletionTimestamp = &metav1.Time{}
			}
			if got := decide(obj, f); got != tt.want {
				t.Errorf("decided %v, want %v", got, tt.want)
			}
			if got := toggled(obj, f); tt.want != leave && !slices.Equal(got, tt.then) {
				t.Errorf("finalizers become %v, want %v", got, tt.then)
			}
		})
	}
}

func TestHolds(t *testing.T) {
	claim := func(name string, owner *corev1.Pod) *corev1.PersistentVolumeClaim {
		c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"}}
		if owner != nil {
			c.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(owner, corev1.SchemeGroupVersion.WithKind("Pod"))}
		}
		return c
	}
	pod := func(node string, change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}, Spec: corev1.PodSpec{NodeName: node, Volumes: []corev1.Volume{
			{Name: "a", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "b", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
			{Name: "c", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}},
		}}}
		if change != nil {
			change(p)
		}
		return p
	}
	ended := func(p *corev1.Pod) {
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{}, new(int64(0))
	}
	if got := claimsOf(pod("", nil)); !slices.Equal(got, []string{"data", "p-c"}) {
		t.Errorf("the pod's claims are %v", got)
	}
	for _, tt := range []struct {
		name  string
		pod   *corev1.Pod
		claim *corev1.PersistentVolumeClaim
		want  bool
	}{
		{"uses", pod("n", nil), claim("data", nil), true},
		{"uses another", pod("n", nil), claim("other", nil), false},
		{"in another namespace", pod("n", func(p *corev1.Pod) { p.Namespace = "x" }), claim("data", nil), false},
		{"has no node", pod("", nil), claim("data", nil), false},
		{"has ended and is still there", pod("n", ended), claim("data", nil), true},
		{"its own", pod("n", nil), claim("p-c", pod("", nil)), true},
		{"looks like its own", pod("n", nil), claim("p-c", nil), false},
		{"its own, and has ended", pod("n", ended), claim("p-c", pod("", nil)), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := holds(tt.pod, tt.claim); got != tt.want {
				t.Errorf("holds: %v, want %v", got, tt.want)
			}
		})
	}
}

func TestClasses(t *testing.T) {
	c := &corev1.PersistentVolumeClaim{}
	if got := classesOf(c); len(got) != 0 {
		t.Errorf("a claim without classes has %v", got)
	}
	c.Spec.VolumeAttributesClassName = new("b")
	c.Status.CurrentVolumeAttributesClassName = new("a")
	c.Status.ModifyVolumeStatus = &corev1.ModifyVolumeStatus{TargetVolumeAttributesClassName: "b"}
	if got := classesOf(c); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("the claim's classes are %v", got)
	}
	if got := classOf(&corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{VolumeAttributesClassName: new("")}}); got != nil {
		t.Errorf("the empty name is a class: %v", got)
	}
}
