package podenv

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// serviceVars gives the variables that tell a pod of Services with a cluster
// address: those of its own namespace if it wants service links, and always
// default/kubernetes, unless its namespace has a Service of that name.
func serviceVars(pod *corev1.Pod, services []*corev1.Service) []*runtimeapi.KeyValue {
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	chosen := make(map[string]*corev1.Service)
	for _, svc := range services {
		if svc.Spec.ClusterIP == "" || svc.Spec.ClusterIP == corev1.ClusterIPNone || len(svc.Spec.Ports) == 0 {
			continue
		}
		switch {
		case links && svc.Namespace == pod.Namespace:
			chosen[svc.Name] = svc
		case svc.Namespace == metaDefault && svc.Name == "kubernetes" && chosen[svc.Name] == nil:
			chosen[svc.Name] = svc
		}
	}
	list := make([]*corev1.Service, 0, len(chosen))
	for _, svc := range chosen {
		list = append(list, svc)
	}
	slices.SortFunc(list, func(a, b *corev1.Service) int { return cmp.Compare(a.Name, b.Name) })
	var out []*runtimeapi.KeyValue
	for _, svc := range list {
		out = append(out, varsOfService(svc)...)
	}
	return out
}

// metaDefault is the namespace of the Service that stands for the API server.
const metaDefault = "default"

func varsOfService(svc *corev1.Service) []*runtimeapi.KeyValue {
	prefix := variableName(svc.Name)
	ip := svc.Spec.ClusterIP
	var out []*runtimeapi.KeyValue
	add := func(name, value string) {
		out = append(out, &runtimeapi.KeyValue{Key: prefix + name, Value: []byte(value)})
	}
	add("_SERVICE_HOST", ip)
	add("_SERVICE_PORT", strconv.Itoa(int(svc.Spec.Ports[0].Port)))
	for _, p := range svc.Spec.Ports {
		if p.Name != "" {
			add("_SERVICE_PORT_"+variableName(p.Name), strconv.Itoa(int(p.Port)))
		}
	}
	for i, p := range svc.Spec.Ports {
		protocol := string(p.Protocol)
		if protocol == "" {
			protocol = string(corev1.ProtocolTCP)
		}
		port := strconv.Itoa(int(p.Port))
		url := strings.ToLower(protocol) + "://" + net.JoinHostPort(ip, port)
		if i == 0 {
			add("_PORT", url)
		}
		one := "_PORT_" + port + "_" + strings.ToUpper(protocol)
		add(one, url)
		add(one+"_PROTO", strings.ToLower(protocol))
		add(one+"_PORT", port)
		add(one+"_ADDR", ip)
	}
	return out
}

func variableName(s string) string {
	return strings.ToUpper(strings.ReplaceAll(s, "-", "_"))
}
