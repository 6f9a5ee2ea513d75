//lint:file-ignore SA1019 Endpoints are deprecated for clients; a server serves them all the same.

package resource

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// shownEndpoints is how many addresses a table's cell shows.
const shownEndpoints = 3

func endpoints() *Resource {
	return define(Resource{
		Version: "v1", Kind: "Endpoints", Plural: "endpoints", ShortNames: []string{"ep"},
		Namespaced:          true,
		StoragePath:         "services/endpoints",
		AllowCreateOnUpdate: true,
		UnconditionalUpdate: true,
		Deprecated:          "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
		New:                 func() runtime.Object { return &corev1.Endpoints{} },
		NewList:             func() runtime.Object { return &corev1.EndpointsList{} },
		Columns:             columns("Name", "Endpoints", "Age"),
	}, hooks[*corev1.Endpoints]{
		Default: func(e *corev1.Endpoints) {
			for i := range e.Subsets {
				for j := range e.Subsets[i].Ports {
					if p := &e.Subsets[i].Ports[j]; p.Protocol == "" {
						p.Protocol = corev1.ProtocolTCP
					}
				}
			}
		},
		Validate: validateEndpoints,
		Row: func(e *corev1.Endpoints, now time.Time) []any {
			return []any{e.Name, endpointsText(e.Subsets), age(e.CreationTimestamp, now)}
		},
	})
}

func endpointsText(subsets []corev1.EndpointSubset) string {
	var list []string
	total := 0
	add := func(s string) {
		if total++; total <= shownEndpoints {
			list = append(list, s)
		}
	}
	for i := range subsets {
		for j := range subsets[i].Addresses {
			ip := subsets[i].Addresses[j].IP
			if len(subsets[i].Ports) == 0 {
				add(ip)
			}
			for _, p := range subsets[i].Ports {
				add(net.JoinHostPort(ip, strconv.Itoa(int(p.Port))))
			}
		}
	}
	return orNone(withMore(list, total))
}

// withMore joins the shown ones of total entries and says how many are left.
func withMore(shown []string, total int) string {
	text := strings.Join(shown, ",")
	if total > len(shown) {
		text += fmt.Sprintf(" + %d more...", total-len(shown))
	}
	return text
}
