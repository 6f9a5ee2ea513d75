package main

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	zoneKey  = corev1.LabelTopologyZone
	hostKey  = corev1.LabelHostname
	driver   = "ebs.csi.aws.com"
	lastName = "scheduler-perf-node" // of the one node that a shape names
	low      = "low"
	high     = "high"
)

func quantities(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

// node is a worker of upstream's: 4 CPUs, 32 GiB, 110 pods.
func node(name string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{hostKey: name}}}
	n.Status.Capacity = quantities("cpu", "4", "memory", "32Gi", "pods", "110")
	n.Status.Allocatable = n.Status.Capacity.DeepCopy()
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}}
	return n
}

func nodeName(i int) string { return fmt.Sprintf("node-%05d", i) }

// plainNode, and nodes in zones, with taints, with volumes, with a resource of
// their own.
func plainNode(i int) *corev1.Node { return node(nodeName(i)) }

func zoned(zones ...string) func(int) *corev1.Node {
	return func(i int) *corev1.Node {
		n := plainNode(i)
		n.Labels[zoneKey] = zones[i%len(zones)]
		return n
	}
}

func taintedNode(i int) *corev1.Node {
	n := node(fmt.Sprintf("taint-%05d", i))
	n.Spec.Taints = []corev1.Taint{{Key: "foo", Effect: corev1.TaintEffectNoSchedule}}
	return n
}

// roomyNode has room for all pods that ask for nothing.
func roomyNode(int) *corev1.Node {
	n := node(lastName)
	n.Status.Capacity[corev1.ResourcePods] = resource.MustParse("90000")
	n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("90000")
	return n
}

func extendedNode(i int) *corev1.Node {
	n := plainNode(i)
	name := corev1.ResourceName("foo.com/bar-" + strconv.Itoa(i))
	n.Status.Capacity[name], n.Status.Allocatable[name] = resource.MustParse("1"), resource.MustParse("1")
	return n
}

func csiNode(name string) *storagev1.CSINode {
	count := int32(39)
	return &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{
		{Name: driver, NodeID: name, Allocatable: &storagev1.VolumeNodeResources{Count: &count}},
	}}}
}

// podOption changes a pod.
type podOption func(*corev1.Pod)

// pod is upstream's: 100m, 500 MiB, a port that is not the host's.
func pod(options ...podOption) *corev1.Pod {
	asks := quantities("cpu", "100m", "memory", "500Mi")
	p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name: "pause", Image: "registry.k8s.io/pause:3.10.2", Ports: []corev1.ContainerPort{{ContainerPort: 80}},
		Resources: corev1.ResourceRequirements{Requests: asks, Limits: asks},
	}}}}
	for _, o := range options {
		o(p)
	}
	return p
}

// light asks for nothing.
func light(p *corev1.Pod) {
	p.Spec.Containers[0].Resources = corev1.ResourceRequirements{}
	p.Spec.Containers[0].Ports = nil
	now := int64(0)
	p.Spec.TerminationGracePeriodSeconds = &now
}

func asks(pairs ...string) podOption {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: quantities(pairs...)}
		now := int64(0)
		p.Spec.TerminationGracePeriodSeconds = &now
	}
}

func class(name string) podOption { return func(p *corev1.Pod) { p.Spec.PriorityClassName = name } }

func labelled(key, value string) podOption {
	return func(p *corev1.Pod) { p.Labels = map[string]string{key: value} }
}

func selector(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

// term is an affinity term about pods of a colour, in the two namespaces that
// upstream's shapes use, or in those of a team.
func term(colour, topology string, byTeam bool) corev1.PodAffinityTerm {
	t := corev1.PodAffinityTerm{LabelSelector: selector("color", colour), TopologyKey: topology, Namespaces: []string{"sched-1", "sched-0"}}
	if byTeam {
		t.Namespaces, t.NamespaceSelector = nil, selector("team", "devops")
	}
	return t
}

func near(colour string, required, byTeam bool) podOption {
	topology := zoneKey
	if !required {
		topology = hostKey
	}
	t := term(colour, topology, byTeam)
	return func(p *corev1.Pod) {
		labelled("color", colour)(p)
		a := &corev1.PodAffinity{}
		if required {
			a.RequiredDuringSchedulingIgnoredDuringExecution = []corev1.PodAffinityTerm{t}
		} else {
			a.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.WeightedPodAffinityTerm{{Weight: 1, PodAffinityTerm: t}}
		}
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: a}
	}
}

func apart(colour string, required, byTeam bool) podOption {
	t := term(colour, hostKey, byTeam)
	return func(p *corev1.Pod) {
		labelled("color", colour)(p)
		a := &corev1.PodAntiAffinity{}
		if required {
			a.RequiredDuringSchedulingIgnoredDuringExecution = []corev1.PodAffinityTerm{t}
		} else {
			a.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.WeightedPodAffinityTerm{{Weight: 1, PodAffinityTerm: t}}
		}
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: a}
	}
}

func onNodes(r corev1.NodeSelectorTerm) podOption {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{r}},
		}}
	}
}

func inZones(zones ...string) podOption {
	return onNodes(corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: zoneKey, Operator: corev1.NodeSelectorOpIn, Values: zones}}})
}

func onNode(name string) podOption {
	return onNodes(corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{name}}}})
}

func spread(key string, skew int32, what corev1.UnsatisfiableConstraintAction, labelKey, labelValue string) podOption {
	return func(p *corev1.Pod) {
		labelled(labelKey, labelValue)(p)
		c := corev1.TopologySpreadConstraint{MaxSkew: skew, TopologyKey: key, WhenUnsatisfiable: what, LabelSelector: selector(labelKey, labelValue)}
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, c)
	}
}

// honoured makes spreading look at the nodes that the pod tolerates only.
func honoured(p *corev1.Pod) {
	honour := corev1.NodeInclusionPolicyHonor
	for i := range p.Spec.TopologySpreadConstraints {
		c := &p.Spec.TopologySpreadConstraints[i]
		c.NodeAffinityPolicy, c.NodeTaintsPolicy = &honour, &honour
	}
}

func gated(p *corev1.Pod) {
	p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "test.k8s.io/hold"}}
}

func secretVolume(p *corev1.Pod) {
	p.Spec.Volumes = []corev1.Volume{{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "secret"}}}}
}

func claimVolume(p *corev1.Pod, name string) {
	p.Spec.Volumes = []corev1.Volume{{Name: "vol", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name},
	}}}
}

// volume and claim are bound to each other. in-tree volumes name a disk of a
// cloud, the others a CSI driver.
func volume(name, namespace, claim string, inTree bool) *corev1.PersistentVolume {
	source := corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: name}}
	if inTree {
		source = corev1.PersistentVolumeSource{AWSElasticBlockStore: &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: name}}
	}
	return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany}, Capacity: quantities("storage", "1Gi"),
		PersistentVolumeSource: source, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
		ClaimRef: &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: namespace, Name: claim},
	}}
}

func claim(name, namespace, volume string) *corev1.PersistentVolumeClaim {
	none := ""
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Annotations: map[string]string{"pv.kubernetes.io/bind-completed": "true"}},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany}, VolumeName: volume, StorageClassName: &none,
			Resources: corev1.VolumeResourceRequirements{Requests: quantities("storage", "1Gi")},
		},
	}
}
