package resource

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func deployments() *Resource {
	return define(Resource{
		Group: "apps", Version: "v1", Kind: "Deployment", Plural: "deployments", ShortNames: []string{"deploy"},
		Categories:          []string{"all"},
		Namespaced:          true,
		HasStatus:           true,
		HasGeneration:       true,
		UnconditionalUpdate: true,
		Subresources:        []Subresource{scaleSubresource()},
		New:                 func() runtime.Object { return &appsv1.Deployment{} },
		NewList:             func() runtime.Object { return &appsv1.DeploymentList{} },
		Columns: columns("Name", "Ready", "Up-to-date:integer", "Available:integer", "Age",
			"+Containers", "+Images", "+Selector"),
	}, hooks[*appsv1.Deployment]{
		Default: defaultDeployment,
		Prepare: func(d, old *appsv1.Deployment) {
			// Annotations count as well: the controller copies them to the
			// replica sets. Only one step is taken for both.
			if old != nil && d.Generation == old.Generation && !equality.Semantic.DeepEqual(d.Annotations, old.Annotations) {
				d.Generation++
			}
		},
		Validate:       validateDeployment,
		ValidateUpdate: validateDeploymentUpdate,
		ValidateStatus: validateDeploymentStatus,
		Warnings: func(obj, old *appsv1.Deployment) []string {
			if old != nil && old.Generation == obj.Generation {
				return nil
			}
			return podSpecWarnings(field.NewPath("spec", "template", "spec"), &obj.Spec.Template.Spec)
		},
		Scale: func(d *appsv1.Deployment) *autoscalingv1.Scale {
			return makeScale(&d.ObjectMeta, d.Spec.Replicas, d.Status.Replicas, d.Spec.Selector)
		},
		SetScale: func(d *appsv1.Deployment, s *autoscalingv1.Scale) field.ErrorList {
			return takeScale(&d.Spec.Replicas, s)
		},
		Row: func(d *appsv1.Deployment, now time.Time) []any {
			names, images := containerCells(d.Spec.Template.Spec.Containers)
			return []any{
				d.Name, fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, count(d.Spec.Replicas, 0)),
				int64(d.Status.UpdatedReplicas), int64(d.Status.AvailableReplicas), age(d.CreationTimestamp, now),
				names, images, metav1.FormatLabelSelector(d.Spec.Selector),
			}
		},
	})
}

func defaultDeployment(d *appsv1.Deployment) {
	spec := &d.Spec
	defaultPodTemplate(&spec.Template)
	defaultCount(&spec.Replicas, 1)
	defaultCount(&spec.RevisionHistoryLimit, 10)
	defaultCount(&spec.ProgressDeadlineSeconds, 600)
	if spec.Strategy.Type == "" {
		spec.Strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
		return
	}
	if spec.Strategy.RollingUpdate == nil {
		spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{}
	}
	u := spec.Strategy.RollingUpdate
	if u.MaxUnavailable == nil {
		u.MaxUnavailable = new(intstr.FromString("25%"))
	}
	if u.MaxSurge == nil {
		u.MaxSurge = new(intstr.FromString("25%"))
	}
}

func defaultCount(n **int32, value int32) {
	if *n == nil {
		*n = &value
	}
}
