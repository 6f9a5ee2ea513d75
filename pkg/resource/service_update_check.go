package resource

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateServiceUpdate: an address of the service range stays for as long as
// the type needs one; going to or from ExternalName gives it up or takes one.
func validateServiceUpdate(svc, old *corev1.Service) field.ErrorList {
	path := field.NewPath("spec")
	is, was := &svc.Spec, &old.Spec
	var errs field.ErrorList
	if is.Type != corev1.ServiceTypeExternalName && was.Type != corev1.ServiceTypeExternalName {
		headless, wasHeadless := is.ClusterIP == corev1.ClusterIPNone, was.ClusterIP == corev1.ClusterIPNone
		if !headless || !wasHeadless {
			errs = append(errs, checkKeptAddresses(path, is, was)...)
		}
		if !headless && !wasHeadless {
			errs = append(errs, checkKeptFamilies(path, is, was)...)
		}
	}
	// A load balancer that one implementation made is not handed to another.
	if is.Type == corev1.ServiceTypeLoadBalancer && was.Type == corev1.ServiceTypeLoadBalancer {
		errs = append(errs, checkSamePointer(path.Child("loadBalancerClass"), is.LoadBalancerClass, was.LoadBalancerClass)...)
	}
	if needsHealthPort(is) && needsHealthPort(was) && is.HealthCheckNodePort != was.HealthCheckNodePort {
		errs = append(errs, field.Forbidden(path.Child("healthCheckNodePort"), "field is immutable"))
	}
	return errs
}

// checkKeptAddresses: a second address may be added or released, and to
// release it a service must say that it wants but one.
func checkKeptAddresses(path *field.Path, is, was *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	p := path.Child("clusterIPs")
	n, before := len(is.ClusterIPs), len(was.ClusterIPs)
	if before > 0 && n == 0 {
		return field.ErrorList{field.Invalid(p.Index(0), is.ClusterIPs, "primary clusterIP can not be unset")}
	}
	for i := range min(n, before) {
		if is.ClusterIPs[i] != was.ClusterIPs[i] {
			errs = append(errs, field.Invalid(p.Index(i), is.ClusterIPs, "may not change once set"))
		}
	}
	if n == 1 && before > 1 && !singleStack(is) {
		errs = append(errs, field.Invalid(path.Child("ipFamilyPolicy"), is.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary clusterIP"))
	}
	return errs
}

func checkKeptFamilies(path *field.Path, is, was *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	p := path.Child("ipFamilies").Index(0)
	n, before := len(is.IPFamilies), len(was.IPFamilies)
	if before > n && len(is.ClusterIPs) == 0 {
		errs = append(errs, field.Invalid(p, is.IPFamilies, "primary ipFamily can not be unset"))
	}
	for i := range min(n, before) {
		if is.IPFamilies[i] != was.IPFamilies[i] && (i == 0 || n == before) {
			errs = append(errs, field.Invalid(p, is.IPFamilies, "may not change once set"))
		}
	}
	if n == 1 && before > 1 && !singleStack(is) {
		errs = append(errs, field.Invalid(path.Child("ipFamilyPolicy"), is.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary ipFamily"))
	}
	return errs
}

func singleStack(spec *corev1.ServiceSpec) bool {
	return spec.IPFamilyPolicy != nil && *spec.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack
}

func checkSamePointer(path *field.Path, is, was *string) field.ErrorList {
	if (is == nil) != (was == nil) || (is != nil && *is != *was) {
		return field.ErrorList{field.Invalid(path, is, "may not change once set")}
	}
	return nil
}

func validateServiceStatus(svc, _ *corev1.Service) field.ErrorList {
	path := field.NewPath("status", "loadBalancer", "ingress")
	if len(svc.Status.LoadBalancer.Ingress) > 0 && svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return field.ErrorList{field.Forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'")}
	}
	var errs field.ErrorList
	for i, in := range svc.Status.LoadBalancer.Ingress {
		p := path.Index(i)
		if in.IP != "" {
			errs = append(errs, utilvalidation.IsValidIPForLegacyField(p.Child("ip"), in.IP, false, nil)...)
		}
		switch {
		case in.IPMode == nil && in.IP != "":
			errs = append(errs, field.Required(p.Child("ipMode"), "must be specified when `ip` is set"))
		case in.IPMode != nil && in.IP == "":
			errs = append(errs, field.Forbidden(p.Child("ipMode"), "may not be specified when `ip` is not set"))
		default:
			errs = append(errs, checkOptional(p.Child("ipMode"), in.IPMode, corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP)...)
		}
		if in.Hostname == "" {
			continue
		}
		errs = append(errs, invalid(p.Child("hostname"), in.Hostname, utilvalidation.IsDNS1123Subdomain(in.Hostname))...)
		if _, err := netip.ParseAddr(in.Hostname); err == nil {
			errs = append(errs, field.Invalid(p.Child("hostname"), in.Hostname, "must be a DNS name, not an IP address"))
		}
	}
	return errs
}
