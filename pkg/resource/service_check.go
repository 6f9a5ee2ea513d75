package resource

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateService(svc *corev1.Service) field.ErrorList {
	path, spec := field.NewPath("spec"), &svc.Spec
	headless := spec.ClusterIP == corev1.ClusterIPNone
	errs := checkServiceAnnotations(field.NewPath("metadata", "annotations"), svc)
	if len(spec.Ports) == 0 && !headless && spec.Type != corev1.ServiceTypeExternalName {
		errs = append(errs, field.Required(path.Child("ports"), ""))
	}
	errs = append(errs, checkServiceType(path, spec)...)
	errs = append(errs, checkServicePorts(path.Child("ports"), spec)...)
	errs = append(errs, metav1validation.ValidateLabels(spec.Selector, path.Child("selector"))...)
	errs = append(errs, checkSessionAffinity(path, spec)...)
	for i, ip := range spec.ExternalIPs {
		errs = append(errs, checkDestination(path.Child("externalIPs").Index(i), ip)...)
	}
	errs = append(errs, checkTrafficPolicies(path, spec)...)
	errs = append(errs, checkLoadBalancer(path, spec)...)
	errs = append(errs, checkClusterIPs(path, spec)...)
	if d := spec.TrafficDistribution; d != nil {
		errs = append(errs, checkOptional(path.Child("trafficDistribution"), d, corev1.ServiceTrafficDistributionPreferClose,
			corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode)...)
	}
	return errs
}

// checkServiceAnnotations: fields that were annotations once, where nobody has
// set the field.
func checkServiceAnnotations(path *field.Path, svc *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	hints, old := svc.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	mode, now := svc.Annotations[corev1.AnnotationTopologyMode]
	if old && now && hints != mode {
		errs = append(errs, field.Invalid(path.Key(corev1.AnnotationTopologyMode), mode,
			fmt.Sprintf("must match annotations[%s] when both are specified", corev1.DeprecatedAnnotationTopologyAwareHints)))
	}
	ranges, noted := svc.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]
	if !noted || len(svc.Spec.LoadBalancerSourceRanges) > 0 {
		return errs
	}
	p := path.Key(corev1.AnnotationLoadBalancerSourceRangesKey)
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		errs = append(errs, field.Forbidden(p, "may only be used when `type` is 'LoadBalancer'"))
	}
	if ranges = strings.TrimSpace(ranges); ranges == "" {
		return errs
	}
	for _, cidr := range strings.Split(ranges, ",") {
		errs = append(errs, utilvalidation.IsValidCIDRForLegacyField(p, strings.TrimSpace(cidr), false, nil)...)
	}
	return errs
}

func checkServiceType(path *field.Path, spec *corev1.ServiceSpec) field.ErrorList {
	errs := checkSet(path.Child("type"), spec.Type, corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName,
		corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort)
	switch spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		if spec.ClusterIP == corev1.ClusterIPNone {
			errs = append(errs, field.Invalid(path.Child("clusterIPs").Index(0), spec.ClusterIP,
				fmt.Sprintf("may not be set to 'None' for %s services", spec.Type)))
		}
	case corev1.ServiceTypeExternalName:
		if len(spec.ClusterIPs) > 0 || spec.ClusterIP != "" {
			errs = append(errs, field.Forbidden(path.Child("clusterIPs"), "may not be set for ExternalName services"))
		}
		if len(spec.IPFamilies) > 0 {
			errs = append(errs, field.Forbidden(path.Child("ipFamilies"), "may not be set for ExternalName services"))
		}
		if spec.IPFamilyPolicy != nil {
			errs = append(errs, field.Forbidden(path.Child("ipFamilyPolicy"), "may not be set for ExternalName services"))
		}
		// One dot at the end is allowed, as in a zone file.
		errs = append(errs, checkName(path.Child("externalName"), strings.TrimSuffix(spec.ExternalName, "."), utilvalidation.IsDNS1123Subdomain)...)
	}
	return errs
}

func checkServicePorts(path *field.Path, spec *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	type number struct {
		protocol corev1.Protocol
		port     int32
	}
	names, ports, nodePorts := map[string]bool{}, map[number]bool{}, map[number]bool{}
	for i := range spec.Ports {
		sp, p := &spec.Ports[i], path.Index(i)
		switch {
		case sp.Name == "" && len(spec.Ports) > 1:
			errs = append(errs, field.Required(p.Child("name"), ""))
		case sp.Name != "":
			errs = append(errs, invalid(p.Child("name"), sp.Name, utilvalidation.IsDNS1123Label(sp.Name))...)
			if names[sp.Name] {
				errs = append(errs, field.Duplicate(p.Child("name"), sp.Name))
			}
			names[sp.Name] = true
		}
		errs = append(errs, checkPortNumber(p.Child("port"), sp.Port)...)
		errs = append(errs, checkProtocol(p.Child("protocol"), sp.Protocol)...)
		errs = append(errs, checkPortRef(p.Child("targetPort"), sp.TargetPort)...)
		if sp.AppProtocol != nil {
			errs = append(errs, invalid(p.Child("appProtocol"), *sp.AppProtocol, utilvalidation.IsQualifiedName(*sp.AppProtocol))...)
		}
		if key := (number{sp.Protocol, sp.Port}); ports[key] {
			errs = append(errs, field.Duplicate(p, corev1.ServicePort{Protocol: sp.Protocol, Port: sp.Port}))
		} else {
			ports[key] = true
		}
		if sp.NodePort == 0 {
			continue
		}
		if spec.Type == corev1.ServiceTypeClusterIP {
			errs = append(errs, field.Forbidden(p.Child("nodePort"), "may not be used when `type` is 'ClusterIP'"))
		}
		if key := (number{sp.Protocol, sp.NodePort}); nodePorts[key] {
			errs = append(errs, field.Duplicate(p.Child("nodePort"), sp.NodePort))
		} else {
			nodePorts[key] = true
		}
	}
	return errs
}

func checkProtocol(path *field.Path, p corev1.Protocol) field.ErrorList {
	return checkSet(path, p, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
}

func checkSessionAffinity(path *field.Path, spec *corev1.ServiceSpec) field.ErrorList {
	errs := checkSet(path.Child("sessionAffinity"), spec.SessionAffinity, corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
	c, p := spec.SessionAffinityConfig, path.Child("sessionAffinityConfig")
	switch {
	case spec.SessionAffinity == corev1.ServiceAffinityNone && c != nil:
		errs = append(errs, field.Forbidden(p, fmt.Sprintf("must not be set when session affinity is %s", corev1.ServiceAffinityNone)))
	case spec.SessionAffinity == corev1.ServiceAffinityClientIP:
		errs = append(errs, checkClientIP(p, c)...)
	}
	return errs
}

// maxAffinitySeconds is a day.
const maxAffinitySeconds = 86400

func checkClientIP(path *field.Path, c *corev1.SessionAffinityConfig) field.ErrorList {
	const when = "when session affinity type is ClientIP"
	switch {
	case c == nil:
		return field.ErrorList{field.Required(path, when)}
	case c.ClientIP == nil:
		return field.ErrorList{field.Required(path.Child("clientIP"), when)}
	}
	path = path.Child("clientIP", "timeoutSeconds")
	if s := c.ClientIP.TimeoutSeconds; s == nil {
		return field.ErrorList{field.Required(path, when)}
	} else if *s <= 0 || *s > maxAffinitySeconds {
		return field.ErrorList{field.Invalid(path, *s, fmt.Sprintf("must be greater than 0 and less than %d", maxAffinitySeconds))}
	}
	return nil
}

func checkTrafficPolicies(path *field.Path, spec *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	p := path.Child("externalTrafficPolicy")
	if externallyAccessible(spec) {
		errs = append(errs, checkSet(p, spec.ExternalTrafficPolicy,
			corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)...)
	} else if spec.ExternalTrafficPolicy != "" {
		errs = append(errs, field.Invalid(p, spec.ExternalTrafficPolicy, "may only be set for externally-accessible services"))
	}
	p = path.Child("healthCheckNodePort")
	if n := spec.HealthCheckNodePort; !needsHealthPort(spec) && n != 0 {
		errs = append(errs, field.Invalid(p, n, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"))
	} else if n != 0 {
		errs = append(errs, checkPortNumber(p, n)...)
	}
	return append(errs, checkOptional(path.Child("internalTrafficPolicy"), spec.InternalTrafficPolicy,
		corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)...)
}

func checkLoadBalancer(path *field.Path, spec *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	// The capital is upstream's.
	ranges := path.Child("LoadBalancerSourceRanges")
	for i, cidr := range spec.LoadBalancerSourceRanges {
		errs = append(errs, utilvalidation.IsValidCIDRForLegacyField(ranges.Index(i), strings.TrimSpace(cidr), false, nil)...)
	}
	if c := spec.LoadBalancerClass; c != nil && spec.Type == corev1.ServiceTypeLoadBalancer {
		errs = append(errs, invalid(path.Child("loadBalancerClass"), *c, utilvalidation.IsQualifiedName(*c))...)
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer {
		if spec.AllocateLoadBalancerNodePorts == nil {
			errs = append(errs, field.Required(path.Child("allocateLoadBalancerNodePorts"), ""))
		}
		return errs
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"LoadBalancerSourceRanges", len(spec.LoadBalancerSourceRanges) > 0},
		{"loadBalancerClass", spec.LoadBalancerClass != nil},
		{"allocateLoadBalancerNodePorts", spec.AllocateLoadBalancerNodePorts != nil},
	} {
		if f.set {
			errs = append(errs, field.Forbidden(path.Child(f.name), "may only be used when `type` is 'LoadBalancer'"))
		}
	}
	return errs
}

func checkClusterIPs(path *field.Path, spec *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	if spec.Type == corev1.ServiceTypeExternalName {
		return nil // it has none of all this
	}
	p := path.Child("clusterIPs")
	switch {
	case spec.ClusterIP == "" && len(spec.ClusterIPs) > 0:
		errs = append(errs, field.Invalid(p, spec.ClusterIPs, "must be empty when `clusterIP` is not specified"))
	case spec.ClusterIP != "" && len(spec.ClusterIPs) == 0:
		errs = append(errs, field.Required(p, ""))
	case spec.ClusterIP != "" && spec.ClusterIPs[0] != spec.ClusterIP:
		errs = append(errs, field.Invalid(p, spec.ClusterIPs, "first value must match `clusterIP`"))
	}
	for i, f := range spec.IPFamilies {
		errs = append(errs, checkOptional(path.Child("ipFamilies").Index(i), &f, corev1.IPv4Protocol, corev1.IPv6Protocol)...)
		if slices.Index(spec.IPFamilies, f) < i {
			errs = append(errs, field.Duplicate(path.Child("ipFamilies").Index(i), f))
		}
	}
	errs = append(errs, checkOptional(path.Child("ipFamilyPolicy"), spec.IPFamilyPolicy,
		corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack)...)
	return append(errs, checkAddressList(p, spec)...)
}

// checkAddressList is about clusterIPs alone. Families are compared only once
// every address is one.
func checkAddressList(path *field.Path, spec *corev1.ServiceSpec) field.ErrorList {
	var errs, bad field.ErrorList
	families := map[bool]int{}
	for i, ip := range spec.ClusterIPs {
		if i == 0 && ip == corev1.ClusterIPNone {
			if len(spec.ClusterIPs) > 1 {
				bad = append(bad, field.Invalid(path, spec.ClusterIPs, "'None' must be the first and only value"))
			}
			continue
		}
		bad = append(bad, utilvalidation.IsValidIPForLegacyField(path.Index(i), ip, false, nil)...)
		families[isIPv6(ip)]++
	}
	errs = append(errs, bad...)
	if len(spec.ClusterIPs) > 2 {
		errs = append(errs, field.Invalid(path, spec.ClusterIPs, "may only hold up to 2 values"))
	}
	if len(bad) > 0 {
		return errs
	}
	if families[true] > 1 || families[false] > 1 {
		errs = append(errs, field.Invalid(path, spec.ClusterIPs, "may specify no more than one IP for each IP family"))
	}
	for i, ip := range spec.ClusterIPs {
		if ip != corev1.ClusterIPNone && i < len(spec.IPFamilies) && isIPv6(ip) != (spec.IPFamilies[i] == corev1.IPv6Protocol) {
			errs = append(errs, field.Invalid(path.Index(i), ip, fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%d]`", spec.IPFamilies[i], i)))
		}
	}
	return errs
}
