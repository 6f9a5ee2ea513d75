//lint:file-ignore SA1019 Endpoints are deprecated, and serving those who still use them is what this package is for.

package endpoints

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/controllers/endpointset"
	"coracle/pkg/controllers/podset"
)

const (
	// limit is how many addresses one Endpoints object holds; the rest is
	// cut, ready ones last, and the object says so.
	limit = 1000
	// managedByLabel marks objects of this controller.
	managedByLabel = "endpoints.kubernetes.io/managed-by"
	manager        = "endpoint-controller"
)

// compute returns the Endpoints that svc should have, based on have (which may
// be nil), or nil when have is right already.
func compute(svc *corev1.Service, pods []*corev1.Pod, have *corev1.Endpoints, trigger string) *corev1.Endpoints {
	subsets, cut := subsetsOf(svc, pods)
	want := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: svc.Name, Namespace: svc.Namespace}}
	if have != nil {
		want = have.DeepCopy()
	}
	want.Subsets = subsets
	want.Labels = labelsOf(svc)
	if cut {
		metav1.SetMetaDataAnnotation(&want.ObjectMeta, corev1.EndpointsOverCapacity, "truncated")
	} else {
		delete(want.Annotations, corev1.EndpointsOverCapacity)
	}
	if have != nil && equality.Semantic.DeepEqual(have.Subsets, want.Subsets) &&
		maps.Equal(have.Labels, want.Labels) && maps.Equal(have.Annotations, want.Annotations) {
		return nil
	}
	if trigger != "" {
		metav1.SetMetaDataAnnotation(&want.ObjectMeta, corev1.EndpointsLastChangeTriggerTime, trigger)
	} else {
		delete(want.Annotations, corev1.EndpointsLastChangeTriggerTime)
	}
	return want
}

func labelsOf(svc *corev1.Service) map[string]string {
	labels := maps.Clone(svc.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	delete(labels, corev1.IsHeadlessService)
	if endpointset.Headless(svc) {
		labels[corev1.IsHeadlessService] = ""
	}
	labels[managedByLabel] = manager
	return labels
}

// subsetsOf groups the pods' addresses by the numbers svc's ports have on
// them. The result does not depend on the order of pods.
func subsetsOf(svc *corev1.Service, pods []*corev1.Pod) (subsets []corev1.EndpointSubset, cut bool) {
	v6 := len(svc.Spec.IPFamilies) > 0 && svc.Spec.IPFamilies[0] == corev1.IPv6Protocol
	pods, cut = shown(svc, pods, v6)
	byPorts := map[string]*corev1.EndpointSubset{}
	for _, pod := range pods {
		ports := portsOf(svc, pod)
		if len(ports) == 0 && len(svc.Spec.Ports) > 0 {
			continue
		}
		key := fmt.Sprint(ports)
		s := byPorts[key]
		if s == nil {
			s = &corev1.EndpointSubset{Ports: ports}
			byPorts[key] = s
		}
		address := addressOf(svc, pod, v6)
		if svc.Spec.PublishNotReadyAddresses || podset.Ready(pod) {
			s.Addresses = append(s.Addresses, address)
		} else {
			s.NotReadyAddresses = append(s.NotReadyAddresses, address)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(byPorts)) {
		s := byPorts[key]
		slices.SortFunc(s.Addresses, byIP)
		slices.SortFunc(s.NotReadyAddresses, byIP)
		subsets = append(subsets, *s)
	}
	return subsets, cut
}

// shown returns the pods that have a place in the object, ready ones first
// when there are too many.
func shown(svc *corev1.Service, pods []*corev1.Pod, v6 bool) ([]*corev1.Pod, bool) {
	var out []*corev1.Pod
	for _, p := range pods {
		terminating := p.DeletionTimestamp != nil && !svc.Spec.PublishNotReadyAddresses
		if !terminating && !podset.Finished(p) && endpointset.AddressOf(p, v6) != "" {
			out = append(out, p)
		}
	}
	if len(out) <= limit {
		return out, false
	}
	slices.SortFunc(out, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.Name, b.Name))
	})
	return out[:limit], true
}

func rank(p *corev1.Pod) int {
	if podset.Ready(p) {
		return 0
	}
	return 1
}

func byIP(a, b corev1.EndpointAddress) int {
	return cmp.Or(strings.Compare(a.IP, b.IP), strings.Compare(a.TargetRef.Name, b.TargetRef.Name))
}

func portsOf(svc *corev1.Service, pod *corev1.Pod) []corev1.EndpointPort {
	var ports []corev1.EndpointPort
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if n, ok := endpointset.ResolvePort(pod, p); ok {
			ports = append(ports, corev1.EndpointPort{Name: p.Name, Port: n, Protocol: p.Protocol, AppProtocol: p.AppProtocol})
		}
	}
	return ports
}

func addressOf(svc *corev1.Service, pod *corev1.Pod, v6 bool) corev1.EndpointAddress {
	a := corev1.EndpointAddress{
		IP:        endpointset.AddressOf(pod, v6),
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}
	if pod.Spec.NodeName != "" {
		node := pod.Spec.NodeName
		a.NodeName = &node
	}
	if pod.Spec.Hostname != "" && pod.Spec.Subdomain == svc.Name {
		a.Hostname = pod.Spec.Hostname
	}
	return a
}
