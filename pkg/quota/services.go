package quota

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// services measures Services: their number, that of their node ports and of
// load balancers.
type services struct{}

var countServices = CountName(schema.GroupResource{Resource: "services"})

func (services) Tracks(name corev1.ResourceName) bool {
	switch name {
	case countServices, corev1.ResourceServices, corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers:
		return true
	}
	return false
}

// Handles: an update may change the type.
func (services) Handles(subresource string, _, _ runtime.Object) bool { return subresource == "" }

func (services) Usage(obj runtime.Object, _ time.Time) corev1.ResourceList {
	svc := obj.(*corev1.Service)
	nodePorts, balancers := 0, 0
	switch svc.Spec.Type {
	case corev1.ServiceTypeNodePort:
		nodePorts = len(svc.Spec.Ports)
	case corev1.ServiceTypeLoadBalancer:
		balancers = 1
		// Ports that will be allocated have no number yet: the intent counts.
		allocated := svc.Spec.AllocateLoadBalancerNodePorts == nil || *svc.Spec.AllocateLoadBalancerNodePorts
		for i := range svc.Spec.Ports {
			if allocated || svc.Spec.Ports[i].NodePort != 0 {
				nodePorts++
			}
		}
	}
	return corev1.ResourceList{
		countServices: number(1), corev1.ResourceServices: number(1),
		corev1.ResourceServicesNodePorts: number(nodePorts), corev1.ResourceServicesLoadBalancers: number(balancers),
	}
}

func (services) InScope(corev1.ScopedResourceSelectorRequirement, runtime.Object) bool { return false }

func (services) Missing([]corev1.ResourceName, runtime.Object) string { return "" }
