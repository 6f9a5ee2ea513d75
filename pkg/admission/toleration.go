package admission

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// mergeTolerations is both lists without those that another one includes; of
// equal ones the first stays.
func mergeTolerations(first, second []corev1.Toleration) []corev1.Toleration {
	all := slices.Concat(first, second)
	var merged []corev1.Toleration
	for i, t := range all {
		earlier := slices.ContainsFunc(merged, func(o corev1.Toleration) bool { return includes(o, t) })
		later := slices.ContainsFunc(all[i+1:], func(o corev1.Toleration) bool {
			return !equality.Semantic.DeepEqual(t, o) && includes(o, t)
		})
		if !earlier && !later {
			merged = append(merged, t)
		}
	}
	return merged
}

// includes says that whatever t tolerates, by does too.
func includes(by, t corev1.Toleration) bool {
	switch {
	case equality.Semantic.DeepEqual(by, t):
		return true
	case by.Key != t.Key && (by.Key != "" || by.Operator != corev1.TolerationOpExists):
		return false // an empty key that exists is every key
	case by.Effect != t.Effect && by.Effect != "":
		return false
	case by.Effect == corev1.TaintEffectNoExecute && by.TolerationSeconds != nil &&
		(t.TolerationSeconds == nil || *t.TolerationSeconds > *by.TolerationSeconds):
		return false
	}
	switch by.Operator {
	case corev1.TolerationOpExists:
		return true
	case corev1.TolerationOpEqual, "":
		return t.Operator == corev1.TolerationOpEqual && t.Value == by.Value
	}
	return false
}
