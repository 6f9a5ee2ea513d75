package plugin

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// nodeAffinity fills in what a pod says about nodes.
func nodeAffinity(s *Shape, selector map[string]string, a *corev1.Affinity) {
	var required *corev1.NodeSelector
	if a != nil && a.NodeAffinity != nil {
		required = a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		if terms := a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution; terms != nil {
			// Terms that cannot be parsed are refused by the API; a preference that
			// came past it is left out.
			s.Preferred, _ = nodeaffinity.NewPreferredSchedulingTerms(terms)
		}
	}
	if len(selector) == 0 && required == nil {
		return
	}
	s.HasRequired, s.Required = true, nodeaffinity.NewRequiredNodeAffinity(selector, a)
	if required != nil {
		s.Fields, s.FieldsConflict = nodesByField(required.NodeSelectorTerms)
	}
}

// nodesByField are the names of the nodes that the field selectors of the terms
// admit together; nil when one of them admits all. conflict says that there are
// terms and they admit none.
func nodesByField(terms []corev1.NodeSelectorTerm) (names []string, conflict bool) {
	for i := range terms {
		var ofTerm []string
		limited := false
		for _, r := range terms[i].MatchFields {
			if r.Key != metav1.ObjectNameField || r.Operator != corev1.NodeSelectorOpIn {
				continue
			}
			if !limited {
				limited, ofTerm = true, slices.Clone(r.Values)
			} else {
				ofTerm = slices.DeleteFunc(ofTerm, func(n string) bool { return !slices.Contains(r.Values, n) })
			}
		}
		if !limited {
			return nil, false
		}
		names = append(names, ofTerm...)
	}
	slices.Sort(names)
	return slices.Compact(names), len(terms) > 0 && len(names) == 0
}

// podAffinity fills in a pod's terms of inter-pod affinity.
func (in *Interner) podAffinity(s *Shape, namespace string, a *corev1.Affinity) {
	if a == nil {
		return
	}
	if pa := a.PodAffinity; pa != nil {
		s.Affinity = in.required(namespace, pa.RequiredDuringSchedulingIgnoredDuringExecution)
		s.PreferredAffinity = in.preferred(namespace, pa.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if pa := a.PodAntiAffinity; pa != nil {
		s.AntiAffinity = in.required(namespace, pa.RequiredDuringSchedulingIgnoredDuringExecution)
		s.PreferredAntiAffinity = in.preferred(namespace, pa.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	s.hasTerms = len(s.Affinity)+len(s.AntiAffinity)+len(s.PreferredAffinity)+len(s.PreferredAntiAffinity) > 0
}

func (in *Interner) required(namespace string, terms []corev1.PodAffinityTerm) []*Term {
	var list []*Term
	for i := range terms {
		list = append(list, in.term(namespace, &terms[i]))
	}
	return list
}

func (in *Interner) preferred(namespace string, terms []corev1.WeightedPodAffinityTerm) []Weighted {
	var list []Weighted
	for i := range terms {
		list = append(list, Weighted{in.term(namespace, &terms[i].PodAffinityTerm), int64(terms[i].Weight)})
	}
	return list
}

// term makes a term of a pod in a namespace. The labels that matchLabelKeys and
// mismatchLabelKeys name are in its selector since the pod was created.
func (in *Interner) term(namespace string, t *corev1.PodAffinityTerm) *Term {
	namespaces := slices.Clone(t.Namespaces)
	if len(namespaces) == 0 && t.NamespaceSelector == nil {
		namespaces = []string{namespace}
	}
	slices.Sort(namespaces)
	k := appendText(in.key[:0], t.TopologyKey)
	for _, ns := range namespaces {
		k = appendText(k, ns)
	}
	for _, s := range []*metav1.LabelSelector{t.LabelSelector, t.NamespaceSelector} {
		if k = append(k, 0); s != nil {
			k = appendMessage(append(k, 1), s)
		}
	}
	in.key = k
	return in.terms.get(k, func() *Term {
		made := &Term{TopologyKey: t.TopologyKey, Namespaces: namespaces, Selector: selectorOf(t.LabelSelector), key: string(k)}
		if t.NamespaceSelector != nil {
			made.NamespaceSelector = selectorOf(t.NamespaceSelector)
		}
		return made
	})
}

// selectorOf parses a selector of the API; nil and what cannot be parsed
// select nothing.
func selectorOf(s *metav1.LabelSelector) labels.Selector {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return selector
}

// constraints parses topology spread constraints for a pod with these labels.
func constraints(list []corev1.TopologySpreadConstraint, of map[string]string) []Constraint {
	var out []Constraint
	for i := range list {
		c := &list[i]
		selector := selectorOf(c.LabelSelector)
		more := labels.Set{}
		for _, key := range c.MatchLabelKeys {
			if value, ok := of[key]; ok {
				more[key] = value
			}
		}
		if requirements, ok := selector.Requirements(); ok && len(more) > 0 {
			selector = labels.SelectorFromSet(more).Add(requirements...)
		}
		made := Constraint{
			TopologyKey: c.TopologyKey, MaxSkew: int64(c.MaxSkew), MinDomains: 1, Selector: selector,
			Hard:          c.WhenUnsatisfiable == corev1.DoNotSchedule,
			HonorAffinity: c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor,
			HonorTaints:   c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor,
		}
		if c.MinDomains != nil {
			made.MinDomains = int64(*c.MinDomains)
		}
		out = append(out, made)
	}
	return out
}
