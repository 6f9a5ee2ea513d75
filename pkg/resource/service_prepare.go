package resource

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// prepareService drops what belongs to another type of service or is the
// allocator's: an update that changes the type need not name what it frees.
func prepareService(svc, old *corev1.Service) {
	if old == nil {
		svc.Status = corev1.ServiceStatus{}
	} else {
		keepAllocated(svc, old)
		dropByType(svc, old)
	}
	if svc.Spec.Type != corev1.ServiceTypeExternalName {
		defaultFamilies(&svc.Spec)
	}
}

// keepAllocated puts back what the server chose where an update leaves it
// out, so that a client may send the object as it would create it.
func keepAllocated(svc, old *corev1.Service) {
	if svc.Spec.Type == corev1.ServiceTypeExternalName || old.Spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	if svc.Spec.ClusterIP == "" && len(svc.Spec.ClusterIPs) == 0 {
		svc.Spec.ClusterIP = old.Spec.ClusterIP
		svc.Spec.ClusterIPs = slices.Clone(old.Spec.ClusterIPs)
	}
	// Who changes the first address alone knows but that field.
	if svc.Spec.ClusterIP != "" && svc.Spec.ClusterIP != old.Spec.ClusterIP && slices.Equal(svc.Spec.ClusterIPs, old.Spec.ClusterIPs) {
		svc.Spec.ClusterIPs = []string{svc.Spec.ClusterIP}
	}
	if svc.Spec.IPFamilyPolicy == nil && old.Spec.IPFamilyPolicy != nil {
		svc.Spec.IPFamilyPolicy = new(*old.Spec.IPFamilyPolicy)
	}
	if len(svc.Spec.IPFamilies) == 0 {
		svc.Spec.IPFamilies = slices.Clone(old.Spec.IPFamilies)
	}
	if ServiceNeedsNodePorts(svc) && ServiceNeedsNodePorts(old) {
		keepNodePorts(svc.Spec.Ports, old.Spec.Ports)
	}
	if needsHealthPort(&svc.Spec) && needsHealthPort(&old.Spec) && svc.Spec.HealthCheckNodePort == 0 {
		svc.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
	}
}

// keepNodePorts gives ports without a node port the one that the port of the
// same name had, unless another port claims it now. All else about the port may
// have changed.
func keepNodePorts(ports, old []corev1.ServicePort) {
	had, claimed := map[string]int32{}, map[int32]bool{}
	for _, p := range old {
		had[p.Name] = p.NodePort
	}
	for _, p := range ports {
		claimed[p.NodePort] = true
	}
	for i := range ports {
		if p := &ports[i]; p.NodePort == 0 && !claimed[had[p.Name]] {
			p.NodePort = had[p.Name]
		}
	}
}

func needsHealthPort(spec *corev1.ServiceSpec) bool {
	return spec.Type == corev1.ServiceTypeLoadBalancer &&
		spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// dropByType clears fields that the new type has no use for, but only where
// the update left them as they were: a value that the client set anew is
// validated and refused instead.
func dropByType(svc, old *corev1.Service) {
	spec, was := &svc.Spec, &old.Spec
	if spec.Type == corev1.ServiceTypeExternalName && was.Type != corev1.ServiceTypeExternalName {
		if spec.ClusterIP == was.ClusterIP {
			spec.ClusterIP, spec.ClusterIPs = "", nil
		}
		spec.IPFamilies, spec.IPFamilyPolicy = nil, nil
		spec.InternalTrafficPolicy = nil
	}
	if ServiceNeedsNodePorts(old) && !ServiceNeedsNodePorts(svc) && sameNodePorts(spec.Ports, was.Ports) &&
		spec.Type != corev1.ServiceTypeLoadBalancer {
		for i := range spec.Ports {
			spec.Ports[i].NodePort = 0
		}
	}
	if needsHealthPort(was) && !needsHealthPort(spec) && spec.HealthCheckNodePort == was.HealthCheckNodePort {
		spec.HealthCheckNodePort = 0
	}
	if externallyAccessible(was) && !externallyAccessible(spec) && spec.ExternalTrafficPolicy == was.ExternalTrafficPolicy {
		spec.ExternalTrafficPolicy = ""
	}
	if was.Type == corev1.ServiceTypeLoadBalancer && spec.Type != corev1.ServiceTypeLoadBalancer {
		spec.AllocateLoadBalancerNodePorts = nil
		if spec.LoadBalancerClass != nil && was.LoadBalancerClass != nil && *spec.LoadBalancerClass == *was.LoadBalancerClass {
			spec.LoadBalancerClass = nil
		}
	}
}

func sameNodePorts(a, b []corev1.ServicePort) bool {
	if len(a) != len(b) {
		return false
	}
	had := map[int32]bool{}
	for _, p := range b {
		had[p.NodePort] = true
	}
	for _, p := range a {
		if !had[p.NodePort] {
			return false
		}
	}
	return true
}

// defaultFamilies fills address families as an IPv4 cluster has them. A
// headless service without a selector is given both, since its endpoints are
// whatever a person writes.
func defaultFamilies(spec *corev1.ServiceSpec) {
	if spec.ClusterIP == corev1.ClusterIPNone && len(spec.Selector) == 0 {
		if spec.IPFamilyPolicy == nil {
			spec.IPFamilyPolicy = new(corev1.IPFamilyPolicyRequireDualStack)
		}
		if len(spec.IPFamilies) == 0 {
			spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
		}
		if len(spec.IPFamilies) == 1 && *spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack {
			spec.IPFamilies = append(spec.IPFamilies, otherFamily(spec.IPFamilies[0]))
		}
		return
	}
	if spec.IPFamilyPolicy == nil {
		spec.IPFamilyPolicy = new(corev1.IPFamilyPolicySingleStack)
	}
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	}
}

func otherFamily(f corev1.IPFamily) corev1.IPFamily {
	if f == corev1.IPv4Protocol {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}
