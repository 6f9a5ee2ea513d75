package plugin

import (
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// hinted is a pod that each filter may have refused for a reason of its own.
func hinted(in *Interner) *Pod {
	hard := corev1.TopologySpreadConstraint{
		MaxSkew: 1, TopologyKey: "zone", WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}},
	}
	term := func(app string) []corev1.PodAffinityTerm {
		return []corev1.PodAffinityTerm{{TopologyKey: "zone", LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}}
	}
	return in.Pod(podObject("waits", func(p *corev1.Pod) {
		asks("cpu", "1", "example.com/gpu", "1")(p)
		takes("", corev1.ProtocolTCP, 80)(p)
		p.Labels = map[string]string{"app": "a"}
		p.Spec.NodeSelector = map[string]string{"disk": "ssd"}
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{hard}
		p.Spec.Affinity = &corev1.Affinity{
			PodAffinity:     &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: term("near")},
			PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: term("far")},
		}
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "mine"}}}}
	}))
}

func hintNode(change func(*corev1.Node)) *Facts {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"zone": "z"}}}
	n.Status.Allocatable = amounts("cpu", "2", "pods", "9", "example.com/gpu", "1")
	if change != nil {
		change(n)
	}
	return FactsOf(n)
}

func claimNamed(namespace, name string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}

func volumeOf(claim *corev1.PersistentVolumeClaim, labels map[string]string) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v", Labels: labels}}
	if claim != nil {
		v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: claim.Namespace, Name: claim.Name}
	}
	return v
}

func driver(capacity *bool) *storagev1.CSIDriver {
	return &storagev1.CSIDriver{Spec: storagev1.CSIDriverSpec{StorageCapacity: capacity}}
}

func room(amount string) *storagev1.CSIStorageCapacity {
	q := amounts("x", amount)["x"]
	return &storagev1.CSIStorageCapacity{Capacity: &q}
}

func deviceClass(name, provides string) *resourcev1.DeviceClass {
	c := &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if provides != "" {
		c.Spec.ExtendedResourceName = &provides
	}
	return c
}

// TestHints: which filters say that an event may help. Those of devices are not
// here.
func TestHints(t *testing.T) {
	in := NewInterner()
	waits := hinted(in)
	other := func(change func(*corev1.Pod)) *Pod { return in.Pod(podObject("other", change)) }
	app := func(name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Labels = map[string]string{"app": name} }
	}
	using := func(claim string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}}
		}
	}
	elsewhere := func(p *corev1.Pod) { p.Namespace = "elsewhere"; using("mine")(p) }
	node := hintNode(nil)
	update := func(change func(*corev1.Node)) Event {
		return Event{Kind: NodeUpdated, OldNode: node, Node: hintNode(change)}
	}
	object := func(old, now any) Event { return Event{Kind: ObjectChanged, OldObject: old, Object: now} }
	mine, theirs := claimNamed("default", "mine"), claimNamed("elsewhere", "mine")
	yes, no := true, false
	waiting := &storagev1.StorageClass{}
	narrowed := &storagev1.StorageClass{AllowedTopologies: []corev1.TopologySelectorTerm{{}}}
	for _, c := range []struct {
		name  string
		event Event
		want  []string
	}{
		{"a pod near", Event{Kind: PodAdded, Pod: other(app("near"))}, []string{"InterPodAffinity"}},
		{"a pod that is spread alike", Event{Kind: PodAdded, Pod: other(app("a"))}, []string{"PodTopologySpread"}},
		{"another pod", Event{Kind: PodAdded, Pod: other(nil)}, nil},
		{"becomes near", Event{Kind: PodRelabelled, OldPod: other(nil), Pod: other(app("near"))}, []string{"InterPodAffinity"}},
		{"is far no more", Event{Kind: PodRelabelled, OldPod: other(app("far")), Pod: other(nil)}, []string{"InterPodAffinity"}},
		{"is spread alike no more", Event{Kind: PodRelabelled, OldPod: other(app("a")), Pod: other(nil)}, []string{"PodTopologySpread"}},
		{"other labels", Event{Kind: PodRelabelled, OldPod: other(app("x")), Pod: other(app("y"))}, nil},
		{"less cpu", Event{Kind: PodScaledDown, OldPod: other(asks("cpu", "2")), Pod: other(asks("cpu", "1"))}, []string{"NodeResourcesFit"}},
		{"less memory", Event{Kind: PodScaledDown, OldPod: other(asks("memory", "2")), Pod: other(asks("memory", "1"))}, nil},
		{"a pod goes", Event{Kind: PodDeleted, OldPod: other(nil)}, []string{"NodeResourcesFit"}},
		{"the one with the port goes", Event{Kind: PodDeleted, OldPod: other(takes("192.0.2.1", corev1.ProtocolTCP, 80))}, []string{"NodePorts", "NodeResourcesFit"}},
		{"the one with another port goes", Event{Kind: PodDeleted, OldPod: other(takes("", corev1.ProtocolUDP, 80))}, []string{"NodeResourcesFit"}},
		{"the one that is far goes", Event{Kind: PodDeleted, OldPod: other(app("far"))}, []string{"InterPodAffinity", "NodeResourcesFit"}},
		{"the one with the claim goes", Event{Kind: PodDeleted, OldPod: other(using("mine"))}, []string{"NodeResourcesFit", "VolumeRestrictions"}},
		{"one with another claim goes", Event{Kind: PodDeleted, OldPod: other(using("other"))}, []string{"NodeResourcesFit"}},
		{"one with the claim's name goes", Event{Kind: PodDeleted, OldPod: other(elsewhere)}, []string{"NodeResourcesFit"}},

		{"a node", Event{Kind: NodeAdded, Node: node}, []string{
			"InterPodAffinity", "NodeDeclaredFeatures", "NodePorts", "NodeResourcesFit", "NodeUnschedulable", "PodTopologySpread", "TaintToleration", "VolumeBinding", "VolumeZone",
		}},
		{"a node that is selected", Event{Kind: NodeAdded, Node: hintNode(func(n *corev1.Node) {
			n.Labels = map[string]string{"disk": "ssd"}
			n.Spec.Unschedulable = true
			n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}}
			n.Status.Allocatable = nil
		})}, []string{"NodeAffinity", "NodeDeclaredFeatures", "NodePorts", "VolumeBinding", "VolumeZone"}},
		{"a node goes", Event{Kind: NodeDeleted, OldNode: node}, []string{"PodTopologySpread"}},
		{"a larger node", update(func(n *corev1.Node) { n.Status.Allocatable["cpu"] = amounts("x", "3")["x"] }), []string{"NodeResourcesFit"}},
		{"a smaller node", update(func(n *corev1.Node) { n.Status.Allocatable["cpu"] = amounts("x", "1")["x"] }), nil},
		{"a cordoned node", update(func(n *corev1.Node) { n.Spec.Unschedulable = true }), nil},
		{"uncordoned", Event{Kind: NodeUpdated, OldNode: hintNode(func(n *corev1.Node) { n.Spec.Unschedulable = true }), Node: node}, []string{"NodeUnschedulable"}},
		{"a tainted node", update(func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}} }), []string{"PodTopologySpread"}},
		{"untainted", Event{Kind: NodeUpdated, OldNode: hintNode(func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}} }), Node: node},
			[]string{"PodTopologySpread", "TaintToleration"}},
		{"another zone", update(func(n *corev1.Node) { n.Labels["zone"] = "y" }), []string{"InterPodAffinity", "PodTopologySpread", "VolumeBinding", "VolumeZone"}},
		{"selected by now", update(func(n *corev1.Node) { n.Labels["disk"] = "ssd" }), []string{"InterPodAffinity", "NodeAffinity", "VolumeBinding", "VolumeZone"}},
		{"features", update(func(n *corev1.Node) { n.Status.DeclaredFeatures = []string{"F"} }), []string{"NodeDeclaredFeatures"}},
		{"an image", update(func(n *corev1.Node) { n.Status.Images = []corev1.ContainerImage{{Names: []string{"i"}}} }), nil},
		{"a namespace", Event{Kind: NamespaceChanged}, []string{"InterPodAffinity"}},

		{"the claim", object(nil, mine), []string{"VolumeBinding", "VolumeRestrictions", "VolumeZone"}},
		{"the claim goes", object(mine, nil), nil},
		{"a claim of that name", object(nil, theirs), nil},
		{"a free volume", object(nil, volumeOf(nil, nil)), []string{"VolumeBinding", "VolumeZone"}},
		{"the claim's volume", object(volumeOf(nil, nil), volumeOf(mine, nil)), []string{"VolumeBinding"}},
		{"the claim's volume in a zone", object(volumeOf(mine, nil), volumeOf(mine, map[string]string{"zone": "z"})), []string{"VolumeBinding", "VolumeZone"}},
		{"a volume of others", object(volumeOf(nil, nil), volumeOf(theirs, nil)), nil},
		{"a volume goes", object(volumeOf(mine, nil), nil), nil},
		{"a class", object(nil, waiting), []string{"VolumeBinding"}},
		{"a class with other topologies", object(narrowed, waiting), []string{"VolumeBinding"}},
		{"a class like before", object(waiting, waiting), nil},
		{"room", object(nil, room("1Gi")), []string{"VolumeBinding"}},
		{"more room", object(room("1Gi"), room("2Gi")), []string{"VolumeBinding"}},
		{"less room", object(room("2Gi"), room("1Gi")), nil},
		{"a driver says no more what room there is", object(driver(&yes), driver(&no)), []string{"VolumeBinding"}},
		{"a driver says by now what room there is", object(driver(nil), driver(&yes)), nil},
		{"a driver that said goes", object(driver(&yes), nil), []string{"VolumeBinding"}},
		{"a driver that did not say goes", object(driver(nil), nil), nil},
		{"devices for the resource", object(deviceClass("c", ""), deviceClass("c", "example.com/gpu")), []string{"NodeResourcesFit"}},
		{"devices for another resource", object(nil, deviceClass("c", "example.com/fpga")), nil},
		{"devices as before", object(deviceClass("c", "example.com/gpu"), deviceClass("c", "example.com/gpu")), nil},
		{"anything", object(nil, nil), []string{"NodeResourcesFit", "VolumeBinding", "VolumeRestrictions", "VolumeZone"}},
	} {
		var got []string
		for _, name := range slices.Sorted(maps.Keys(Factories())) {
			if name == "DynamicResources" {
				continue
			}
			made, err := Factories()[name](nil, Handles{DelegatedResource: func(string) bool { return false }})
			if err != nil {
				t.Fatal(err)
			}
			if _, filters := made.(Filter); !filters {
				continue
			}
			hinter, ok := made.(Hinter)
			if !ok {
				t.Fatalf("%s has no hints: any event wakes the pods it refuses", name)
			}
			if hinter.MayHelp(waits, &c.event) {
				got = append(got, name)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: may help those refused by %v, want %v", c.name, got, c.want)
		}
	}
}

// TestHintsOfOthersTerms: a pod without terms of its own is refused by those of
// others alone, and a node in another domain is free of them.
func TestHintsOfOthersTerms(t *testing.T) {
	plain, node := aPod("plain", nil), hintNode(nil)
	for name, e := range map[string]Event{
		"a node":       {Kind: NodeAdded, Node: node},
		"another zone": {Kind: NodeUpdated, OldNode: node, Node: hintNode(func(n *corev1.Node) { n.Labels["zone"] = "y" })},
	} {
		if !(&InterPodAffinity{}).MayHelp(plain, &e) {
			t.Errorf("%s does not help", name)
		}
	}
}
