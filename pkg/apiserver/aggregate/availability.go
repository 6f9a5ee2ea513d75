package aggregate

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// defaultPort is that of a Service reference which names none.
const defaultPort = 443

// surroundings are what is known of the Service that an APIService names.
type surroundings struct {
	service    *corev1.Service
	serviceErr error // why it could not be read
	slices     []*discoveryv1.EndpointSlice
	slicesErr  error
}

func portOf(ref *apiregistrationv1.ServiceReference) int32 {
	if ref.Port == nil {
		return defaultPort
	}
	return *ref.Port
}

// reachable says whether a backend could be there: false with the condition that
// tells why not.
func reachable(ref *apiregistrationv1.ServiceReference, s surroundings) (apiregistrationv1.APIServiceCondition, bool) {
	no := func(status apiregistrationv1.ConditionStatus, reason, format string, args ...any) (apiregistrationv1.APIServiceCondition, bool) {
		return apiregistrationv1.APIServiceCondition{
			Type: apiregistrationv1.Available, Status: status, Reason: reason, Message: fmt.Sprintf(format, args...)}, false
	}
	switch {
	case apierrors.IsNotFound(s.serviceErr):
		return no(apiregistrationv1.ConditionFalse, "ServiceNotFound", "service/%s in %q is not present", ref.Name, ref.Namespace)
	case s.serviceErr != nil:
		return no(apiregistrationv1.ConditionUnknown, "ServiceAccessError", "service/%s in %q cannot be checked due to: %v", ref.Name, ref.Namespace, s.serviceErr)
	case s.service.Spec.Type == corev1.ServiceTypeExternalName:
		return apiregistrationv1.APIServiceCondition{}, true
	}
	at := slices.IndexFunc(s.service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == portOf(ref) })
	if at < 0 {
		return no(apiregistrationv1.ConditionFalse, "ServicePortError", "service/%s in %q is not listening on port %d", ref.Name, ref.Namespace, portOf(ref))
	}
	name := s.service.Spec.Ports[at].Name
	switch {
	case s.slicesErr != nil:
		return no(apiregistrationv1.ConditionUnknown, "EndpointsAccessError", "service/%s in %q cannot be checked due to: %v", ref.Name, ref.Namespace, s.slicesErr)
	case len(s.slices) == 0:
		return no(apiregistrationv1.ConditionFalse, "EndpointsNotFound", "cannot find endpointslices for service/%s in %q", ref.Name, ref.Namespace)
	case !slices.ContainsFunc(s.slices, func(slice *discoveryv1.EndpointSlice) bool { return ready(slice, name) }):
		return no(apiregistrationv1.ConditionFalse, "MissingEndpoints", "endpointslices for service/%s in %q have no addresses with port name %q", ref.Name, ref.Namespace, name)
	}
	return apiregistrationv1.APIServiceCondition{}, true
}

// ready says that a slice has a ready endpoint with the port of the name.
func ready(s *discoveryv1.EndpointSlice, port string) bool {
	return slices.ContainsFunc(s.Ports, func(p discoveryv1.EndpointPort) bool {
		return p.Port != nil && (p.Name == nil && port == "" || p.Name != nil && *p.Name == port)
	}) && slices.ContainsFunc(s.Endpoints, func(e discoveryv1.Endpoint) bool {
		return len(e.Addresses) > 0 && (e.Conditions.Ready == nil || *e.Conditions.Ready)
	})
}

// verdict is the condition of a backend that was asked for its discovery.
func verdict(answer error) apiregistrationv1.APIServiceCondition {
	if answer != nil {
		return apiregistrationv1.APIServiceCondition{Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionFalse,
			Reason: "FailedDiscoveryCheck", Message: answer.Error()}
	}
	return apiregistrationv1.APIServiceCondition{Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue,
		Reason: "Passed", Message: "all checks passed"}
}

// sameCondition leaves the time of the transition aside, which others set.
func sameCondition(stored *apiregistrationv1.APIServiceCondition, c apiregistrationv1.APIServiceCondition) bool {
	return stored != nil && stored.Status == c.Status && stored.Reason == c.Reason && stored.Message == c.Message
}
