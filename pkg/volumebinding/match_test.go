package volumebinding

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	rwo = corev1.ReadWriteOnce
	rwx = corev1.ReadWriteMany
)

func volume(name string, gib int64, change ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:    corev1.ResourceList{corev1.ResourceStorage: *resource.NewQuantity(gib<<30, resource.BinarySI)},
			AccessModes: []corev1.PersistentVolumeAccessMode{rwo}, StorageClassName: "c",
		},
		Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable},
	}
	for _, f := range change {
		f(v)
	}
	return v
}

func claim(gib int64, change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	p := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{rwo}, StorageClassName: new("c"),
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceStorage: *resource.NewQuantity(gib<<30, resource.BinarySI)}},
		},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func refTo(namespace, name string, uid types.UID) func(*corev1.PersistentVolume) {
	return func(v *corev1.PersistentVolume) {
		v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: namespace, Name: name, UID: uid}
	}
}

func onNode(name string) func(*corev1.PersistentVolume) {
	return func(v *corev1.PersistentVolume) {
		v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "h", Operator: corev1.NodeSelectorOpIn, Values: []string{name}}}}}}}
	}
}

func TestFind(t *testing.T) {
	block, two := corev1.PersistentVolumeBlock, func(v *corev1.PersistentVolume) {
		v.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{rwo, rwx}
	}
	for _, c := range []struct {
		name    string
		volumes []*corev1.PersistentVolume
		query   Query
		want    string
	}{
		{name: "the smallest", volumes: []*corev1.PersistentVolume{volume("b", 9), volume("c", 4), volume("a", 4), volume("d", 2)}, query: Query{Claim: claim(3)}, want: "a"},
		{name: "fewest modes before size", volumes: []*corev1.PersistentVolume{volume("a", 3, two), volume("b", 9)}, query: Query{Claim: claim(3)}, want: "b"},
		{name: "all modes", volumes: []*corev1.PersistentVolume{volume("a", 3), volume("b", 9, two)}, query: Query{
			Claim: claim(3, func(p *corev1.PersistentVolumeClaim) { p.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{rwx} })}, want: "b"},
		{name: "its own first", volumes: []*corev1.PersistentVolume{volume("a", 3), volume("b", 9, refTo("ns", "p", ""))}, query: Query{Claim: claim(3)}, want: "b"},
		{name: "its own even when it waits", volumes: []*corev1.PersistentVolume{volume("a", 3), volume("b", 9, refTo("ns", "p", "u"))},
			query: Query{Claim: claim(3), ReservedOnly: true}, want: "b"},
		{name: "none while it waits", volumes: []*corev1.PersistentVolume{volume("a", 3)}, query: Query{Claim: claim(3), ReservedOnly: true}},
		{name: "not an earlier claim's", volumes: []*corev1.PersistentVolume{volume("a", 3, refTo("ns", "p", "before"))}, query: Query{Claim: claim(3)}},
		{name: "not another class", volumes: []*corev1.PersistentVolume{volume("a", 3)}, query: Query{
			Claim: claim(3, func(p *corev1.PersistentVolumeClaim) {
				p.Annotations = map[string]string{corev1.BetaStorageClassAnnotation: "d"}
			})}},
		{name: "not one that goes", volumes: []*corev1.PersistentVolume{volume("a", 3, func(v *corev1.PersistentVolume) { v.DeletionTimestamp = new(metav1.Time) })}, query: Query{Claim: claim(3)}},
		{name: "not one that nobody has looked at", volumes: []*corev1.PersistentVolume{volume("a", 3, func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumePending })}, query: Query{Claim: claim(3)}},
		{name: "not a device", volumes: []*corev1.PersistentVolume{volume("a", 3, func(v *corev1.PersistentVolume) { v.Spec.VolumeMode = &block })}, query: Query{Claim: claim(3)}},
		{name: "not other attributes", volumes: []*corev1.PersistentVolume{volume("a", 3, func(v *corev1.PersistentVolume) { v.Spec.VolumeAttributesClassName = new("x") })}, query: Query{Claim: claim(3)}},
		{name: "by label", volumes: []*corev1.PersistentVolume{volume("a", 3), volume("b", 9, func(v *corev1.PersistentVolume) { v.Labels = map[string]string{"k": "v"} })}, query: Query{
			Claim: claim(3, func(p *corev1.PersistentVolumeClaim) {
				p.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"k": "v"}}
			})}, want: "b"},
		{name: "not one that another is taking", volumes: []*corev1.PersistentVolume{volume("a", 3), volume("b", 9)}, query: Query{
			Claim: claim(3), Reserved: func(name string) bool { return name == "a" }}, want: "b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Find(c.query, c.volumes)
			name := ""
			if got != nil {
				name = got.Name
			}
			if err != nil || name != c.want {
				t.Errorf("found %q (%v), want %q", name, err, c.want)
			}
		})
	}
}

func TestFitting(t *testing.T) {
	names := func(list []*corev1.PersistentVolume) (out []string) {
		for _, v := range list {
			out = append(out, v.Name)
		}
		return out
	}
	all := []*corev1.PersistentVolume{volume("b", 9), volume("a", 3, onNode("n2")), volume("small", 1), volume("c", 3)}
	got, err := Fitting(claim(2), all)
	if want := []string{"a", "c", "b"}; err != nil || !slices.Equal(names(got), want) {
		t.Errorf("found %v (%v), want %v", names(got), err, want)
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"h": "n1"}}}
	if Reaches(got[0], node) || !Reaches(got[1], node) {
		t.Error("a volume of node n2 is within reach of n1, or one of all nodes is not")
	}
	got, err = Fitting(claim(2), append(all, volume("own", 4, refTo("ns", "p", ""))))
	if want := []string{"own"}; err != nil || !slices.Equal(names(got), want) {
		t.Errorf("found %v (%v), want %v", names(got), err, want)
	}
}

func TestFindRefusesABadSelector(t *testing.T) {
	bad := claim(1, func(p *corev1.PersistentVolumeClaim) {
		p.Spec.Selector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "k", Operator: "Near"}}}
	})
	if v, err := Find(Query{Claim: bad}, []*corev1.PersistentVolume{volume("a", 1)}); err == nil {
		t.Errorf("found %v", v)
	}
}

// TestBindingIsExclusive lets claims that look at old copies bind in any order,
// with crashes between their two writes; writes compare versions, as the API
// does. In the end each volume has one claim at most, and each claim one
// volume.
func TestBindingIsExclusive(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		volumes, old := map[string]*corev1.PersistentVolume{}, map[string]*corev1.PersistentVolume{}
		for i := range 1 + r.IntN(6) {
			v := volume(fmt.Sprintf("v%d", i), 1+r.Int64N(4))
			volumes[v.Name], old[v.Name] = v, v
		}
		claims := make([]*corev1.PersistentVolumeClaim, 1+r.IntN(6))
		for i := range claims {
			claims[i] = claim(1+r.Int64N(4), func(p *corev1.PersistentVolumeClaim) {
				p.Name, p.UID = fmt.Sprintf("p%d", i), types.UID(fmt.Sprintf("u%d", i))
			})
		}
		has := map[string]string{} // claim to volume, as the claim says
		for range 200 {
			if r.IntN(3) == 0 { // the caches catch up
				for name, v := range volumes {
					old[name] = v
				}
			}
			p := claims[r.IntN(len(claims))]
			if has[p.Name] != "" {
				continue
			}
			var seen []*corev1.PersistentVolume
			for name, v := range volumes {
				// A controller sees what it wrote for this claim itself.
				if Names(v, p) {
					old[name] = v
				}
				seen = append(seen, old[name])
			}
			found, err := Find(Query{Claim: p}, seen)
			if err != nil || found == nil {
				continue
			}
			next, changed := Bind(found, p)
			if changed {
				if volumes[found.Name].ResourceVersion != found.ResourceVersion {
					continue // conflict
				}
				next.ResourceVersion = found.ResourceVersion + "x"
				volumes[found.Name] = next
			}
			if r.IntN(2) == 0 {
				continue // crash
			}
			has[p.Name] = found.Name
		}
		owner := map[string]string{}
		for p, v := range has {
			if other := owner[v]; other != "" {
				t.Fatalf("seed %d: %s has %s and %s", seed, v, other, p)
			}
			owner[v] = p
		}
		named := map[string]string{}
		for _, v := range volumes {
			if ref := v.Spec.ClaimRef; ref != nil {
				if other := named[ref.Name]; other != "" {
					t.Fatalf("seed %d: %s is named by %s and %s", seed, ref.Name, other, v.Name)
				}
				named[ref.Name] = v.Name
			}
		}
	}
}

func TestDefaultClassIsTheNewest(t *testing.T) {
	at := func(name string, hour int, value string) *storagev1.StorageClass {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{defaultClass: value},
			CreationTimestamp: metav1.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC)}}
	}
	got := DefaultClass([]*storagev1.StorageClass{at("old", 1, "true"), at("b", 2, "true"), at("a", 2, "true"), at("newest", 3, "false")})
	if got == nil || got.Name != "a" {
		t.Errorf("the default is %v", got)
	}
	if got := DefaultClass([]*storagev1.StorageClass{at("x", 1, "no")}); got != nil {
		t.Errorf("the default is %v", got)
	}
}

func TestCheckSaysWhatDoesNotFit(t *testing.T) {
	for want, v := range map[string]*corev1.PersistentVolume{
		"requested PV is too small":       volume("a", 1),
		"storageClassName does not match": volume("a", 3, func(v *corev1.PersistentVolume) { v.Spec.StorageClassName = "d" }),
		"incompatible accessMode":         volume("a", 3, func(v *corev1.PersistentVolume) { v.Spec.AccessModes = nil }),
	} {
		if err := Check(v, claim(2)); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if err := Check(volume("a", 3), claim(2)); err != nil {
		t.Error(err)
	}
}
