package endpointset

import (
	"maps"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/controllers/podset"
	"coracle/pkg/reconcile"
)

// Headless reports whether svc has no cluster address of its own.
func Headless(svc *corev1.Service) bool { return svc.Spec.ClusterIP == corev1.ClusterIPNone }

// Selects reports whether svc's endpoints are made from pods.
func Selects(svc *corev1.Service) bool {
	return len(svc.Spec.Selector) > 0 && svc.Spec.Type != corev1.ServiceTypeExternalName
}

// ServicesOf returns the Services in pod's namespace that select pod.
func ServicesOf(services cache.SharedIndexInformer, pod *corev1.Pod) []reconcile.Key {
	var keys []reconcile.Key
	for _, svc := range reconcile.Indexed[*corev1.Service](services, cache.NamespaceIndex, pod.Namespace) {
		if Selects(svc) && matches(svc.Spec.Selector, pod.Labels) {
			keys = append(keys, reconcile.KeyOf(svc))
		}
	}
	return keys
}

func matches(selector, have map[string]string) bool {
	for k, v := range selector {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// PodsOf returns the pods that svc selects.
func PodsOf(pods cache.SharedIndexInformer, svc *corev1.Service) []*corev1.Pod {
	selector := labels.SelectorFromValidatedSet(svc.Spec.Selector)
	var out []*corev1.Pod
	for _, p := range reconcile.Indexed[*corev1.Pod](pods, cache.NamespaceIndex, svc.Namespace) {
		if selector.Matches(labels.Set(p.Labels)) {
			out = append(out, p)
		}
	}
	return out
}

// PodHandler calls add with the Services whose endpoints an event of a pod
// changes, and with none when the event changes nothing that endpoints show.
func PodHandler(services cache.SharedIndexInformer, add func(reconcile.Key)) cache.ResourceEventHandler {
	queue := func(obj any) {
		if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = lost.Obj
		}
		if pod, ok := obj.(*corev1.Pod); ok {
			for _, key := range ServicesOf(services, pod) {
				add(key)
			}
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    queue,
		DeleteFunc: queue,
		UpdateFunc: func(old, obj any) {
			was, ok := old.(*corev1.Pod)
			is, ok2 := obj.(*corev1.Pod)
			if !ok || !ok2 {
				return
			}
			relabelled := !maps.Equal(was.Labels, is.Labels)
			if relabelled {
				queue(old)
			}
			if relabelled || shows(was) != shows(is) {
				queue(obj)
			}
		},
	}
}

// shown is everything of a pod that its endpoints depend on, except labels and
// container ports, which cannot change.
type shown struct {
	uid                       string
	ready, finished, deleting bool
	ips, node, host, domain   string
}

func shows(p *corev1.Pod) shown {
	s := shown{
		uid: string(p.UID), ready: podset.Ready(p), finished: podset.Finished(p), deleting: p.DeletionTimestamp != nil,
		node: p.Spec.NodeName, host: p.Spec.Hostname, domain: p.Spec.Subdomain,
	}
	for _, ip := range p.Status.PodIPs {
		s.ips += ip.IP + " "
	}
	return s
}

// ResolvePort finds the number of port on pod: its own, or that of the
// container port of this name and protocol.
func ResolvePort(pod *corev1.Pod, port *corev1.ServicePort) (int32, bool) {
	if port.TargetPort.Type == intstr.Int {
		if port.TargetPort.IntVal == 0 {
			return port.Port, true
		}
		return port.TargetPort.IntVal, true
	}
	find := func(c *corev1.Container) (int32, bool) {
		for _, p := range c.Ports {
			if p.Name == port.TargetPort.StrVal && protocol(p.Protocol) == protocol(port.Protocol) {
				return p.ContainerPort, true
			}
		}
		return 0, false
	}
	for i := range pod.Spec.Containers {
		if n, ok := find(&pod.Spec.Containers[i]); ok {
			return n, true
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			if n, ok := find(c); ok {
				return n, true
			}
		}
	}
	return 0, false
}

func protocol(p corev1.Protocol) corev1.Protocol {
	if p == "" {
		return corev1.ProtocolTCP
	}
	return p
}

// AddressOf returns pod's address of the given family, or "".
func AddressOf(pod *corev1.Pod, v6 bool) string {
	ips := pod.Status.PodIPs
	if len(ips) == 0 && pod.Status.PodIP != "" {
		ips = []corev1.PodIP{{IP: pod.Status.PodIP}}
	}
	for _, ip := range ips {
		if a, err := netip.ParseAddr(ip.IP); err == nil && a.Is6() == v6 {
			return ip.IP
		}
	}
	return ""
}

// Causes remembers when the pods and the Service behind some endpoints last
// changed, to find the oldest cause that has not been published yet. The zero
// value has seen nothing. It is not safe for concurrent use.
type Causes struct {
	service time.Time
	pods    map[string]time.Time
}

// Next takes in the current state and returns the time of the oldest change
// since the last call as an annotation value, or "" if there was none.
func (c *Causes) Next(svc *corev1.Service, pods []*corev1.Pod) string {
	var oldest time.Time
	note := func(t time.Time) {
		if oldest.IsZero() || t.Before(oldest) {
			oldest = t
		}
	}
	if t := svc.CreationTimestamp.Time; t.After(c.service) {
		note(t)
		c.service = t
	}
	next := make(map[string]time.Time, len(pods))
	for _, p := range pods {
		ready := podset.Condition(p, corev1.PodReady)
		if ready == nil {
			continue
		}
		t := ready.LastTransitionTime.Time
		next[p.Name] = t
		if t.After(c.pods[p.Name]) {
			note(t)
		}
	}
	c.pods = next
	if oldest.IsZero() {
		return ""
	}
	return oldest.UTC().Format(time.RFC3339Nano)
}
