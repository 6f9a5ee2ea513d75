package endpointslice

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/controllers/endpointset"
	"coracle/pkg/controllers/podset"
)

// limit is how many endpoints one slice holds. Smaller slices cost more
// objects, larger ones more bytes per change.
const limit = 100

// compute decides how the slices of svc change so that they show pods. zoneOf
// returns the zone of a node, or "".
func compute(svc *corev1.Service, pods []*corev1.Pod, have []*discoveryv1.EndpointSlice, zoneOf func(node string) string, trigger string) endpointset.Changes {
	var groups []endpointset.Group
	for _, family := range families(svc) {
		groups = append(groups, groupsOf(svc, pods, family, zoneOf)...)
	}
	return endpointset.Pack(have, groups, metaOf(svc, trigger), limit)
}

// families returns the address types of svc.
func families(svc *corev1.Service) []discoveryv1.AddressType {
	if len(svc.Spec.IPFamilies) == 0 {
		return []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4}
	}
	var out []discoveryv1.AddressType
	for _, f := range svc.Spec.IPFamilies {
		switch f {
		case corev1.IPv4Protocol:
			out = append(out, discoveryv1.AddressTypeIPv4)
		case corev1.IPv6Protocol:
			out = append(out, discoveryv1.AddressTypeIPv6)
		}
	}
	return out
}

// groupsOf sorts the endpoints of one family by the port numbers that svc's
// ports have on them: a named port may differ from pod to pod.
func groupsOf(svc *corev1.Service, pods []*corev1.Pod, family discoveryv1.AddressType, zoneOf func(string) string) []endpointset.Group {
	var groups []endpointset.Group
	index := map[string]int{}
	for _, pod := range pods {
		address := endpointset.AddressOf(pod, family == discoveryv1.AddressTypeIPv6)
		if address == "" || podset.Finished(pod) {
			continue
		}
		ports := portsOf(svc, pod)
		if len(ports) == 0 && len(svc.Spec.Ports) > 0 {
			continue
		}
		key := portsKey(ports)
		i, ok := index[key]
		if !ok {
			i = len(groups)
			index[key] = i
			groups = append(groups, endpointset.Group{AddressType: family, Ports: ports})
		}
		groups[i].Endpoints = append(groups[i].Endpoints, endpointOf(svc, pod, address, zoneOf))
	}
	if len(groups) == 0 {
		return []endpointset.Group{{AddressType: family, Ports: []discoveryv1.EndpointPort{}}}
	}
	return groups
}

func portsOf(svc *corev1.Service, pod *corev1.Pod) []discoveryv1.EndpointPort {
	ports := make([]discoveryv1.EndpointPort, 0, len(svc.Spec.Ports))
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		n, ok := endpointset.ResolvePort(pod, p)
		if !ok {
			continue
		}
		name, protocol := p.Name, p.Protocol
		ports = append(ports, discoveryv1.EndpointPort{Name: &name, Port: &n, Protocol: &protocol, AppProtocol: p.AppProtocol})
	}
	return ports
}

// portsKey tells port lists of one Service apart: names and protocols are the
// Service's, only numbers and absence differ.
func portsKey(ports []discoveryv1.EndpointPort) string {
	var key []byte
	for _, p := range ports {
		key = append(key, *p.Name...)
		key = append(key, byte(*p.Port>>24), byte(*p.Port>>16), byte(*p.Port>>8), byte(*p.Port), 0)
	}
	return string(key)
}

func endpointOf(svc *corev1.Service, pod *corev1.Pod, address string, zoneOf func(string) string) discoveryv1.Endpoint {
	serving, terminating := podset.Ready(pod), pod.DeletionTimestamp != nil
	ready := svc.Spec.PublishNotReadyAddresses || (serving && !terminating)
	e := discoveryv1.Endpoint{
		Addresses:  []string{address},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}
	if pod.Spec.NodeName != "" {
		node := pod.Spec.NodeName
		e.NodeName = &node
		if zone := zoneOf(node); zone != "" {
			e.Zone = &zone
		}
	}
	if pod.Spec.Hostname != "" && pod.Spec.Subdomain == svc.Name {
		host := pod.Spec.Hostname
		e.Hostname = &host
	}
	e.Hints = hintsOf(svc, e)
	return e
}

// hintsOf says where e is preferred, when svc asks for nearness.
func hintsOf(svc *corev1.Service, e discoveryv1.Endpoint) *discoveryv1.EndpointHints {
	d := svc.Spec.TrafficDistribution
	if d == nil || !*e.Conditions.Ready {
		return nil
	}
	var h discoveryv1.EndpointHints
	if e.Zone != nil {
		h.ForZones = []discoveryv1.ForZone{{Name: *e.Zone}}
	}
	switch *d {
	case corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferClose:
	case corev1.ServiceTrafficDistributionPreferSameNode:
		if e.NodeName != nil {
			h.ForNodes = []discoveryv1.ForNode{{Name: *e.NodeName}}
		}
	default:
		return nil
	}
	if len(h.ForZones)+len(h.ForNodes) == 0 {
		return nil
	}
	return &h
}

func metaOf(svc *corev1.Service, trigger string) endpointset.Meta {
	labels := maps.Clone(svc.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	delete(labels, corev1.IsHeadlessService)
	if endpointset.Headless(svc) {
		labels[corev1.IsHeadlessService] = ""
	}
	labels[discoveryv1.LabelServiceName] = svc.Name
	labels[discoveryv1.LabelManagedBy] = Manager
	return endpointset.Meta{
		Namespace:    svc.Namespace,
		GenerateName: svc.Name + "-",
		Labels:       labels,
		Owner:        *metav1.NewControllerRef(svc, corev1.SchemeGroupVersion.WithKind("Service")),
		TriggerTime:  trigger,
	}
}
