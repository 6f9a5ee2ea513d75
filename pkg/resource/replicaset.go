package resource

import (
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func replicaSets() *Resource {
	return define(Resource{
		Group: "apps", Version: "v1", Kind: "ReplicaSet", Plural: "replicasets", ShortNames: []string{"rs"},
		Categories:          []string{"all"},
		Namespaced:          true,
		HasStatus:           true,
		HasGeneration:       true,
		UnconditionalUpdate: true,
		Subresources:        []Subresource{scaleSubresource()},
		New:                 func() runtime.Object { return &appsv1.ReplicaSet{} },
		NewList:             func() runtime.Object { return &appsv1.ReplicaSetList{} },
		FieldNames:          []string{"status.replicas"},
		FieldsRead:          []string{"status.replicas"},
		Columns: columns("Name", "Desired:integer", "Current:integer", "Ready:integer", "Age",
			"+Containers", "+Images", "+Selector"),
	}, hooks[*appsv1.ReplicaSet]{
		Default: func(rs *appsv1.ReplicaSet) {
			defaultPodTemplate(&rs.Spec.Template)
			defaultCount(&rs.Spec.Replicas, 1)
		},
		Validate:       validateReplicaSet,
		ValidateUpdate: validateReplicaSetUpdate,
		ValidateStatus: validateReplicaSetStatus,
		Warnings: func(obj, old *appsv1.ReplicaSet) []string {
			if old != nil && old.Generation == obj.Generation {
				return nil
			}
			return podSpecWarnings(field.NewPath("spec", "template", "spec"), &obj.Spec.Template.Spec)
		},
		Fields: func(rs *appsv1.ReplicaSet) map[string]string {
			return map[string]string{"status.replicas": strconv.Itoa(int(rs.Status.Replicas))}
		},
		Scale: func(rs *appsv1.ReplicaSet) *autoscalingv1.Scale {
			return makeScale(&rs.ObjectMeta, rs.Spec.Replicas, rs.Status.Replicas, rs.Spec.Selector)
		},
		SetScale: func(rs *appsv1.ReplicaSet, s *autoscalingv1.Scale) field.ErrorList {
			return takeScale(&rs.Spec.Replicas, s)
		},
		Row: func(rs *appsv1.ReplicaSet, now time.Time) []any {
			names, images := containerCells(rs.Spec.Template.Spec.Containers)
			return []any{
				rs.Name, int64(count(rs.Spec.Replicas, 0)), int64(rs.Status.Replicas), int64(rs.Status.ReadyReplicas),
				age(rs.CreationTimestamp, now), names, images, metav1.FormatLabelSelector(rs.Spec.Selector),
			}
		},
	})
}

// containerCells are the cells for names and images of a template.
func containerCells(containers []corev1.Container) (names, images string) {
	n, i := make([]string, len(containers)), make([]string, len(containers))
	for j := range containers {
		n[j], i[j] = containers[j].Name, containers[j].Image
	}
	return strings.Join(n, ","), strings.Join(i, ",")
}
