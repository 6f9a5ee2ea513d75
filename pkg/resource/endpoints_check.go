package resource

//lint:file-ignore SA1019 Endpoints are deprecated for clients; a server serves them all the same.

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateEndpoints(e *corev1.Endpoints) field.ErrorList {
	var errs field.ErrorList
	for i := range e.Subsets {
		s, p := &e.Subsets[i], field.NewPath("subsets").Index(i)
		if len(s.Addresses) == 0 && len(s.NotReadyAddresses) == 0 {
			errs = append(errs, field.Required(p, "must specify `addresses` or `notReadyAddresses`"))
		}
		for j := range s.Addresses {
			errs = append(errs, checkEndpointAddress(p.Child("addresses").Index(j), &s.Addresses[j])...)
		}
		for j := range s.NotReadyAddresses {
			errs = append(errs, checkEndpointAddress(p.Child("notReadyAddresses").Index(j), &s.NotReadyAddresses[j])...)
		}
		for j := range s.Ports {
			port, pp := &s.Ports[j], p.Child("ports").Index(j)
			if port.Name != "" {
				errs = append(errs, invalid(pp.Child("name"), port.Name, validation.IsDNS1123Label(port.Name))...)
			} else if len(s.Ports) > 1 {
				errs = append(errs, field.Required(pp.Child("name"), ""))
			}
			errs = append(errs, checkPortNumber(pp.Child("port"), port.Port)...)
			errs = append(errs, checkProtocol(pp.Child("protocol"), port.Protocol)...)
			if port.AppProtocol != nil {
				errs = append(errs, invalid(pp.Child("appProtocol"), *port.AppProtocol, validation.IsQualifiedName(*port.AppProtocol))...)
			}
		}
	}
	return errs
}

func checkEndpointAddress(path *field.Path, a *corev1.EndpointAddress) field.ErrorList {
	errs := checkDestination(path.Child("ip"), a.IP)
	if a.Hostname != "" {
		errs = append(errs, invalid(path.Child("hostname"), a.Hostname, validation.IsDNS1123Label(a.Hostname))...)
	}
	if a.NodeName != nil {
		errs = append(errs, invalid(path.Child("nodeName"), *a.NodeName, validation.IsDNS1123Subdomain(*a.NodeName))...)
	}
	return errs
}
