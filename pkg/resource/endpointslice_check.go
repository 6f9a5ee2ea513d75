package resource

import (
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxSliceEndpoints  = 1000
	maxSlicePorts      = 20000
	maxSliceAddresses  = 100
	maxSliceHints      = 8
	maxSliceTopologies = 16
)

func validateEndpointSlice(s *discoveryv1.EndpointSlice) field.ErrorList {
	errs := checkSet(field.NewPath("addressType"), s.AddressType,
		discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN)
	path := field.NewPath("endpoints")
	if len(s.Endpoints) > maxSliceEndpoints {
		errs = append(errs, field.TooMany(path, len(s.Endpoints), maxSliceEndpoints))
	}
	for i := range s.Endpoints {
		errs = append(errs, checkEndpoint(path.Index(i), &s.Endpoints[i], s.AddressType)...)
	}
	return append(errs, checkSlicePorts(field.NewPath("ports"), s.Ports)...)
}

func checkEndpoint(path *field.Path, e *discoveryv1.Endpoint, t discoveryv1.AddressType) field.ErrorList {
	var errs field.ErrorList
	p := path.Child("addresses")
	switch n := len(e.Addresses); {
	case n == 0:
		errs = append(errs, field.Required(p, "must contain at least 1 address"))
	case n > maxSliceAddresses:
		errs = append(errs, field.TooMany(p, n, maxSliceAddresses))
	}
	for i, a := range e.Addresses {
		switch t {
		case discoveryv1.AddressTypeFQDN:
			errs = append(errs, invalid(p.Index(i), a, validation.IsDNS1123Subdomain(a))...)
		case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6:
			errs = append(errs, checkDestination(p.Index(i), a)...)
			if isIPv6(a) && t == discoveryv1.AddressTypeIPv4 {
				errs = append(errs, field.Invalid(p.Index(i), a, "must be an IPv4 address"))
			} else if !isIPv6(a) && t == discoveryv1.AddressTypeIPv6 {
				errs = append(errs, field.Invalid(p.Index(i), a, "must be an IPv6 address"))
			}
		}
	}
	if e.NodeName != nil {
		errs = append(errs, invalid(path.Child("nodeName"), *e.NodeName, validation.IsDNS1123Subdomain(*e.NodeName))...)
	}
	if n := len(e.DeprecatedTopology); n > maxSliceTopologies {
		errs = append(errs, field.TooMany(path.Child("deprecatedTopology"), n, maxSliceTopologies))
	}
	errs = append(errs, metav1validation.ValidateLabels(e.DeprecatedTopology, path.Child("deprecatedTopology"))...)
	if e.Hostname != nil {
		errs = append(errs, invalid(path.Child("hostname"), *e.Hostname, validation.IsDNS1123Label(*e.Hostname))...)
	}
	if e.Hints != nil {
		errs = append(errs, checkHints(path.Child("hints"), e.Hints)...)
	}
	return errs
}

func checkHints(path *field.Path, h *discoveryv1.EndpointHints) field.ErrorList {
	var errs field.ErrorList
	p, seen := path.Child("forZones"), map[string]bool{}
	if len(h.ForZones) > maxSliceHints {
		return field.ErrorList{field.TooMany(p, len(h.ForZones), maxSliceHints)}
	}
	for i, z := range h.ForZones {
		zp := p.Index(i).Child("name")
		if seen[z.Name] {
			errs = append(errs, field.Duplicate(zp, z.Name))
		}
		seen[z.Name] = true
		errs = append(errs, invalid(zp, z.Name, validation.IsValidLabelValue(z.Name))...)
	}
	p = path.Child("forNodes")
	if len(h.ForNodes) > maxSliceHints {
		errs = append(errs, field.TooMany(p, len(h.ForNodes), maxSliceHints))
	}
	seen = map[string]bool{}
	for i, n := range h.ForNodes {
		if seen[n.Name] {
			errs = append(errs, field.Duplicate(p.Index(i).Child("name"), n.Name))
		}
		seen[n.Name] = true
		errs = append(errs, invalid(p.Index(i).Child("name"), n.Name, validation.IsDNS1123Subdomain(n.Name))...)
	}
	return errs
}

func checkSlicePorts(path *field.Path, ports []discoveryv1.EndpointPort) field.ErrorList {
	if len(ports) > maxSlicePorts {
		return field.ErrorList{field.TooMany(path, len(ports), maxSlicePorts)}
	}
	var errs field.ErrorList
	names := map[string]bool{}
	for i := range ports {
		port, p := &ports[i], path.Index(i)
		if port.Name == nil {
			errs = append(errs, field.Required(p.Child("name"), ""))
		} else {
			if *port.Name != "" {
				errs = append(errs, invalid(p.Child("name"), *port.Name, validation.IsDNS1123Label(*port.Name))...)
			}
			if names[*port.Name] {
				errs = append(errs, field.Duplicate(p.Child("name"), *port.Name))
			}
			names[*port.Name] = true
		}
		if port.Protocol == nil {
			errs = append(errs, field.Required(p.Child("protocol"), ""))
		} else {
			errs = append(errs, checkProtocol(p.Child("protocol"), *port.Protocol)...)
		}
		if port.Port != nil {
			errs = append(errs, checkPortNumber(p.Child("port"), *port.Port)...)
		}
		if port.AppProtocol != nil {
			errs = append(errs, invalid(p.Child("appProtocol"), *port.AppProtocol, validation.IsQualifiedName(*port.AppProtocol))...)
		}
	}
	return errs
}
