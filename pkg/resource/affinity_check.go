package resource

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	mustTerms   = "requiredDuringSchedulingIgnoredDuringExecution"
	shouldTerms = "preferredDuringSchedulingIgnoredDuringExecution"
)

func checkAffinity(path *field.Path, a *corev1.Affinity) field.ErrorList {
	if a == nil {
		return nil
	}
	var errs field.ErrorList
	if n := a.NodeAffinity; n != nil {
		p := path.Child("nodeAffinity")
		if n.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			errs = append(errs, checkNodeSelector(p.Child(mustTerms), n.RequiredDuringSchedulingIgnoredDuringExecution)...)
		}
		for i := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			t, tp := &n.PreferredDuringSchedulingIgnoredDuringExecution[i], p.Child(shouldTerms).Index(i)
			errs = append(errs, checkWeight(tp, t.Weight)...)
			errs = append(errs, checkNodeTerm(tp.Child("preference"), &t.Preference, false)...)
		}
	}
	if pa := a.PodAffinity; pa != nil {
		errs = append(errs, checkPodTerms(path.Child("podAffinity"),
			pa.RequiredDuringSchedulingIgnoredDuringExecution, pa.PreferredDuringSchedulingIgnoredDuringExecution)...)
	}
	if pa := a.PodAntiAffinity; pa != nil {
		errs = append(errs, checkPodTerms(path.Child("podAntiAffinity"),
			pa.RequiredDuringSchedulingIgnoredDuringExecution, pa.PreferredDuringSchedulingIgnoredDuringExecution)...)
	}
	return errs
}

func checkWeight(path *field.Path, weight int32) field.ErrorList {
	if weight < 1 || weight > 100 {
		return field.ErrorList{field.Invalid(path.Child("weight"), weight, "must be in the range 1-100")}
	}
	return nil
}

func checkNodeSelector(path *field.Path, s *corev1.NodeSelector) field.ErrorList {
	p := path.Child("nodeSelectorTerms")
	if len(s.NodeSelectorTerms) == 0 {
		return field.ErrorList{field.Required(p, "must have at least one node selector term")}
	}
	var errs field.ErrorList
	for i := range s.NodeSelectorTerms {
		errs = append(errs, checkNodeTerm(p.Index(i), &s.NodeSelectorTerms[i], true)...)
	}
	return errs
}

// checkNodeTerm: values that no label can have are let through where the term
// is a wish, since a wish that cannot be met hurts nobody.
func checkNodeTerm(path *field.Path, t *corev1.NodeSelectorTerm, must bool) field.ErrorList {
	var errs field.ErrorList
	for i := range t.MatchExpressions {
		errs = append(errs, checkNodeExpression(path.Child("matchExpressions").Index(i), &t.MatchExpressions[i], must)...)
	}
	for i := range t.MatchFields {
		errs = append(errs, checkNodeField(path.Child("matchFields").Index(i), &t.MatchFields[i])...)
	}
	return errs
}

func checkNodeExpression(path *field.Path, r *corev1.NodeSelectorRequirement, must bool) field.ErrorList {
	var errs field.ErrorList
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) == 0 {
			errs = append(errs, field.Required(path.Child("values"), "must be specified when `operator` is 'In' or 'NotIn'"))
		}
	case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			errs = append(errs, field.Forbidden(path.Child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
		}
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if len(r.Values) != 1 {
			errs = append(errs, field.Required(path.Child("values"), "must be specified single value when `operator` is 'Lt' or 'Gt'"))
		}
	default:
		errs = append(errs, field.Invalid(path.Child("operator"), r.Operator, "not a valid selector operator"))
	}
	errs = append(errs, checkLabelName(path.Child("key"), r.Key)...)
	for i, v := range r.Values {
		if must {
			errs = append(errs, invalid(path.Child("values").Index(i), v, utilvalidation.IsValidLabelValue(v))...)
		}
	}
	return errs
}

// checkNodeField: a node's name is the only field that can be selected.
func checkNodeField(path *field.Path, r *corev1.NodeSelectorRequirement) field.ErrorList {
	var errs field.ErrorList
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) != 1 {
			errs = append(errs, field.Required(path.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"))
		}
	default:
		errs = append(errs, field.Invalid(path.Child("operator"), r.Operator, "not a valid selector operator"))
	}
	if r.Key != "metadata.name" {
		return append(errs, field.Invalid(path.Child("key"), r.Key, "not a valid field selector key"))
	}
	for i, v := range r.Values {
		errs = append(errs, invalid(path.Child("values").Index(i), v, utilvalidation.IsDNS1123Subdomain(v))...)
	}
	return errs
}

func checkPodTerms(path *field.Path, must []corev1.PodAffinityTerm, should []corev1.WeightedPodAffinityTerm) field.ErrorList {
	var errs field.ErrorList
	for i := range must {
		errs = append(errs, checkPodTerm(path.Child(mustTerms).Index(i), &must[i])...)
	}
	for i := range should {
		p := path.Child(shouldTerms).Index(i)
		errs = append(errs, checkWeight(p, should[i].Weight)...)
		errs = append(errs, checkPodTerm(p.Child("podAffinityTerm"), &should[i].PodAffinityTerm)...)
	}
	return errs
}

func checkPodTerm(path *field.Path, t *corev1.PodAffinityTerm) field.ErrorList {
	errs := checkLabelSelector(path.Child("labelSelector"), t.LabelSelector)
	errs = append(errs, checkLabelSelector(path.Child("namespaceSelector"), t.NamespaceSelector)...)
	for _, ns := range t.Namespaces {
		errs = append(errs, invalid(path.Child("namespace"), ns, utilvalidation.IsDNS1123Label(ns))...)
	}
	errs = append(errs, checkSelectedTwice(path, t)...)
	errs = append(errs, checkLabelKeys(path.Child("matchLabelKeys"), t.MatchLabelKeys, t.LabelSelector)...)
	errs = append(errs, checkLabelKeys(path.Child("mismatchLabelKeys"), t.MismatchLabelKeys, t.LabelSelector)...)
	for i, key := range t.MatchLabelKeys {
		if slices.Contains(t.MismatchLabelKeys, key) {
			errs = append(errs, field.Invalid(path.Child("matchLabelKeys").Index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys"))
		}
	}
	if t.TopologyKey == "" {
		errs = append(errs, field.Required(path.Child("topologyKey"), "can not be empty"))
	}
	return append(errs, checkLabelName(path.Child("topologyKey"), t.TopologyKey)...)
}

// checkSelectedTwice: a key that the pod's own label decides is not selected
// by hand as well. What matchLabelKeys stand for is in the selector by now, so
// that it is the second mention that is one too many. Upstream's path lacks
// the name of the list; so does this.
func checkSelectedTwice(path *field.Path, t *corev1.PodAffinityTerm) field.ErrorList {
	if t.LabelSelector == nil {
		return nil
	}
	var errs field.ErrorList
	seen := map[string]bool{}
	for key := range t.LabelSelector.MatchLabels {
		seen[key] = true
	}
	for _, e := range t.LabelSelector.MatchExpressions {
		if i := slices.Index(t.MatchLabelKeys, e.Key); i >= 0 && seen[e.Key] {
			errs = append(errs, field.Invalid(path.Index(i), e.Key, "exists in both matchLabelKeys and labelSelector"))
		}
		seen[e.Key] = true
	}
	return errs
}

// checkLabelKeys: keys narrow a selector, so there must be one.
func checkLabelKeys(path *field.Path, keys []string, sel *metav1.LabelSelector) field.ErrorList {
	if len(keys) > 0 && sel == nil {
		return field.ErrorList{field.Forbidden(path, "must not be specified when labelSelector is not set")}
	}
	var errs field.ErrorList
	for i, key := range keys {
		errs = append(errs, checkLabelName(path.Index(i), key)...)
	}
	return errs
}

func checkTolerations(path *field.Path, list []corev1.Toleration) field.ErrorList {
	var errs field.ErrorList
	for i := range list {
		t, p := &list[i], path.Index(i)
		if t.Key != "" {
			errs = append(errs, metav1validation.ValidateLabelName(t.Key, p.Child("key"))...)
		} else if t.Operator != corev1.TolerationOpExists {
			errs = append(errs, field.Invalid(p.Child("operator"), t.Operator, "operator must be Exists when `key` is empty, which means \"match all values and all keys\""))
		}
		if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
			errs = append(errs, field.Invalid(p.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"))
		}
		switch t.Operator {
		case corev1.TolerationOpEqual, "":
			if bad := utilvalidation.IsValidLabelValue(t.Value); len(bad) > 0 {
				errs = append(errs, field.Invalid(p.Child("operator"), t.Value, strings.Join(bad, ";")))
			}
		case corev1.TolerationOpExists:
			if t.Value != "" {
				errs = append(errs, field.Invalid(p.Child("operator"), t, "value must be empty when `operator` is 'Exists'"))
			}
		case corev1.TolerationOpLt, corev1.TolerationOpGt:
			if _, err := strconv.ParseInt(t.Value, 10, 64); err != nil {
				errs = append(errs, field.Invalid(p.Child("value"), t.Value, "must be a valid integer when `operator` is 'Lt' or 'Gt'"))
			}
		default:
			errs = append(errs, field.NotSupported(p.Child("operator"), t.Operator,
				[]corev1.TolerationOperator{corev1.TolerationOpEqual, corev1.TolerationOpExists}))
		}
		if t.Effect != "" {
			errs = append(errs, checkEffect(p.Child("effect"), t.Effect)...)
		}
	}
	return errs
}

func checkEffect(path *field.Path, e corev1.TaintEffect) field.ErrorList {
	return checkSet(path, e, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
}

func checkTopologySpread(path *field.Path, list []corev1.TopologySpreadConstraint) field.ErrorList {
	var errs field.ErrorList
	for i := range list {
		c, p := &list[i], path.Index(i)
		if c.MaxSkew <= 0 {
			errs = append(errs, field.Invalid(p.Child("maxSkew"), c.MaxSkew, "must be greater than zero"))
		}
		if c.TopologyKey == "" {
			errs = append(errs, field.Required(p.Child("topologyKey"), "can not be empty"))
		}
		if w := c.WhenUnsatisfiable; w != corev1.DoNotSchedule && w != corev1.ScheduleAnyway {
			errs = append(errs, field.NotSupported(p.Child("whenUnsatisfiable"), w,
				[]corev1.UnsatisfiableConstraintAction{corev1.DoNotSchedule, corev1.ScheduleAnyway}))
		}
		if slices.ContainsFunc(list[i+1:], func(later corev1.TopologySpreadConstraint) bool {
			return later.TopologyKey == c.TopologyKey && later.WhenUnsatisfiable == c.WhenUnsatisfiable
		}) {
			errs = append(errs, field.Duplicate(p.Child("{topologyKey, whenUnsatisfiable}"),
				fmt.Sprintf("{%v, %v}", c.TopologyKey, c.WhenUnsatisfiable)))
		}
		if m := c.MinDomains; m != nil {
			if *m <= 0 {
				errs = append(errs, field.Invalid(p.Child("minDomains"), *m, "must be greater than zero"))
			}
			if c.WhenUnsatisfiable != corev1.DoNotSchedule {
				errs = append(errs, field.Invalid(p.Child("minDomains"), *m,
					fmt.Sprintf("can only use minDomains if whenUnsatisfiable=%s, not %s", corev1.DoNotSchedule, c.WhenUnsatisfiable)))
			}
		}
		errs = append(errs, checkOptional(p.Child("nodeAffinityPolicy"), c.NodeAffinityPolicy, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)...)
		errs = append(errs, checkOptional(p.Child("nodeTaintsPolicy"), c.NodeTaintsPolicy, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)...)
		errs = append(errs, checkLabelSelector(p.Child("labelSelector"), c.LabelSelector)...)
		errs = append(errs, checkLabelKeys(p.Child("matchLabelKeys"), c.MatchLabelKeys, c.LabelSelector)...)
	}
	return errs
}

// checkTopologies: where a volume may be made; the terms differ. Upstream's
// paths of what is in a term lack its index; so do these.
func checkTopologies(path *field.Path, terms []corev1.TopologySelectorTerm) field.ErrorList {
	var errs field.ErrorList
	var seen []map[string][]string
	for i, t := range terms {
		values := map[string][]string{}
		for j, r := range t.MatchLabelExpressions {
			p := path.Child("matchLabelExpressions").Index(j)
			if len(r.Values) == 0 {
				errs = append(errs, field.Required(p.Child("values"), ""))
			}
			for k, v := range r.Values {
				if slices.Index(r.Values, v) < k {
					errs = append(errs, field.Duplicate(p.Child("values").Index(k), v))
				}
			}
			errs = append(errs, checkLabelName(p.Child("key"), r.Key)...)
			if _, twice := values[r.Key]; twice {
				errs = append(errs, field.Duplicate(p.Child("key"), r.Key))
			}
			values[r.Key] = slices.Sorted(slices.Values(r.Values))
		}
		if slices.ContainsFunc(seen, func(other map[string][]string) bool { return equality.Semantic.DeepEqual(values, other) }) {
			errs = append(errs, field.Duplicate(path.Index(i).Child("matchLabelExpressions"), ""))
		}
		seen = append(seen, values)
	}
	return errs
}
