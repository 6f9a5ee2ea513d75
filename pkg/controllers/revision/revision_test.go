package revision

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func owner(image string, limit int32) Owner {
	return Owner{
		Object:   &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "ds", Namespace: "ns", UID: "u"}},
		Kind:     appsv1.SchemeGroupVersion.WithKind("DaemonSet"),
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "ds"}},
		Template: &corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "ds"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}},
		},
		Limit: &limit, HashLabel: HashLabel,
	}
}

// history runs images through Compute and returns the image of each revision
// left, by number.
func history(t *testing.T, limit int32, used map[string]bool, images ...string) map[int64]string {
	t.Helper()
	var have []*appsv1.ControllerRevision
	for _, image := range images {
		p, err := Compute(owner(image, limit), have, used)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range have {
			if r.Name == p.Current.Name {
				have[i] = p.Current
			}
		}
		if p.Create {
			have = append(have, p.Current)
		}
		var left []*appsv1.ControllerRevision
		for _, r := range have {
			gone := false
			for _, d := range p.Remove {
				gone = gone || d.Name == r.Name
			}
			if !gone {
				left = append(left, r)
			}
		}
		have = left
		again, err := Compute(owner(image, limit), have, used)
		if err != nil || again.Create || again.Renumber || len(again.Remove) > 0 {
			t.Fatalf("the same template plans again: %+v, err %v", again, err)
		}
	}
	out := map[int64]string{}
	for _, r := range have {
		template, err := Template(r)
		if err != nil {
			t.Fatal(err)
		}
		out[r.Revision] = template.Spec.Containers[0].Image
	}
	return out
}

func TestHistory(t *testing.T) {
	for _, tc := range []struct {
		name   string
		limit  int32
		images []string
		want   map[int64]string
	}{
		{"first", 10, []string{"a"}, map[int64]string{1: "a"}},
		{"each template its own", 10, []string{"a", "b"}, map[int64]string{1: "a", 2: "b"}},
		{"put back", 10, []string{"a", "b", "a"}, map[int64]string{2: "b", 3: "a"}},
		{"limited", 1, []string{"a", "b", "c"}, map[int64]string{2: "b", 3: "c"}},
		{"none kept", 0, []string{"a", "b"}, map[int64]string{2: "b"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, history(t, tc.limit, nil, tc.images...)); diff != "" {
				t.Errorf("history (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUsedRevisionsStay(t *testing.T) {
	p, err := Compute(owner("a", 0), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{p.Current.Name: true}
	if diff := cmp.Diff(map[int64]string{1: "a", 2: "b"}, history(t, 0, used, "a", "b")); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
}

func TestCollisionChangesTheName(t *testing.T) {
	a, err := Compute(owner("a", 10), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := owner("a", 10)
	one := int32(1)
	o.Collisions = &one
	b, err := Compute(o, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.Current.Name == b.Current.Name {
		t.Errorf("both are named %s", a.Current.Name)
	}
}
