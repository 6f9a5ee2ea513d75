package resource

import (
	"time"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// workloads and podGroups have no stable version yet; this is their newest.

func workloads() *Resource {
	return define(Resource{
		Group: schedulingv1beta1.GroupName, Version: "v1beta1", Kind: "Workload", Plural: "workloads",
		Namespaced: true,
		New:        func() runtime.Object { return &schedulingv1beta1.Workload{} },
		NewList:    func() runtime.Object { return &schedulingv1beta1.WorkloadList{} },
		Columns:    columns("Name", "Age"),
	}, hooks[*schedulingv1beta1.Workload]{
		Validate:       validateWorkload,
		ValidateUpdate: validateWorkloadUpdate,
		Row: func(w *schedulingv1beta1.Workload, now time.Time) []any {
			return []any{w.Name, age(w.CreationTimestamp, now)}
		},
	})
}

func podGroups() *Resource {
	return define(Resource{
		Group: schedulingv1beta1.GroupName, Version: "v1beta1", Kind: "PodGroup", Plural: "podgroups",
		Namespaced: true,
		HasStatus:  true,
		New:        func() runtime.Object { return &schedulingv1beta1.PodGroup{} },
		NewList:    func() runtime.Object { return &schedulingv1beta1.PodGroupList{} },
		Columns:    columns("Name", "Age"),
	}, hooks[*schedulingv1beta1.PodGroup]{
		Default: func(g *schedulingv1beta1.PodGroup) {
			if g.Spec.DisruptionMode == nil {
				g.Spec.DisruptionMode = &schedulingv1beta1.DisruptionMode{Single: &schedulingv1beta1.SingleDisruptionMode{}}
			}
		},
		Validate:       validatePodGroup,
		ValidateUpdate: validatePodGroupUpdate,
		ValidateStatus: func(g, _ *schedulingv1beta1.PodGroup) field.ErrorList { return checkPodGroupStatus(g) },
		Row: func(g *schedulingv1beta1.PodGroup, now time.Time) []any {
			return []any{g.Name, age(g.CreationTimestamp, now)}
		},
	})
}
