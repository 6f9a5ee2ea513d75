package node

import (
	"fmt"
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
