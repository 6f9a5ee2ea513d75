//lint:file-ignore SA1019 ComponentStatus is deprecated for clients; a server serves it all the same.

package resource

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// componentStatuses tell of the parts of the control plane. They are computed
// for each request.
func componentStatuses() *Resource {
	return define(Resource{
		Version: "v1", Kind: "ComponentStatus", Plural: "componentstatuses", ShortNames: []string{"cs"},
		Verbs:      []string{"get", "list"},
		Computed:   true,
		Deprecated: "v1 ComponentStatus is deprecated in v1.19+",
		New:        func() runtime.Object { return &corev1.ComponentStatus{} },
		NewList:    func() runtime.Object { return &corev1.ComponentStatusList{} },
		Columns:    columns("Name", "Status", "Message", "Error"),
	}, hooks[*corev1.ComponentStatus]{
		Row: func(cs *corev1.ComponentStatus, _ time.Time) []any {
			status, message, failure := "Unknown", "", ""
			for _, c := range cs.Conditions {
				if c.Type != corev1.ComponentHealthy {
					continue
				}
				status, message, failure = "Unhealthy", c.Message, c.Error
				if c.Status == corev1.ConditionTrue {
					status = "Healthy"
				}
			}
			return []any{cs.Name, status, message, failure}
		},
	})
}
