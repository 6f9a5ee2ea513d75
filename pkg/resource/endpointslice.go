package resource

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func endpointSlices() *Resource {
	return define(Resource{
		Group: "discovery.k8s.io", Version: "v1", Kind: "EndpointSlice", Plural: "endpointslices",
		Namespaced:          true,
		UnconditionalUpdate: true,
		New:                 func() runtime.Object { return &discoveryv1.EndpointSlice{} },
		NewList:             func() runtime.Object { return &discoveryv1.EndpointSliceList{} },
		Columns:             columns("Name", "AddressType", "Ports", "Endpoints", "Age"),
	}, hooks[*discoveryv1.EndpointSlice]{
		Default: func(s *discoveryv1.EndpointSlice) {
			for i := range s.Ports {
				if s.Ports[i].Name == nil {
					s.Ports[i].Name = new("")
				}
				if s.Ports[i].Protocol == nil {
					s.Ports[i].Protocol = new(corev1.ProtocolTCP)
				}
			}
		},
		Prepare:  prepareEndpointSlice,
		Validate: validateEndpointSlice,
		ValidateUpdate: func(s, old *discoveryv1.EndpointSlice) field.ErrorList {
			return checkImmutable(field.NewPath("addressType"), s.AddressType, old.AddressType)
		},
		Row: func(s *discoveryv1.EndpointSlice, now time.Time) []any {
			return []any{s.Name, string(s.AddressType), slicePorts(s.Ports), sliceEndpoints(s.Endpoints), age(s.CreationTimestamp, now)}
		},
	})
}

// prepareEndpointSlice counts generations itself: the type has no spec.
func prepareEndpointSlice(s, old *discoveryv1.EndpointSlice) {
	if old == nil {
		s.Generation = 1
		return
	}
	s.Generation = old.Generation
	if s.AddressType != old.AddressType || !equality.Semantic.DeepEqual(s.Endpoints, old.Endpoints) ||
		!equality.Semantic.DeepEqual(s.Ports, old.Ports) || !equality.Semantic.DeepEqual(s.Labels, old.Labels) {
		s.Generation++
	}
}

func slicePorts(ports []discoveryv1.EndpointPort) string {
	var list []string
	for i := range ports[:min(len(ports), shownEndpoints)] {
		switch p := &ports[i]; {
		case p.Port != nil:
			list = append(list, strconv.Itoa(int(*p.Port)))
		case p.Name != nil && *p.Name != "":
			list = append(list, *p.Name)
		default:
			list = append(list, "*")
		}
	}
	return orUnset(withMore(list, len(ports)))
}

func sliceEndpoints(eps []discoveryv1.Endpoint) string {
	var list []string
	total := 0
	for i := range eps {
		for _, a := range eps[i].Addresses {
			if total++; total <= shownEndpoints {
				list = append(list, a)
			}
		}
	}
	return orUnset(withMore(list, total))
}

func orUnset(s string) string {
	if s == "" {
		return "<unset>"
	}
	return s
}
