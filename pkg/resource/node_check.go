package resource

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateNode(n *corev1.Node) field.ErrorList {
	path := field.NewPath("spec")
	errs := checkTaints(path.Child("taints"), n.Spec.Taints)
	families := map[bool]int{}
	for i, cidr := range n.Spec.PodCIDRs {
		errs = append(errs, utilvalidation.IsValidCIDRForLegacyField(path.Child("podCIDRs").Index(i), cidr, false, nil)...)
		families[strings.Contains(cidr, ":")]++
	}
	if len(n.Spec.PodCIDRs) > 2 || families[true] > 1 || families[false] > 1 {
		errs = append(errs, field.Invalid(path.Child("podCIDRs"), n.Spec.PodCIDRs, "may specify no more than one CIDR for each IP family"))
	}
	return append(errs, checkNodeResources(n)...)
}

func checkTaints(path *field.Path, taints []corev1.Taint) field.ErrorList {
	var errs field.ErrorList
	type id struct {
		key    string
		effect corev1.TaintEffect
	}
	seen := map[id]bool{}
	for i := range taints {
		t, p := &taints[i], path.Index(i)
		errs = append(errs, checkLabelName(p.Child("key"), t.Key)...)
		errs = append(errs, invalid(p.Child("value"), t.Value, utilvalidation.IsValidLabelValue(t.Value))...)
		errs = append(errs, checkEffect(p.Child("effect"), t.Effect)...)
		if seen[id{t.Key, t.Effect}] {
			errs = append(errs, field.Duplicate(p, *t))
		}
		seen[id{t.Key, t.Effect}] = true
	}
	return errs
}

func checkNodeResources(n *corev1.Node) field.ErrorList {
	var errs field.ErrorList
	for _, l := range []struct {
		name string
		list corev1.ResourceList
	}{{"capacity", n.Status.Capacity}, {"allocatable", n.Status.Allocatable}} {
		for _, name := range sortedKeys(l.list) {
			p := field.NewPath("status", l.name).Key(string(name))
			errs = append(errs, invalid(p, name, utilvalidation.IsQualifiedName(string(name)))...)
			errs = append(errs, checkQuantity(p, name, l.list[name])...)
		}
	}
	return errs
}

// validateNodeUpdate: what names the machine and its addresses is set once.
func validateNodeUpdate(n, old *corev1.Node) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	if len(old.Spec.PodCIDRs) > 0 && !equality.Semantic.DeepEqual(n.Spec.PodCIDRs, old.Spec.PodCIDRs) {
		errs = append(errs, field.Forbidden(path.Child("podCIDRs"), `node updates may not change podCIDR except from "" to valid`))
	}
	if old.Spec.ProviderID != "" && n.Spec.ProviderID != old.Spec.ProviderID {
		errs = append(errs, field.Forbidden(path.Child("providerID"), `node updates may not change providerID except from "" to valid`))
	}
	is, was := n.Spec.DeepCopy(), old.Spec.DeepCopy()
	for _, s := range []*corev1.NodeSpec{is, was} {
		s.PodCIDR, s.PodCIDRs, s.ProviderID, s.Taints, s.Unschedulable = "", nil, "", nil, false
		s.PodPreemptionPolicy = nil
	}
	if !equality.Semantic.DeepEqual(is, was) {
		errs = append(errs, field.Forbidden(field.NewPath(""), "node updates may only change labels, taints, or capacity"))
	}
	return errs
}

func validateNodeStatus(n, _ *corev1.Node) field.ErrorList {
	errs := checkNodeResources(n)
	path := field.NewPath("status", "addresses")
	for i, a := range n.Status.Addresses {
		if (a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP) && a.Address != "" {
			errs = append(errs, utilvalidation.IsValidIPForLegacyField(path.Index(i), a.Address, false, nil)...)
		}
		for _, b := range n.Status.Addresses[:i] {
			if a == b {
				errs = append(errs, field.Duplicate(path.Index(i), a))
			}
		}
	}
	return errs
}
