package node

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"coracle/pkg/auth"
	"coracle/pkg/auth/policy"
)

func agent(node string) *auth.User {
	return &auth.User{Name: auth.NodeUserName(node), Groups: []string{auth.GroupNodes, auth.GroupAuthenticated}}
}

func newPod(namespace, name, node string, spec corev1.PodSpec) *corev1.Pod {
	spec.NodeName = node
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}
}

func secretVolume(name string) corev1.Volume {
	return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}}}
}

func claimVolume(name string) corev1.Volume {
	return corev1.Volume{Name: "c", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}}
}

// ask makes attributes of "verb group resource/sub namespace name [selector]",
// with "-" for empty parts.
func ask(u *auth.User, text string) auth.Attributes {
	f := strings.Fields(text)
	for i := range f {
		if f[i] == "-" {
			f[i] = ""
		}
	}
	resource, sub, _ := strings.Cut(f[2], "/")
	a := auth.Attributes{User: u, Verb: f[0], APIGroup: f[1], Resource: resource, Subresource: sub, Namespace: f[3], Name: f[4], ResourceRequest: true}
	if len(f) > 5 {
		a.FieldSelector = fields.ParseSelectorOrDie(f[5]).Requirements()
	}
	return a
}

func TestAuthorize(t *testing.T) {
	g := &Graph{}
	g.SetPod(newPod("ns", "web", "n1", corev1.PodSpec{
		ServiceAccountName: "sa",
		ImagePullSecrets:   []corev1.LocalObjectReference{{Name: "pull"}},
		Volumes: []corev1.Volume{
			secretVolume("vol"), claimVolume("data"),
			{Name: "scratch", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}},
			{Name: "p", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}}},
			}}}},
		},
	}))
	g.SetPod(newPod("ns", "db", "n2", corev1.PodSpec{Volumes: []corev1.Volume{secretVolume("other")}}))
	g.SetPersistentVolume(&corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv1"},
		Spec: corev1.PersistentVolumeSpec{
			ClaimRef: &corev1.ObjectReference{Namespace: "ns", Name: "data"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				NodeStageSecretRef:         &corev1.SecretReference{Namespace: "csi", Name: "stage"},
				ControllerPublishSecretRef: &corev1.SecretReference{Namespace: "csi", Name: "controller"},
			}},
		},
	})
	g.SetPersistentVolume(&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv2"}})
	g.SetVolumeAttachment("va1", "n1")
	g.SetVolumeAttachment("va2", "n2")
	g.SetResourceSlice("rs1", "n1")
	g.SetResourceSlice("rs2", "n2")
	mirror := newPod("kube-system", "static-n1", "n1", corev1.PodSpec{Volumes: []corev1.Volume{secretVolume("root")}})
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	g.SetPod(mirror)

	z := New(g, policy.NodeRules())
	n1 := agent("n1")
	for text, want := range map[string]bool{
		// What its pods refer to.
		"get - secrets ns vol":                                                 true,
		"get - secrets ns pull":                                                true,
		"list - secrets ns vol":                                                true,
		"watch - secrets ns vol":                                               true,
		"get - secrets ns other":                                               false,
		"get - secrets other vol":                                              false,
		"list - secrets ns -":                                                  false,
		"list - secrets - -":                                                   false,
		"update - secrets ns vol":                                              false,
		"delete - secrets ns vol":                                              false,
		"create - secrets ns -":                                                false,
		"get - secrets kube-system root":                                       false,
		"get - configmaps ns kube-root-ca.crt":                                 true,
		"watch - configmaps ns kube-root-ca.crt":                               true,
		"get - configmaps ns other":                                            false,
		"get - persistentvolumeclaims ns data":                                 true,
		"get - persistentvolumeclaims ns web-scratch":                          true,
		"get - persistentvolumeclaims ns x":                                    false,
		"list - persistentvolumeclaims ns data":                                false,
		"update - persistentvolumeclaims/status ns data":                       true,
		"patch - persistentvolumeclaims/status ns data":                        true,
		"update - persistentvolumeclaims/status ns x":                          false,
		"update - persistentvolumeclaims ns data":                              false,
		"get - persistentvolumes - pv1":                                        true,
		"get - persistentvolumes - pv2":                                        false,
		"list - persistentvolumes - -":                                         false,
		"get - secrets csi stage":                                              true,
		"get - secrets csi controller":                                         false,
		"get storage.k8s.io volumeattachments - va1":                           true,
		"get storage.k8s.io volumeattachments - va2":                           false,
		"get - serviceaccounts ns sa":                                          true,
		"get - serviceaccounts ns x":                                           false,
		"create - serviceaccounts/token ns sa":                                 true,
		"create - serviceaccounts/token ns x":                                  false,
		"create - serviceaccounts/token ns -":                                  false,
		"create - serviceaccounts ns -":                                        false,
		"get resource.k8s.io resourceclaims ns x":                              false,
		"get resource.k8s.io resourceslices - rs1":                             true,
		"delete resource.k8s.io resourceslices - rs2":                          false,
		"create resource.k8s.io resourceslices - -":                            true,
		"list resource.k8s.io resourceslices - -":                              false,
		"list resource.k8s.io resourceslices - - spec.nodeName=n1":             true,
		"deletecollection resource.k8s.io resourceslices - - spec.nodeName=n2": false,
		// Its own.
		"get coordination.k8s.io leases kube-node-lease n1":    true,
		"update coordination.k8s.io leases kube-node-lease n1": true,
		"create coordination.k8s.io leases kube-node-lease -":  true,
		"update coordination.k8s.io leases kube-node-lease n2": false,
		"get coordination.k8s.io leases kube-system n1":        false,
		"list coordination.k8s.io leases kube-node-lease n1":   false,
		"get storage.k8s.io csinodes - n1":                     true,
		"create storage.k8s.io csinodes - -":                   true,
		"get storage.k8s.io csinodes - n2":                     false,
		"get - nodes - n1":                                     true,
		"watch - nodes - n1":                                   true,
		"get - nodes - n2":                                     false,
		"list - nodes - -":                                     false,
		"create - nodes - -":                                   true,
		"patch - nodes/status - n1":                            true,
		"delete - nodes - n1":                                  false,
		"get - nodes/proxy - n1":                               false,
		"create - nodes/proxy - n1":                            false,
		// Pods.
		"get - pods ns web":                        true,
		"get - pods kube-system static-n1":         true,
		"get - pods ns db":                         false,
		"list - pods - - spec.nodeName=n1":         true,
		"watch - pods - - spec.nodeName=n1":        true,
		"watch - pods - - spec.nodeName==n1":       true,
		"list - pods - - spec.nodeName!=n2":        false,
		"list - pods - - spec.nodeName=n2":         false,
		"list - pods - - status.phase=Running":     false,
		"list - pods - -":                          false,
		"watch - pods ns web":                      true,
		"watch - pods ns db":                       false,
		"create - pods ns -":                       true,
		"delete - pods ns web":                     true,
		"update - pods ns web":                     false,
		"patch - pods/status ns web":               true,
		"create - pods/eviction ns web":            true,
		"create - pods/exec ns web":                false,
		"get - pods/exec ns web":                   false,
		"create - pods/binding ns web":             false,
		"update - pods/ephemeralcontainers ns web": false,
		"deletecollection - pods ns -":             false,
		"get - pods/log ns web":                    false,
		// By the role.
		"list - services - -":                                                true,
		"watch storage.k8s.io csidrivers - -":                                true,
		"get node.k8s.io runtimeclasses - x":                                 true,
		"create - events ns -":                                               true,
		"create certificates.k8s.io certificatesigningrequests - -":          true,
		"update certificates.k8s.io certificatesigningrequests/approval - x": false,
		"create authorization.k8s.io subjectaccessreviews - -":               true,
		"list - namespaces - -":                                              false,
		"list apps deployments - -":                                          false,
		"list rbac.authorization.k8s.io clusterroles - -":                    false,
	} {
		d, reason, err := z.Authorize(t.Context(), ask(n1, text))
		if (d == auth.Allow) != want || d == auth.Deny || err != nil {
			t.Errorf("%s: %v %s %v", text, d, reason, err)
		}
	}

	for _, u := range []*auth.User{{Name: "system:node:n1"}, {Name: "n1", Groups: []string{auth.GroupNodes}}, {Name: "joe"}} {
		if d, _, _ := z.Authorize(t.Context(), ask(u, "get - secrets ns vol")); d != auth.NoOpinion {
			t.Errorf("%+v: %v", u, d)
		}
	}
	if d, _, _ := z.Authorize(t.Context(), auth.Attributes{User: n1, Verb: "get", Path: "/metrics"}); d != auth.NoOpinion {
		t.Errorf("path: %v", d)
	}
	if r, err := z.RulesFor(t.Context(), n1, "ns"); !r.Incomplete || err == nil {
		t.Errorf("%+v %v", r, err)
	}
}

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

func BenchmarkAuthorize(b *testing.B) {
	g := &Graph{}
	for n := range 100 {
		for p := range 50 {
			g.SetPod(newPod("ns", fmt.Sprintf("p-%d-%d", n, p), fmt.Sprint("n", n), corev1.PodSpec{
				ServiceAccountName: "sa", Volumes: []corev1.Volume{secretVolume(fmt.Sprint("s", p)), claimVolume(fmt.Sprint("c", p))},
			}))
		}
	}
	z := New(g, policy.NodeRules())
	for _, text := range []string{"get - secrets ns s7", "list - services - -"} {
		a := ask(agent("n1"), text)
		b.Run(strings.Fields(text)[2], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d, reason, _ := z.Authorize(b.Context(), a); d != auth.Allow {
					b.Fatal(reason)
				}
			}
		})
	}
}
