package scheduler

import (
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// naive decides by looking at every object anew for every decision. It is what
// the decider must agree with, written for no purpose but to be plain.
type naive struct {
	nodes      []*corev1.Node
	pods       []*corev1.Pod // on nodes
	namespaces map[string]map[string]string
	services   []*corev1.Service
}

func (w *naive) on(node *corev1.Node) []*corev1.Pod {
	var list []*corev1.Pod
	for _, p := range w.pods {
		if p.Spec.NodeName == node.Name {
			list = append(list, p)
		}
	}
	return list
}

func tolerates(p *corev1.Pod, t *corev1.Taint) bool {
	for i := range p.Spec.Tolerations {
		if p.Spec.Tolerations[i].ToleratesTaint(klog.Logger{}, t, false) {
			return true
		}
	}
	return false
}

func request(p *corev1.Pod, name corev1.ResourceName, floor int64) int64 {
	var sum int64
	for i := range p.Spec.Containers {
		q, ok := p.Spec.Containers[i].Resources.Requests[name]
		switch {
		case !ok:
			sum += floor
		case name == corev1.ResourceCPU:
			sum += q.MilliValue()
		default:
			sum += q.Value()
		}
	}
	return sum
}

func allocatable(n *corev1.Node, name corev1.ResourceName) int64 {
	q := n.Status.Allocatable[name]
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

var floorsOf = map[corev1.ResourceName]int64{corev1.ResourceCPU: 100, corev1.ResourceMemory: 200 << 20}

// filter is the reasons of the first filter that refuses.
func (w *naive) filter(p *corev1.Pod, n *corev1.Node) []string {
	if n.Spec.Unschedulable && !tolerates(p, &corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}) {
		return []string{"node(s) were unschedulable"}
	}
	if t := w.taint(p, n); t != nil {
		return []string{"node(s) had untolerated taint(s)"}
	}
	if ok, _ := nodeaffinity.GetRequiredNodeAffinity(p).Match(n); !ok {
		return []string{"node(s) didn't match Pod's node affinity/selector"}
	}
	there := w.on(n)
	for _, q := range there {
		for _, a := range p.Spec.Containers[0].Ports {
			for _, b := range q.Spec.Containers[0].Ports {
				if a.HostPort == b.HostPort && a.HostPort != 0 {
					return []string{"node(s) didn't have free ports for the requested pod ports"}
				}
			}
		}
	}
	if lacks := w.lacks(p, n, there); len(lacks) > 0 {
		return lacks
	}
	if reason := w.skewed(p, n); reason != "" {
		return []string{reason}
	}
	if reason := w.apart(p, n); reason != "" {
		return []string{reason}
	}
	return nil
}

func (w *naive) taint(p *corev1.Pod, n *corev1.Node) *corev1.Taint {
	for i := range n.Spec.Taints {
		if t := &n.Spec.Taints[i]; t.Effect != corev1.TaintEffectPreferNoSchedule && !tolerates(p, t) {
			return t
		}
	}
	return nil
}

func (w *naive) lacks(p *corev1.Pod, n *corev1.Node, there []*corev1.Pod) []string {
	var out []string
	if int64(len(there))+1 > allocatable(n, corev1.ResourcePods) {
		out = append(out, "Too many pods")
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, "example.com/gpu"} {
		used := int64(0)
		for _, q := range there {
			used += request(q, name, 0)
		}
		if want := request(p, name, 0); want > 0 && used+want > allocatable(n, name) {
			out = append(out, "Insufficient "+string(name))
		}
	}
	return out
}

type naiveConstraint struct {
	corev1.TopologySpreadConstraint
	selector labels.Selector
}

func (w *naive) constraints(p *corev1.Pod, action corev1.UnsatisfiableConstraintAction) (list []naiveConstraint, own bool) {
	for _, c := range p.Spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable == action {
			s, _ := metav1.LabelSelectorAsSelector(c.LabelSelector)
			for _, key := range c.MatchLabelKeys {
				if v, ok := p.Labels[key]; ok {
					more, _ := labels.SelectorFromSet(labels.Set{key: v}).Requirements()
					s = s.Add(more...)
				}
			}
			list = append(list, naiveConstraint{c, s})
		}
	}
	if len(p.Spec.TopologySpreadConstraints) > 0 || action == corev1.DoNotSchedule {
		return list, true
	}
	selector := labels.Set{}
	for _, s := range w.services {
		if s.Namespace == p.Namespace && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(p.Labels)) {
			selector = labels.Merge(selector, s.Spec.Selector)
		}
	}
	if len(selector) == 0 {
		return nil, false
	}
	for key, skew := range map[string]int32{corev1.LabelHostname: 3, corev1.LabelTopologyZone: 5} {
		list = append(list, naiveConstraint{corev1.TopologySpreadConstraint{TopologyKey: key, MaxSkew: skew}, labels.SelectorFromSet(selector)})
	}
	return list, false
}

func hasAll(n *corev1.Node, list []naiveConstraint) bool {
	for _, c := range list {
		if _, ok := n.Labels[c.TopologyKey]; !ok {
			return false
		}
	}
	return true
}

func (w *naive) included(p *corev1.Pod, n *corev1.Node, c *naiveConstraint) bool {
	if c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
		if ok, _ := nodeaffinity.GetRequiredNodeAffinity(p).Match(n); !ok {
			return false
		}
	}
	return c.NodeTaintsPolicy == nil || *c.NodeTaintsPolicy != corev1.NodeInclusionPolicyHonor || w.taint(p, n) == nil
}

func (w *naive) matching(n *corev1.Node, c *naiveConstraint, namespace string) int64 {
	var count int64
	for _, q := range w.on(n) {
		if !c.selector.Empty() && q.DeletionTimestamp == nil && q.Namespace == namespace && c.selector.Matches(labels.Set(q.Labels)) {
			count++
		}
	}
	return count
}

func (w *naive) skewed(p *corev1.Pod, n *corev1.Node) string {
	list, _ := w.constraints(p, corev1.DoNotSchedule)
	for i := range list {
		c := &list[i]
		counts := map[string]int64{}
		for _, m := range w.nodes {
			if hasAll(m, list) && w.included(p, m, c) {
				counts[m.Labels[c.TopologyKey]] += w.matching(m, c, p.Namespace)
			}
		}
		value, ok := n.Labels[c.TopologyKey]
		if !ok {
			return "node(s) didn't match pod topology spread constraints (missing required label)"
		}
		least := int64(math.MaxInt32)
		for _, count := range counts {
			least = min(least, count)
		}
		domains := int32(1)
		if c.MinDomains != nil {
			domains = *c.MinDomains
		}
		if len(counts) < int(domains) {
			least = 0
		}
		self := int64(0)
		if c.selector.Matches(labels.Set(p.Labels)) {
			self = 1
		}
		if counts[value]+self-least > int64(c.MaxSkew) {
			return "node(s) didn't match pod topology spread constraints"
		}
	}
	return ""
}

// means says that a term of pod of means pod p.
func (w *naive) means(of *corev1.Pod, t *corev1.PodAffinityTerm, p *corev1.Pod) bool {
	in := slices.Contains(t.Namespaces, p.Namespace) || len(t.Namespaces) == 0 && t.NamespaceSelector == nil && of.Namespace == p.Namespace
	if t.NamespaceSelector != nil {
		s, _ := metav1.LabelSelectorAsSelector(t.NamespaceSelector)
		in = in || s.Matches(labels.Set(w.namespaces[p.Namespace]))
	}
	s, _ := metav1.LabelSelectorAsSelector(t.LabelSelector)
	return in && s.Matches(labels.Set(p.Labels))
}

func affinityOf(p *corev1.Pod) (with, away *corev1.PodAffinity) {
	with, away = &corev1.PodAffinity{}, &corev1.PodAffinity{}
	if a := p.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			with = a.PodAffinity
		}
		if a.PodAntiAffinity != nil {
			away.RequiredDuringSchedulingIgnoredDuringExecution = a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
			away.PreferredDuringSchedulingIgnoredDuringExecution = a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution
		}
	}
	return with, away
}

// near are the pods on nodes of n's domain.
func (w *naive) near(n *corev1.Node, key string) []*corev1.Pod {
	value, ok := n.Labels[key]
	if !ok {
		return nil
	}
	var list []*corev1.Pod
	for _, m := range w.nodes {
		if v, ok := m.Labels[key]; ok && v == value {
			list = append(list, w.on(m)...)
		}
	}
	return list
}

func (w *naive) apart(p *corev1.Pod, n *corev1.Node) string {
	with, away := affinityOf(p)
	terms := with.RequiredDuringSchedulingIgnoredDuringExecution
	all := func(q *corev1.Pod) bool {
		for i := range terms {
			if !w.means(p, &terms[i], q) {
				return false
			}
		}
		return true
	}
	exist, somewhere := true, false
	for i := range terms {
		if _, ok := n.Labels[terms[i].TopologyKey]; !ok {
			return "node(s) didn't match pod affinity rules"
		}
		exist = exist && slices.ContainsFunc(w.near(n, terms[i].TopologyKey), all)
		for _, m := range w.nodes {
			if _, ok := m.Labels[terms[i].TopologyKey]; ok {
				somewhere = somewhere || slices.ContainsFunc(w.on(m), all)
			}
		}
	}
	if !exist && (somewhere || !all(p)) {
		return "node(s) didn't match pod affinity rules"
	}
	terms = away.RequiredDuringSchedulingIgnoredDuringExecution
	for i := range terms {
		if slices.ContainsFunc(w.near(n, terms[i].TopologyKey), func(q *corev1.Pod) bool { return w.means(p, &terms[i], q) }) {
			return "node(s) didn't match pod anti-affinity rules"
		}
	}
	for _, m := range w.nodes {
		for _, q := range w.on(m) {
			_, theirs := affinityOf(q)
			for _, t := range theirs.RequiredDuringSchedulingIgnoredDuringExecution {
				a, ok := n.Labels[t.TopologyKey]
				b, ok2 := m.Labels[t.TopologyKey]
				if ok && ok2 && a == b && w.means(q, &t, p) {
					return "node(s) didn't satisfy existing pods anti-affinity rules"
				}
			}
		}
	}
	return ""
}
