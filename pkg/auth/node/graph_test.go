package node

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestGraphFollowsChanges(t *testing.T) {
	g := &Graph{}
	vol := ref{secret, "ns", "s"}
	web := newPod("ns", "web", "", corev1.PodSpec{Volumes: []corev1.Volume{secretVolume("s"), claimVolume("c")}})
	expect := func(step, node string, r ref, want bool) {
		t.Helper()
		if g.related(node, r) != want {
			t.Errorf("%s: %s and %+v: %v", step, node, r, !want)
		}
	}
	g.SetPod(web)
	expect("unbound", "", vol, false)
	bound := web.DeepCopy()
	bound.Spec.NodeName = "n1"
	g.SetPod(bound)
	g.SetPod(bound.DeepCopy())
	expect("bound", "n1", vol, true)
	second := newPod("ns", "second", "n1", corev1.PodSpec{Volumes: []corev1.Volume{secretVolume("s")}})
	g.SetPod(second)
	g.DeletePod("ns", "web")
	expect("still used by the second", "n1", vol, true)
	g.DeletePod("ns", "second")
	expect("unused", "n1", vol, false)
	g.DeletePod("ns", "second")

	g.SetPod(bound)
	moved := bound.DeepCopy()
	moved.Spec.NodeName = "n2"
	g.SetPod(moved)
	expect("same name on another node", "n1", vol, false)
	expect("same name on another node", "n2", vol, true)

	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}}
	g.SetPersistentVolume(pv)
	volume := ref{kind: persistentVolume, name: "pv"}
	expect("unclaimed", "n2", volume, false)
	claimed := pv.DeepCopy()
	claimed.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "ns", Name: "c"}
	claimed.Spec.RBD = &corev1.RBDPersistentVolumeSource{SecretRef: &corev1.SecretReference{Name: "rbd"}}
	g.SetPersistentVolume(claimed)
	expect("claimed", "n2", volume, true)
	expect("secret in the claim's namespace", "n2", ref{secret, "ns", "rbd"}, true)
	expect("claimed", "n1", volume, false)
	g.DeletePersistentVolume("pv")
	expect("deleted volume", "n2", volume, false)
	expect("deleted volume", "n2", ref{secret, "ns", "rbd"}, false)

	status := moved.DeepCopy()
	claim := "made"
	status.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}}
	g.SetPod(status)
	expect("claim not made yet", "n2", ref{resourceClaim, "ns", "made"}, false)
	status = status.DeepCopy()
	status.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "gpu", ResourceClaimName: &claim}}
	g.SetPod(status)
	expect("claim made", "n2", ref{resourceClaim, "ns", "made"}, true)
	g.DeletePod("ns", "web")
	if len(g.nodes)+len(g.owned)+len(g.volumes)+len(g.secretVolumes) != 0 {
		t.Errorf("something is left: %+v", g)
	}
}

// TestGraphEqualsRebuild: after random changes the graph is what one made from
// the end state is.
func TestGraphEqualsRebuild(t *testing.T) {
	for seed := range uint64(50) {
		p := rand.New(rand.NewPCG(seed, 3))
		pick := func(from ...string) string { return from[p.IntN(len(from))] }
		g, pods := &Graph{}, map[string]*corev1.Pod{}
		for range 200 {
			name := fmt.Sprint("p", p.IntN(8))
			if p.IntN(4) == 0 {
				g.DeletePod("ns", name)
				delete(pods, name)
				continue
			}
			pod := newPod("ns", name, pick("", "n1", "n2"), corev1.PodSpec{
				ServiceAccountName: pick("", "a", "b"),
				Volumes:            []corev1.Volume{secretVolume(pick("s1", "s2")), claimVolume(pick("c1", "c2"))},
			})
			g.SetPod(pod)
			pods[name] = pod
		}
		fresh := &Graph{}
		for _, pod := range pods {
			fresh.SetPod(pod)
		}
		if len(fresh.nodes) > 0 && !reflect.DeepEqual(g.nodes, fresh.nodes) {
			t.Fatalf("seed %d: %v, want %v", seed, g.nodes, fresh.nodes)
		}
	}
}

// TestEveryReferenceIsSeen fills every field of a pod that names a secret or a
// configmap and wants all of them: a new one in the API fails here.
func TestEveryReferenceIsSeen(t *testing.T) {
	refersTo := func(path string) string {
		switch {
		case strings.HasSuffix(path, "Secret.LocalObjectReference.Name"), strings.HasSuffix(path, "SecretRef.Name"), strings.HasSuffix(path, "SecretRef.LocalObjectReference.Name"),
			strings.HasSuffix(path, "SecretKeyRef.LocalObjectReference.Name"), strings.HasSuffix(path, "SecretName"), strings.HasSuffix(path, "ImagePullSecrets.Name"):
			return "secret"
		case strings.HasSuffix(path, "ConfigMap.LocalObjectReference.Name"), strings.HasSuffix(path, "ConfigMapRef.LocalObjectReference.Name"), strings.HasSuffix(path, "ConfigMapKeyRef.LocalObjectReference.Name"):
			return "configmap"
		case strings.Contains(path, "Secret") && strings.HasSuffix(path, "Name"), strings.HasSuffix(path, "LocalObjectReference.Name"):
			return "unknown"
		}
		return ""
	}
	// A volume has one source: one pod for each of its fields.
	sources := reflect.TypeFor[corev1.VolumeSource]()
	total := 0
	for i := range sources.NumField() {
		p := newPod("ns", "p", "n", corev1.PodSpec{})
		var want []string
		fill := func(v reflect.Value, path string, only string) {
			fillRefs(v, path, only, func(path string, set func(string)) {
				kind := refersTo(path)
				if kind == "unknown" {
					t.Errorf("%s names something this test does not know", path)
				}
				if kind != "" {
					name := fmt.Sprintf("%s-%d", kind, len(want))
					set(name)
					want = append(want, name)
				}
			})
		}
		fill(reflect.ValueOf(&p.Spec).Elem(), "Spec", sources.Field(i).Name)
		got := map[string]bool{}
		for _, r := range podRefs(p) {
			got[r.name] = true
			if want := map[kind]string{secret: "secret-", configMap: "configmap-"}[r.kind]; !strings.HasPrefix(r.name, want) {
				t.Errorf("%s is taken for one of %s", r.name, r.kind)
			}
		}
		for _, name := range want {
			if !got[name] {
				t.Errorf("volume source %s: %s is not seen", sources.Field(i).Name, name)
			}
		}
		pull, others := Secrets(p)
		for _, name := range append(pull, others...) {
			delete(got, name)
		}
		for name := range got {
			if strings.HasPrefix(name, "secret") {
				t.Errorf("volume source %s: %s is not told to policies", sources.Field(i).Name, name)
			}
		}
		total += len(want)
	}
	if total < 100 {
		t.Errorf("only %d references were filled", total)
	}
}

// fillRefs makes one element of every list and pointer of a struct and visits
// its strings; of volume sources it makes only one.
func fillRefs(v reflect.Value, path, only string, visit func(path string, set func(string))) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.Type().Elem().Kind() == reflect.Struct && !skipped(v.Type().Elem()) {
			v.Set(reflect.New(v.Type().Elem()))
			fillRefs(v.Elem(), path, only, visit)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Struct && !skipped(v.Type().Elem()) {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fillRefs(v.Index(0), path, only, visit)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if !f.IsExported() || (v.Type() == reflect.TypeFor[corev1.VolumeSource]() && f.Name != only) {
				continue
			}
			fillRefs(v.Field(i), path+"."+f.Name, only, visit)
		}
	case reflect.String:
		visit(path, func(s string) { v.SetString(s) })
	}
}

// skipped are types without references in the pod's own right.
func skipped(t reflect.Type) bool {
	return t == reflect.TypeFor[metav1.LabelSelector]() || t == reflect.TypeFor[corev1.PersistentVolumeClaimTemplate]()
}
