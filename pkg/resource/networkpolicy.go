package resource

import (
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func networkPolicies() *Resource {
	return define(Resource{
		Group: "networking.k8s.io", Version: "v1", Kind: "NetworkPolicy", Plural: "networkpolicies", ShortNames: []string{"netpol"},
		Namespaced:          true,
		HasGeneration:       true,
		UnconditionalUpdate: true,
		New:                 func() runtime.Object { return &networkingv1.NetworkPolicy{} },
		NewList:             func() runtime.Object { return &networkingv1.NetworkPolicyList{} },
		Columns:             columns("Name", "Pod-Selector", "Age"),
	}, hooks[*networkingv1.NetworkPolicy]{
		Default:  defaultNetworkPolicy,
		Validate: validateNetworkPolicy,
		Row: func(p *networkingv1.NetworkPolicy, now time.Time) []any {
			return []any{p.Name, metav1.FormatLabelSelector(&p.Spec.PodSelector), age(p.CreationTimestamp, now)}
		},
	})
}

func defaultNetworkPolicy(p *networkingv1.NetworkPolicy) {
	ports := func(list []networkingv1.NetworkPolicyPort) {
		for i := range list {
			if list[i].Protocol == nil {
				list[i].Protocol = new(corev1.ProtocolTCP)
			}
		}
	}
	for i := range p.Spec.Ingress {
		ports(p.Spec.Ingress[i].Ports)
	}
	for i := range p.Spec.Egress {
		ports(p.Spec.Egress[i].Ports)
	}
	// A policy is about ingress unless it says otherwise, and about egress
	// as soon as it has such rules.
	if len(p.Spec.PolicyTypes) == 0 {
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(p.Spec.Egress) > 0 {
			p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
}

func validateNetworkPolicy(p *networkingv1.NetworkPolicy) field.ErrorList {
	path := field.NewPath("spec")
	errs := checkLabelSelector(path.Child("podSelector"), &p.Spec.PodSelector)
	for i := range p.Spec.Ingress {
		r, rp := &p.Spec.Ingress[i], path.Child("ingress").Index(i)
		errs = append(errs, checkPolicyPorts(rp.Child("ports"), r.Ports)...)
		errs = append(errs, checkPolicyPeers(rp.Child("from"), r.From)...)
	}
	for i := range p.Spec.Egress {
		r, rp := &p.Spec.Egress[i], path.Child("egress").Index(i)
		errs = append(errs, checkPolicyPorts(rp.Child("ports"), r.Ports)...)
		errs = append(errs, checkPolicyPeers(rp.Child("to"), r.To)...)
	}
	if len(p.Spec.PolicyTypes) > 2 {
		return append(errs, field.Invalid(path.Child("policyTypes"), &p.Spec.PolicyTypes, "may not specify more than two policyTypes"))
	}
	for i, t := range p.Spec.PolicyTypes {
		errs = append(errs, checkOptional(path.Child("policyTypes").Index(i), &t, networkingv1.PolicyTypeEgress, networkingv1.PolicyTypeIngress)...)
	}
	return errs
}

func checkPolicyPorts(path *field.Path, ports []networkingv1.NetworkPolicyPort) field.ErrorList {
	var errs field.ErrorList
	for i := range ports {
		port, p := &ports[i], path.Index(i)
		errs = append(errs, checkOptional(p.Child("protocol"), port.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
		if port.Port != nil {
			errs = append(errs, checkPortRef(p.Child("port"), *port.Port)...)
		}
		if port.EndPort != nil {
			errs = append(errs, checkEndPort(p.Child("endPort"), *port.EndPort, port.Port)...)
		}
	}
	return errs
}

func checkEndPort(path *field.Path, end int32, port *intstr.IntOrString) field.ErrorList {
	switch {
	case port == nil:
		return field.ErrorList{field.Invalid(path, end, "may not be specified when `port` is not specified")}
	case port.Type == intstr.String:
		return field.ErrorList{field.Invalid(path, end, "may not be specified when `port` is non-numeric")}
	}
	var errs field.ErrorList
	if end < port.IntVal {
		errs = append(errs, field.Invalid(path, end, "must be greater than or equal to `port`"))
	}
	return append(errs, checkPortNumber(path, end)...)
}

func checkPolicyPeers(path *field.Path, peers []networkingv1.NetworkPolicyPeer) field.ErrorList {
	var errs field.ErrorList
	for i := range peers {
		peer, p := &peers[i], path.Index(i)
		n := 0
		if peer.PodSelector != nil {
			n++
			errs = append(errs, checkLabelSelector(p.Child("podSelector"), peer.PodSelector)...)
		}
		if peer.NamespaceSelector != nil {
			n++
			errs = append(errs, checkLabelSelector(p.Child("namespaceSelector"), peer.NamespaceSelector)...)
		}
		if peer.IPBlock != nil {
			if n++; n > 1 {
				errs = append(errs, field.Forbidden(p, "may not specify both ipBlock and another peer"))
			}
			errs = append(errs, checkIPBlock(p.Child("ipBlock"), peer.IPBlock)...)
		}
		if n == 0 {
			errs = append(errs, field.Required(p, "must specify a peer"))
		}
	}
	return errs
}

func checkIPBlock(path *field.Path, b *networkingv1.IPBlock) field.ErrorList {
	if b.CIDR == "" {
		return field.ErrorList{field.Required(path.Child("cidr"), "")}
	}
	errs := utilvalidation.IsValidCIDRForLegacyField(path.Child("cidr"), b.CIDR, false, nil)
	whole, err := netip.ParsePrefix(b.CIDR)
	if err != nil {
		return errs
	}
	for i, cidr := range b.Except {
		p := path.Child("except").Index(i)
		errs = append(errs, utilvalidation.IsValidCIDRForLegacyField(p, cidr, false, nil)...)
		part, err := netip.ParsePrefix(cidr)
		if err == nil && (!whole.Contains(part.Addr()) || part.Bits() <= whole.Bits()) {
			errs = append(errs, field.Invalid(p, cidr, "must be a strict subset of `cidr`"))
		}
	}
	return errs
}
