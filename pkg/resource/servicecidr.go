package resource

import (
	"net/netip"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

func ipAddresses() *Resource {
	return define(Resource{
		Group: "networking.k8s.io", Version: "v1", Kind: "IPAddress", Plural: "ipaddresses", ShortNames: []string{"ip"},
		UnconditionalUpdate: true,
		ValidateName: func(name string, _ bool) []string {
			// The canonical form only, or an address could be taken twice.
			if a, err := netip.ParseAddr(name); err != nil || a.String() != name {
				return []string{"must be a valid address in canonical format"}
			}
			return nil
		},
		New:        func() runtime.Object { return &networkingv1.IPAddress{} },
		NewList:    func() runtime.Object { return &networkingv1.IPAddressList{} },
		FieldsRead: []string{"spec.parentRef"},
		FieldNames: []string{"spec.parentRef.group", "spec.parentRef.resource", "spec.parentRef.namespace", "spec.parentRef.name"},
		Columns:    columns("Name", "ParentRef"),
	}, hooks[*networkingv1.IPAddress]{
		Validate: func(a *networkingv1.IPAddress) field.ErrorList {
			path := field.NewPath("spec", "parentRef")
			if a.Spec.ParentRef == nil {
				return field.ErrorList{field.Required(path, "")}
			}
			return checkParent(path, a.Spec.ParentRef)
		},
		ValidateUpdate: func(a, old *networkingv1.IPAddress) field.ErrorList {
			return checkImmutable(field.NewPath("spec", "parentRef"), a.Spec.ParentRef, old.Spec.ParentRef)
		},
		Fields: func(a *networkingv1.IPAddress) map[string]string {
			ref := networkingv1.ParentReference{}
			if a.Spec.ParentRef != nil {
				ref = *a.Spec.ParentRef
			}
			return map[string]string{
				"spec.parentRef.group": ref.Group, "spec.parentRef.resource": ref.Resource,
				"spec.parentRef.namespace": ref.Namespace, "spec.parentRef.name": ref.Name,
			}
		},
		Row: func(a *networkingv1.IPAddress, _ time.Time) []any {
			text := "<none>"
			if ref := a.Spec.ParentRef; ref != nil {
				text = ref.Resource
				if ref.Group != "" {
					text += "." + ref.Group
				}
				for _, part := range []string{ref.Namespace, ref.Name} {
					if part != "" {
						text += "/" + part
					}
				}
			}
			return []any{a.Name, text}
		},
	})
}

func checkParent(path *field.Path, ref *networkingv1.ParentReference) field.ErrorList {
	var errs field.ErrorList
	if ref.Group != "" {
		errs = append(errs, invalid(path.Child("group"), ref.Group, utilvalidation.IsDNS1123Subdomain(ref.Group))...)
	}
	errs = append(errs, checkName(path.Child("resource"), ref.Resource, content.IsPathSegmentName)...)
	errs = append(errs, checkName(path.Child("name"), ref.Name, content.IsPathSegmentName)...)
	if ref.Namespace != "" {
		errs = append(errs, invalid(path.Child("namespace"), ref.Namespace, content.IsPathSegmentName(ref.Namespace))...)
	}
	return errs
}

func serviceCIDRs() *Resource {
	return define(Resource{
		Group: "networking.k8s.io", Version: "v1", Kind: "ServiceCIDR", Plural: "servicecidrs",
		HasStatus:           true,
		UnconditionalUpdate: true,
		New:                 func() runtime.Object { return &networkingv1.ServiceCIDR{} },
		NewList:             func() runtime.Object { return &networkingv1.ServiceCIDRList{} },
		Columns:             columns("Name", "CIDRs", "Age"),
	}, hooks[*networkingv1.ServiceCIDR]{
		Validate: func(s *networkingv1.ServiceCIDR) field.ErrorList {
			path := field.NewPath("spec", "cidrs")
			if len(s.Spec.CIDRs) == 0 {
				return field.ErrorList{field.Required(path, "at least one CIDR required")}
			}
			var errs field.ErrorList
			if len(s.Spec.CIDRs) > 2 {
				return field.ErrorList{field.Invalid(path, s.Spec.CIDRs, "may only hold up to 2 values")}
			}
			if dual, err := netutils.IsDualStackCIDRStrings(s.Spec.CIDRs); len(s.Spec.CIDRs) == 2 && (err != nil || !dual) {
				return field.ErrorList{field.Invalid(path, s.Spec.CIDRs, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64")}
			}
			for i, c := range s.Spec.CIDRs {
				errs = append(errs, utilvalidation.IsValidCIDR(path.Index(i), c)...)
			}
			return errs
		},
		ValidateUpdate: func(s, old *networkingv1.ServiceCIDR) field.ErrorList {
			path := field.NewPath("spec", "cidrs")
			// A second family may be added; the first stays.
			if len(old.Spec.CIDRs) == 1 && len(s.Spec.CIDRs) == 2 && s.Spec.CIDRs[0] == old.Spec.CIDRs[0] {
				return nil
			}
			return checkImmutable(path, s.Spec.CIDRs, old.Spec.CIDRs)
		},
		Row: func(s *networkingv1.ServiceCIDR, now time.Time) []any {
			return []any{s.Name, strings.Join(s.Spec.CIDRs, ","), age(s.CreationTimestamp, now)}
		},
	})
}
