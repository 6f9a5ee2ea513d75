package plugin

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"weak"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Interner makes records of pods in which all that is alike is shared. What no
// pod uses any more is given back. It is not safe for concurrent use.
type Interner struct {
	shapes table[Shape]
	groups table[Group]
	terms  table[Term]
	names  map[string]string // namespaces and node names; few
	key    []byte            // scratch
}

// NewInterner returns an empty Interner.
func NewInterner() *Interner { return &Interner{names: map[string]string{}} }

// table holds what is alike once, for as long as somebody uses it.
type table[T any] struct {
	m map[string]weak.Pointer[T]
	// sweep is the size at which entries that nobody uses are looked for.
	sweep int
}

// get returns what is kept under key, made by create when there is none.
func (t *table[T]) get(key []byte, create func() *T) *T {
	if v := t.m[string(key)].Value(); v != nil {
		return v
	}
	if len(t.m) >= t.sweep {
		maps.DeleteFunc(t.m, func(_ string, w weak.Pointer[T]) bool { return w.Value() == nil })
		t.sweep = max(1024, 2*len(t.m))
	}
	if t.m == nil {
		t.m = map[string]weak.Pointer[T]{}
	}
	v := create()
	t.m[string(key)] = weak.Make(v)
	return v
}

func (in *Interner) name(s string) string {
	if have, ok := in.names[s]; ok {
		return have
	}
	if len(in.names) > 1<<20 {
		clear(in.names)
	}
	s = strings.Clone(s)
	in.names[s] = s
	return s
}

// Pod makes the record of a pod.
func (in *Interner) Pod(pod *corev1.Pod) *Pod {
	pin, terms := pinned(pod)
	p := &Pod{
		UID: pod.UID, Name: pod.Name, Node: in.name(pod.Spec.NodeName), Pin: in.name(pin),
		Nominated: in.name(pod.Status.NominatedNodeName), Claims: claims(pod), Devices: deviceRefs(pod),
		Created:       pod.CreationTimestamp.UnixNano(),
		NeverPreempts: pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy == corev1.PreemptNever,
	}
	if pod.Spec.Priority != nil {
		p.Priority = *pod.Spec.Priority
	}
	if pod.Status.StartTime != nil {
		p.Started = pod.Status.StartTime.UnixNano()
	}
	if g := pod.Spec.SchedulingGroup; g != nil && g.PodGroupName != nil {
		p.PodGroup = in.name(*g.PodGroupName)
	}
	p.Group = in.group(pod)
	p.Shape = in.shape(pod, terms)
	return p
}

// pinned splits required node affinity whose only term names one node, as
// DaemonSets write it, into that node and the rest, so that pods that differ in
// it alone have one shape.
func pinned(pod *corev1.Pod) (string, *corev1.Affinity) {
	a := pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return "", a
	}
	terms := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(terms) != 1 || len(terms[0].MatchFields) != 1 {
		return "", a
	}
	f := &terms[0].MatchFields[0]
	if f.Key != metav1.ObjectNameField || f.Operator != corev1.NodeSelectorOpIn || len(f.Values) != 1 {
		return "", a
	}
	rest, node := *a, *a.NodeAffinity
	rest.NodeAffinity = &node
	node.RequiredDuringSchedulingIgnoredDuringExecution = nil
	if len(terms[0].MatchExpressions) > 0 {
		node.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: terms[0].MatchExpressions}},
		}
	}
	return f.Values[0], &rest
}

func hasClaims(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.PersistentVolumeClaim != nil || v.Ephemeral != nil {
			return true
		}
	}
	return false
}

// claims are the names of the claims that a pod's volumes use.
func claims(pod *corev1.Pod) []string {
	var names []string
	for i := range pod.Spec.Volumes {
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			names = append(names, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			names = append(names, pod.Name+"-"+v.Name)
		}
	}
	return names
}

func (in *Interner) group(pod *corev1.Pod) *Group {
	k := appendText(in.key[:0], pod.Namespace)
	k = append(k, boolByte(pod.DeletionTimestamp != nil))
	k = appendLabels(k, pod.Labels)
	in.key = k
	return in.groups.get(k, func() *Group {
		return &Group{Namespace: in.name(pod.Namespace), Labels: maps.Clone(pod.Labels), Terminating: pod.DeletionTimestamp != nil}
	})
}

// shape finds or makes the shape of a pod whose affinity, but for a pin, is a.
func (in *Interner) shape(pod *corev1.Pod, a *corev1.Affinity) *Shape {
	requests, nonZero := requestsOf(pod)
	ports, images, owner := ports(pod), images(pod), ownerOf(pod)

	k := appendText(in.key[:0], pod.Spec.SchedulerName)
	k = appendResources(k, &requests)
	k = appendResources(k, &nonZero)
	k = append(k, boolByte(hasClaims(pod)), boolByte(len(pod.Spec.ResourceClaims) > 0))
	for _, p := range ports {
		k = appendText(appendText(k, p.IP), string(p.Protocol))
		k = binary.AppendVarint(k, int64(p.Port))
	}
	k = append(k, 1)
	for _, image := range images {
		k = appendText(k, image)
	}
	k = append(k, 2)
	for i := range pod.Spec.Tolerations {
		k = appendMessage(k, &pod.Spec.Tolerations[i])
	}
	k = appendLabels(append(k, 3), pod.Spec.NodeSelector)
	if a != nil {
		k = appendMessage(append(k, 4), a)
		if a.PodAffinity != nil || a.PodAntiAffinity != nil {
			k = appendText(k, pod.Namespace)
		}
	}
	for i := range pod.Spec.TopologySpreadConstraints {
		k = appendMessage(append(k, 5), &pod.Spec.TopologySpreadConstraints[i])
		for _, label := range pod.Spec.TopologySpreadConstraints[i].MatchLabelKeys {
			k = appendText(k, pod.Labels[label])
		}
	}
	k = appendText(appendText(appendText(append(k, 6), owner.APIVersion), owner.Kind), owner.Name)
	features := requiredFeatures(pod)
	for _, f := range features {
		k = appendText(append(k, 7), f)
	}
	in.key = k
	return in.shapes.get(k, func() *Shape {
		in.key = nil // the terms need keys of their own, and get still uses this one
		s := &Shape{
			Scheduler: in.name(pod.Spec.SchedulerName), Requests: requests, NonZero: nonZero, Ports: ports, Images: images, Owner: owner,
			Features:    features,
			Tolerations: slices.Clone(pod.Spec.Tolerations),
		}
		nodeAffinity(s, maps.Clone(pod.Spec.NodeSelector), a.DeepCopy())
		in.podAffinity(s, pod.Namespace, a)
		s.Spread = constraints(pod.Spec.TopologySpreadConstraints, pod.Labels)
		return s
	})
}

// ports are the host ports of containers and of the init containers that stay.
func ports(pod *corev1.Pod) []Port {
	var list []Port
	add := func(c *corev1.Container) {
		for _, port := range c.Ports {
			if port.HostPort > 0 {
				list = append(list, Port{IP: port.HostIP, Protocol: port.Protocol, Port: port.HostPort})
			}
		}
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i])
	}
	return list
}

func images(pod *corev1.Pod) []string {
	var list []string
	for _, cs := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range cs {
			list = append(list, normalImage(cs[i].Image))
		}
	}
	for i := range pod.Spec.Volumes {
		if v := pod.Spec.Volumes[i].Image; v != nil {
			list = append(list, normalImage(v.Reference))
		}
	}
	return list
}

// normalImage is an image as runtimes report it, with a tag.
func normalImage(name string) string {
	if strings.LastIndexByte(name, ':') <= strings.LastIndexByte(name, '/') {
		return name + ":latest"
	}
	return name
}

func ownerOf(pod *corev1.Pod) Owner {
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil {
		return Owner{}
	}
	return Owner{APIVersion: ref.APIVersion, Kind: ref.Kind, Name: ref.Name}
}

func appendText(k []byte, s string) []byte {
	k = binary.AppendUvarint(k, uint64(len(s)))
	return append(k, s...)
}

func appendLabels(k []byte, m map[string]string) []byte {
	var few [16]string
	names := few[:0]
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	k = binary.AppendUvarint(k, uint64(len(names)))
	for _, name := range names {
		k = appendText(appendText(k, name), m[name])
	}
	return k
}

func appendResources(k []byte, r *Resources) []byte {
	for _, v := range [...]int64{r.MilliCPU, r.Memory, r.Ephemeral, int64(len(r.Others))} {
		k = binary.AppendVarint(k, v)
	}
	for _, name := range sortedNames(r.Others) {
		k = binary.AppendVarint(appendText(k, string(name)), r.Others[name])
	}
	return k
}

// appendMessage appends a message of the API; equal ones give equal bytes.
func appendMessage(k []byte, m interface {
	Size() int
	MarshalToSizedBuffer([]byte) (int, error)
}) []byte {
	size := m.Size()
	k = binary.AppendUvarint(k, uint64(size))
	k = append(k, make([]byte, size)...)
	if _, err := m.MarshalToSizedBuffer(k[len(k)-size:]); err != nil {
		// The buffer has the size that the message named: this cannot happen.
		panic(err)
	}
	return k
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}
