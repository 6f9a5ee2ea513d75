package resource

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateNode(n *corev1.Node) field.ErrorList {
	path := field.NewPath("spec")
	// Upstream looks for the taints in the metadata; so does this.
	errs := checkTaints(field.NewPath("metadata", "taints"), n.Spec.Taints)
	families := map[bool]int{}
	for i, cidr := range n.Spec.PodCIDRs {
		errs = append(errs, utilvalidation.IsValidCIDRForLegacyField(path.Child("podCIDRs").Index(i), cidr, false, nil)...)
		if slices.Index(n.Spec.PodCIDRs, cidr) < i {
			errs = append(errs, field.Duplicate(path.Child("podCIDRs").Index(i), cidr))
		}
		families[strings.Contains(cidr, ":")]++
	}
	if len(n.Spec.PodCIDRs) > 2 || families[true] > 1 || families[false] > 1 {
		errs = append(errs, field.Invalid(path.Child("podCIDRs"), n.Spec.PodCIDRs, "may specify no more than one CIDR for each IP family"))
	}
	if n.Spec.PodPreemptionPolicy != nil {
		// It is of an alpha feature, which is off.
		errs = append(errs, field.Forbidden(path.Child("podPreemptionPolicy"), ""))
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
		if bad := utilvalidation.IsValidLabelValue(t.Value); len(bad) > 0 {
			errs = append(errs, field.Invalid(p.Child("value"), t.Value, strings.Join(bad, ";")))
		}
		errs = append(errs, checkEffect(p.Child("effect"), t.Effect)...)
		if seen[id{t.Key, t.Effect}] {
			err := field.Duplicate(p, *t)
			err.Detail = "taints must be unique by key and effect pair"
			errs = append(errs, err)
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
			p := field.NewPath("status", l.name, string(name))
			errs = append(errs, checkQuantity(p, name, l.list[name])...)
		}
	}
	return errs
}

// validateNodeUpdate: what names the machine and its addresses is set once.
func validateNodeUpdate(n, old *corev1.Node) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	if len(old.Spec.PodCIDRs) > 0 && !slices.Equal(n.Spec.PodCIDRs, old.Spec.PodCIDRs) {
		errs = append(errs, field.Forbidden(path.Child("podCIDRs"), `node updates may not change podCIDR except from "" to valid`))
	}
	if old.Spec.ProviderID != "" && n.Spec.ProviderID != old.Spec.ProviderID {
		errs = append(errs, field.Forbidden(path.Child("providerID"), `node updates may not change providerID except from "" to valid`))
	}
	if n.Spec.DoNotUseExternalID != old.Spec.DoNotUseExternalID {
		errs = append(errs, field.Forbidden(path.Child("externalID"), "may not be updated"))
	}
	//lint:ignore SA1019 nobody reads it any more, but what is there is checked as it always was
	if s := n.Spec.ConfigSource; s != nil {
		errs = append(errs, checkConfigSource(path.Child("configSource"), s, false)...)
	}
	return append(errs, checkNodeAddresses(n)...)
}

func validateNodeStatus(n, _ *corev1.Node) field.ErrorList {
	errs := append(checkNodeResources(n), checkNodeAddresses(n)...)
	if c := n.Status.Config; c != nil {
		path := field.NewPath("status", "config")
		for _, s := range []struct {
			name   string
			source *corev1.NodeConfigSource
		}{{"assigned", c.Assigned}, {"active", c.Active}, {"lastKnownGood", c.LastKnownGood}} {
			if s.source != nil {
				errs = append(errs, checkConfigSource(path.Child(s.name), s.source, true)...)
			}
		}
	}
	return errs
}

func checkNodeAddresses(n *corev1.Node) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("status", "addresses")
	for i, a := range n.Status.Addresses {
		if (a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP) && a.Address != "" {
			errs = append(errs, utilvalidation.IsValidIPForLegacyField(path.Index(i), a.Address, false, nil)...)
		}
		if slices.Index(n.Status.Addresses, a) < i {
			errs = append(errs, field.Duplicate(path.Index(i), a))
		}
	}
	return errs
}

// checkConfigSource: the kubelet's configuration once lay in a ConfigMap.
// Nobody reads it any more; what is there is checked as it always was. A
// status says which version of the ConfigMap it speaks of.
func checkConfigSource(path *field.Path, s *corev1.NodeConfigSource, status bool) field.ErrorList {
	if s.ConfigMap == nil {
		return field.ErrorList{field.Invalid(path, s, "exactly one reference subfield must be non-nil")}
	}
	var errs field.ErrorList
	p, m := path.Child("configMap"), s.ConfigMap
	for _, f := range []struct{ name, value string }{{"uid", string(m.UID)}, {"resourceVersion", m.ResourceVersion}} {
		switch {
		case status && f.value == "":
			errs = append(errs, field.Required(p.Child(f.name), f.name+" must be set in status"))
		case !status && f.value != "":
			errs = append(errs, field.Forbidden(p.Child(f.name), f.name+" must not be set in spec"))
		}
	}
	for _, f := range []struct {
		name, value string
		rule        func(string) []string
	}{
		{"namespace", m.Namespace, utilvalidation.IsDNS1123Label}, {"name", m.Name, utilvalidation.IsDNS1123Subdomain},
		{"kubeletConfigKey", m.KubeletConfigKey, utilvalidation.IsConfigMapKey},
	} {
		if f.value == "" {
			errs = append(errs, field.Required(p.Child(f.name), f.name+" must be set"))
		} else {
			errs = append(errs, invalid(p.Child(f.name), f.value, f.rule(f.value))...)
		}
	}
	return errs
}
