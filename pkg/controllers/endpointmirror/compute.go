//lint:file-ignore SA1019 Endpoints are deprecated, and serving those who still use them is what this package is for.

package endpointmirror

import (
	"maps"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"coracle/pkg/controllers/endpointset"
)

const (
	// limit is how many endpoints one slice holds.
	limit = 1000
	// subsetLimit is how many addresses of a subset are mirrored.
	subsetLimit = 1000
)

// mirrored reports whether the Endpoints of svc are to be mirrored: somebody
// else than a controller writes them, and has not asked to be left alone.
func mirrored(svc *corev1.Service, e *corev1.Endpoints) bool {
	if svc == nil || e == nil || e.DeletionTimestamp != nil || svc.Spec.Selector != nil || svc.Spec.Type == corev1.ServiceTypeExternalName {
		return false
	}
	if e.Namespace == metav1.NamespaceDefault && e.Name == "kubernetes" {
		return false // the API server writes both kinds itself
	}
	if _, leader := e.Annotations[resourcelock.LeaderElectionRecordAnnotationKey]; leader {
		return false
	}
	return e.Labels[discoveryv1.LabelSkipMirror] != "true"
}

// compute decides how the slices that mirror e change.
func compute(e *corev1.Endpoints, have []*discoveryv1.EndpointSlice) endpointset.Changes {
	var groups []endpointset.Group
	for i := range e.Subsets {
		for _, family := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
			if g := groupOf(&e.Subsets[i], family); len(g.Endpoints) > 0 {
				groups = add(groups, g)
			}
		}
	}
	return endpointset.Pack(have, groups, metaOf(e), limit)
}

// add appends g, or merges it into a group that could share its slices.
func add(groups []endpointset.Group, g endpointset.Group) []endpointset.Group {
	for i := range groups {
		if groups[i].Same(g) {
			groups[i].Endpoints = append(groups[i].Endpoints, g.Endpoints...)
			return groups
		}
	}
	return append(groups, g)
}

func groupOf(s *corev1.EndpointSubset, family discoveryv1.AddressType) endpointset.Group {
	g := endpointset.Group{AddressType: family, Ports: []discoveryv1.EndpointPort{}}
	for i := range s.Ports {
		p := s.Ports[i]
		g.Ports = append(g.Ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &p.Port, Protocol: &p.Protocol, AppProtocol: p.AppProtocol})
	}
	count := 0
	take := func(addresses []corev1.EndpointAddress, ready bool) {
		for i := range addresses {
			ip, err := netip.ParseAddr(addresses[i].IP)
			if err != nil || ip.Is6() != (family == discoveryv1.AddressTypeIPv6) || count == subsetLimit {
				continue
			}
			count++
			g.Endpoints = append(g.Endpoints, endpointOf(&addresses[i], ready))
		}
	}
	take(s.Addresses, true)
	take(s.NotReadyAddresses, false)
	return g
}

func endpointOf(a *corev1.EndpointAddress, ready bool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{
		Addresses:  []string{a.IP},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		TargetRef:  a.TargetRef.DeepCopy(),
	}
	if a.NodeName != nil {
		node := *a.NodeName
		e.NodeName = &node
	}
	if a.Hostname != "" {
		host := a.Hostname
		e.Hostname = &host
	}
	return e
}

func metaOf(e *corev1.Endpoints) endpointset.Meta {
	labels := maps.Clone(e.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[discoveryv1.LabelServiceName] = e.Name
	labels[discoveryv1.LabelManagedBy] = Manager
	annotations := maps.Clone(e.Annotations)
	delete(annotations, corev1.LastAppliedConfigAnnotation)
	trigger := annotations[corev1.EndpointsLastChangeTriggerTime]
	delete(annotations, corev1.EndpointsLastChangeTriggerTime)
	return endpointset.Meta{
		Namespace:    e.Namespace,
		GenerateName: e.Name + "-",
		Labels:       labels,
		Annotations:  annotations,
		Owner:        *metav1.NewControllerRef(e, corev1.SchemeGroupVersion.WithKind("Endpoints")),
		TriggerTime:  trigger,
	}
}
