package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"

	"coracle/pkg/registry"
)

// endpoint finds where a port of a Service answers. The control plane need not
// be on the network of Services, so it goes to an endpoint itself.
func (cp *ControlPlane) endpoint(ctx context.Context, namespace, name string, port int32) (string, error) {
	obj, err := cachedObjects{cp}.Get(ctx, corev1.SchemeGroupVersion.WithResource("services"), namespace, name)
	if err != nil {
		return "", err
	}
	svc := obj.(*corev1.Service)
	portName, known := "", false
	for _, p := range svc.Spec.Ports {
		if p.Port == port {
			portName, known = p.Name, true
		}
	}
	if !known {
		return "", fmt.Errorf("the Service has no port %d", port)
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return net.JoinHostPort(svc.Spec.ExternalName, strconv.Itoa(int(port))), nil
	}
	res := cp.resource(discoveryv1.SchemeGroupVersion.WithResource("endpointslices"))
	page, err := cp.registry.List(ctx, registry.Request{Resource: res, Namespace: namespace}, registry.ListOptions{
		Version: "0", Labels: labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: name}),
	})
	if err != nil {
		return "", err
	}
	for _, o := range page.Items {
		obj, err := registry.Shared(res, o)
		if err != nil {
			return "", err
		}
		if address := readyAddress(obj.(*discoveryv1.EndpointSlice), portName); address != "" {
			return address, nil
		}
	}
	return "", errors.New("the Service has no endpoint that is ready")
}

// readyAddress is the first ready endpoint of a slice at the port of the name.
func readyAddress(slice *discoveryv1.EndpointSlice, portName string) string {
	for _, p := range slice.Ports {
		if p.Port == nil || (p.Name == nil && portName != "") || (p.Name != nil && *p.Name != portName) {
			continue
		}
		for _, e := range slice.Endpoints {
			if (e.Conditions.Ready == nil || *e.Conditions.Ready) && len(e.Addresses) > 0 {
				return net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port)))
			}
		}
	}
	return ""
}
