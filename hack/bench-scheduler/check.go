package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	scheduling "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// The checker shares nothing with the scheduler: it goes through all pods in the
// order in which they were bound and asks of each, in plain words, whether its
// node could take it then.

// checker is the state of the cluster at a binding.
type checker struct {
	nodes      map[string]*corev1.Node
	used       map[string]corev1.ResourceList
	pods       map[string]int
	ports      map[string]bool // node/protocol/port
	namespaces map[string]labels.Set
	bound      []*corev1.Pod // all, in the order of the store
	placed     []*corev1.Pod // those before the one that is looked at
	spans      map[string]span
	counts     map[string]*counter
	violations []string
}

// counter counts pods per value of a topology key.
type counter struct {
	key     string
	matches func(*corev1.Pod) bool
	values  map[string]int
	any     int
	about   func(*corev1.Pod) bool // for the terms of placed pods: whom they keep away
}

// replay returns what was bound against the rules. spans says when each binding
// was under way, by NAMESPACE/NAME.
func replay(nodes []corev1.Node, namespaces []corev1.Namespace, pods []corev1.Pod, spans map[string]span) []string {
	c := &checker{spans: spans, nodes: map[string]*corev1.Node{}, used: map[string]corev1.ResourceList{}, pods: map[string]int{}, ports: map[string]bool{},
		namespaces: map[string]labels.Set{}, counts: map[string]*counter{}}
	for i := range nodes {
		c.nodes[nodes[i].Name] = &nodes[i]
		c.used[nodes[i].Name] = corev1.ResourceList{}
	}
	for i := range namespaces {
		c.namespaces[namespaces[i].Name] = namespaces[i].Labels
	}
	for i := range pods {
		if pods[i].Spec.NodeName != "" {
			c.bound = append(c.bound, &pods[i])
		}
	}
	slices.SortFunc(c.bound, func(a, b *corev1.Pod) int { return version(a) - version(b) })
	for _, p := range c.bound {
		if why := c.check(p); why != "" {
			c.violations = append(c.violations, fmt.Sprintf("%s/%s on %s: %s", p.Namespace, p.Name, p.Spec.NodeName, why))
		}
		c.place(p)
	}
	return c.violations
}

func version(p *corev1.Pod) int {
	v, err := strconv.Atoi(p.ResourceVersion)
	if err != nil {
		return 0
	}
	return v
}

// check says what speaks against a pod's node.
func (c *checker) check(p *corev1.Pod) string {
	n := c.nodes[p.Spec.NodeName]
	if n == nil {
		return "there is no such node"
	}
	if n.Spec.Unschedulable {
		return "it is unschedulable"
	}
	if why := c.room(p, n); why != "" {
		return why
	}
	for i := range n.Spec.Taints {
		t := &n.Spec.Taints[i]
		if t.Effect != corev1.TaintEffectPreferNoSchedule && !slices.ContainsFunc(p.Spec.Tolerations, func(x corev1.Toleration) bool { return x.ToleratesTaint(klog.Background(), t, false) }) {
			return "its taint " + t.Key + " is not tolerated"
		}
	}
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(p).Match(n); err != nil || !ok {
		return "the pod's node affinity does not match"
	}
	for _, port := range hostPorts(p) {
		if c.ports[n.Name+port] {
			return "host port " + port + " is taken"
		}
	}
	if why := c.neighbours(p, n); why != "" {
		return why
	}
	return c.skew(p, n)
}

// room checks resources and the number of pods.
func (c *checker) room(p *corev1.Pod, n *corev1.Node) string {
	if most := n.Status.Allocatable[corev1.ResourcePods]; int64(c.pods[n.Name])+1 > most.Value() {
		return "it has too many pods"
	}
	for name, q := range requests(p) {
		sum := c.used[n.Name][name].DeepCopy()
		sum.Add(q)
		if has := n.Status.Allocatable[name]; sum.Cmp(has) > 0 {
			return fmt.Sprintf("%s of %s would be taken, it has %s", sum.String(), name, has.String())
		}
	}
	return ""
}

// requests are a pod's, without init containers, which no shape has.
func requests(p *corev1.Pod) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := range p.Spec.Containers {
		for name, q := range p.Spec.Containers[i].Resources.Requests {
			sum := out[name]
			sum.Add(q)
			out[name] = sum
		}
	}
	return out
}

func hostPorts(p *corev1.Pod) (out []string) {
	for i := range p.Spec.Containers {
		for _, port := range p.Spec.Containers[i].Ports {
			if port.HostPort > 0 {
				out = append(out, fmt.Sprintf("/%s/%d", port.Protocol, port.HostPort))
			}
		}
	}
	return out
}

// neighbours checks required affinity and anti-affinity, both ways.
func (c *checker) neighbours(p *corev1.Pod, n *corev1.Node) string {
	near, apart := required(p)
	for i := range near {
		k := c.others("near", p, &near[i])
		if k.values[n.Labels[k.key]] == 0 && (k.any > 0 || !k.matches(p)) {
			return "no pod of its affinity is in its " + k.key
		}
	}
	for i := range apart {
		if k := c.others("apart", p, &apart[i]); k.values[n.Labels[k.key]] > 0 {
			return "a pod that it wants to be apart from is in its " + k.key
		}
	}
	for _, k := range c.counts {
		if k.about != nil && k.values[n.Labels[k.key]] > 0 && k.about(p) {
			return "a pod that wants to be apart from it is in its " + k.key
		}
	}
	return ""
}

func required(p *corev1.Pod) (near, apart []corev1.PodAffinityTerm) {
	if a := p.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			near = a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		}
		if a.PodAntiAffinity != nil {
			apart = a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		}
	}
	return near, apart
}

// skew checks required spreading.
func (c *checker) skew(p *corev1.Pod, n *corev1.Node) string {
	for i := range p.Spec.TopologySpreadConstraints {
		t := &p.Spec.TopologySpreadConstraints[i]
		if t.WhenUnsatisfiable != corev1.DoNotSchedule {
			continue
		}
		k := c.counter(key("spread", p.Namespace, t.TopologyKey, t.LabelSelector), func() *counter {
			return &counter{key: t.TopologyKey, matches: selects(t.LabelSelector, func(ns string) bool { return ns == p.Namespace })}
		})
		before, beside := c.under(p, k)
		least := -1
		for value := range c.domains(p, t) {
			if count := k.values[value] + beside[value]; least < 0 || count < least {
				least = count
			}
		}
		own := n.Labels[t.TopologyKey]
		if over := k.values[own] - before[own] + 1 - least; over > int(t.MaxSkew) {
			return fmt.Sprintf("the skew over %s would be %d", t.TopologyKey, over)
		}
	}
	return ""
}

// under counts the pods whose bindings were under way together with that of p,
// by value: those that the store took before it, and after it. Which of them the
// scheduler had decided before p cannot be told from outside, so that they count
// in favour of p.
func (c *checker) under(p *corev1.Pod, k *counter) (before, beside map[string]int) {
	before, beside = map[string]int{}, map[string]int{}
	own := c.spans[p.Namespace+"/"+p.Name]
	count := func(into map[string]int, list []*corev1.Pod) {
		for _, o := range list {
			if k.matches(o) && c.spans[o.Namespace+"/"+o.Name].overlaps(own) {
				into[c.nodes[o.Spec.NodeName].Labels[k.key]]++
			}
		}
	}
	at := len(c.placed)
	count(before, c.bound[max(0, at-mostUnderWay):at])
	count(beside, c.bound[at+1:min(len(c.bound), at+1+mostUnderWay)])
	return before, beside
}

// mostUnderWay is more than a scheduler has bindings under way.
const mostUnderWay = 256

// domains are the values of a constraint's key on nodes that count for the pod.
func (c *checker) domains(p *corev1.Pod, t *corev1.TopologySpreadConstraint) map[string]bool {
	out := map[string]bool{}
	affinity := nodeaffinity.GetRequiredNodeAffinity(p)
	for _, n := range c.nodes {
		value, ok := n.Labels[t.TopologyKey]
		if !ok {
			continue
		}
		if t.NodeAffinityPolicy == nil || *t.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
			if fits, err := affinity.Match(n); err != nil || !fits {
				continue
			}
		}
		if t.NodeTaintsPolicy != nil && *t.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor {
			if _, untolerated := scheduling.FindMatchingUntoleratedTaint(klog.Background(), n.Spec.Taints, p.Spec.Tolerations, func(x *corev1.Taint) bool { return x.Effect != corev1.TaintEffectPreferNoSchedule }, false); untolerated {
				continue
			}
		}
		out[value] = true
	}
	return out
}

// place adds a pod to the state.
func (c *checker) place(p *corev1.Pod) {
	n := c.nodes[p.Spec.NodeName]
	if n == nil { // deleted since, or never there
		n = &corev1.Node{}
		n.Name = p.Spec.NodeName
		c.nodes[p.Spec.NodeName], c.used[p.Spec.NodeName] = n, corev1.ResourceList{}
	}
	_, apart := required(p)
	for i := range apart { // known before the pod counts, so that it counts once
		c.owners(p, &apart[i])
	}
	c.placed = append(c.placed, p)
	c.pods[n.Name]++
	for name, q := range requests(p) {
		sum := c.used[n.Name][name]
		sum.Add(q)
		c.used[n.Name][name] = sum
	}
	for _, port := range hostPorts(p) {
		c.ports[n.Name+port] = true
	}
	for _, k := range c.counts {
		k.add(p, n)
	}
}

func (k *counter) add(p *corev1.Pod, n *corev1.Node) {
	if k.matches(p) {
		k.any++
		if value, ok := n.Labels[k.key]; ok {
			k.values[value]++
		}
	}
}

// counter finds or makes a counter of the pods placed so far.
func (c *checker) counter(key string, make1 func() *counter) *counter {
	k := c.counts[key]
	if k == nil {
		k = make1()
		k.values = map[string]int{}
		for _, p := range c.placed {
			k.add(p, c.nodes[p.Spec.NodeName])
		}
		c.counts[key] = k
	}
	return k
}

// others counts the pods that a term of p is about.
func (c *checker) others(what string, p *corev1.Pod, t *corev1.PodAffinityTerm) *counter {
	return c.counter(key(what, p.Namespace, t.TopologyKey, t), func() *counter {
		return &counter{key: t.TopologyKey, matches: selects(t.LabelSelector, c.in(p, t))}
	})
}

// owners counts the pods that have a term, and knows whom it is about.
func (c *checker) owners(p *corev1.Pod, t *corev1.PodAffinityTerm) {
	name := key("owners", p.Namespace, t.TopologyKey, t)
	c.counter(name, func() *counter {
		return &counter{key: t.TopologyKey, about: selects(t.LabelSelector, c.in(p, t)), matches: func(x *corev1.Pod) bool {
			_, apart := required(x)
			return slices.ContainsFunc(apart, func(o corev1.PodAffinityTerm) bool { return key("owners", x.Namespace, o.TopologyKey, &o) == name })
		}}
	})
}

// in are the namespaces that a term of p is about.
func (c *checker) in(p *corev1.Pod, t *corev1.PodAffinityTerm) func(string) bool {
	own := p.Namespace
	var byLabels labels.Selector
	if t.NamespaceSelector != nil {
		byLabels, _ = metav1.LabelSelectorAsSelector(t.NamespaceSelector) // validated by the API server
	}
	return func(ns string) bool {
		switch {
		case byLabels == nil && len(t.Namespaces) == 0:
			return ns == own
		case byLabels != nil && byLabels.Matches(c.namespaces[ns]):
			return true
		}
		return slices.Contains(t.Namespaces, ns)
	}
}

func selects(by *metav1.LabelSelector, in func(string) bool) func(*corev1.Pod) bool {
	s, err := metav1.LabelSelectorAsSelector(by)
	if err != nil {
		s = labels.Nothing()
	}
	return func(p *corev1.Pod) bool { return in(p.Namespace) && s.Matches(labels.Set(p.Labels)) }
}

func key(what, namespace, topology string, v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return what
	}
	return what + "/" + namespace + "/" + topology + "/" + string(data)
}
