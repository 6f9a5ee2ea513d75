package resource

import (
	"maps"
	"strconv"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func replicationControllers() *Resource {
	return define(Resource{
		Version: "v1", Kind: "ReplicationController", Plural: "replicationcontrollers", ShortNames: []string{"rc"},
		Categories:          []string{"all"},
		StoragePath:         "controllers",
		Namespaced:          true,
		HasStatus:           true,
		HasGeneration:       true,
		UnconditionalUpdate: true,
		Orphans:             true,
		Subresources:        []Subresource{scaleSubresource()},
		New:                 func() runtime.Object { return &corev1.ReplicationController{} },
		NewList:             func() runtime.Object { return &corev1.ReplicationControllerList{} },
		FieldNames:          []string{"status.replicas"},
		FieldsRead:          []string{"status.replicas"},
		Columns: columns("Name", "Desired:integer", "Current:integer", "Ready:integer", "Age",
			"+Containers", "+Images", "+Selector"),
	}, hooks[*corev1.ReplicationController]{
		Default:  defaultReplicationController,
		Validate: validateReplicationController,
		ValidateStatus: func(rc, _ *corev1.ReplicationController) field.ErrorList {
			s := &rc.Status
			return checkReplicaCounts(s.ObservedGeneration, s.Replicas, counts{
				"fullyLabeledReplicas": s.FullyLabeledReplicas, "readyReplicas": s.ReadyReplicas, "availableReplicas": s.AvailableReplicas,
			}, s.ReadyReplicas, s.AvailableReplicas)
		},
		Fields: func(rc *corev1.ReplicationController) map[string]string {
			return map[string]string{"status.replicas": strconv.Itoa(int(rc.Status.Replicas))}
		},
		Scale: func(rc *corev1.ReplicationController) *autoscalingv1.Scale {
			return makeScale(&rc.ObjectMeta, rc.Spec.Replicas, rc.Status.Replicas, &metav1.LabelSelector{MatchLabels: rc.Spec.Selector})
		},
		SetScale: func(rc *corev1.ReplicationController, s *autoscalingv1.Scale) field.ErrorList {
			return takeScale(&rc.Spec.Replicas, s)
		},
		Row: func(rc *corev1.ReplicationController, now time.Time) []any {
			names, images := "", ""
			if rc.Spec.Template != nil {
				names, images = containerCells(rc.Spec.Template.Spec.Containers)
			}
			return []any{
				rc.Name, int64(count(rc.Spec.Replicas, 0)), int64(rc.Status.Replicas), int64(rc.Status.ReadyReplicas),
				age(rc.CreationTimestamp, now), names, images, labels.FormatLabels(rc.Spec.Selector),
			}
		},
	})
}

// defaultReplicationController: of all owners of pods only this one may leave
// the selector to the template's labels.
func defaultReplicationController(rc *corev1.ReplicationController) {
	defaultCount(&rc.Spec.Replicas, 1)
	if rc.Spec.Template == nil {
		return
	}
	defaultPodTemplate(rc.Spec.Template)
	if l := rc.Spec.Template.Labels; l != nil {
		if len(rc.Spec.Selector) == 0 {
			rc.Spec.Selector = maps.Clone(l)
		}
		if len(rc.Labels) == 0 {
			rc.Labels = maps.Clone(l)
		}
	}
}

func validateReplicationController(rc *corev1.ReplicationController) field.ErrorList {
	path, spec := field.NewPath("spec"), &rc.Spec
	errs := checkNotNegative(path.Child("minReadySeconds"), spec.MinReadySeconds)
	errs = append(errs, checkOptionalNotNegative(path.Child("replicas"), spec.Replicas)...)
	if len(spec.Selector) == 0 {
		errs = append(errs, field.Required(path.Child("selector"), ""))
	}
	p := path.Child("template")
	if spec.Template == nil {
		return append(errs, field.Required(p, ""))
	}
	if !labels.SelectorFromSet(spec.Selector).Matches(labels.Set(spec.Template.Labels)) {
		errs = append(errs, field.Invalid(p.Child("metadata", "labels"), spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	errs = append(errs, checkPodTemplate(p, spec.Template)...)
	errs = append(errs, checkTemplatePolicy(p.Child("spec", "restartPolicy"), spec.Template.Spec.RestartPolicy,
		[]corev1.RestartPolicy{corev1.RestartPolicyAlways})...)
	if spec.Template.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(p.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in ReplicationController is not Supported"))
	}
	return errs
}

func podTemplates() *Resource {
	return define(Resource{
		Version: "v1", Kind: "PodTemplate", Plural: "podtemplates",
		Namespaced:          true,
		HasGeneration:       true,
		UnconditionalUpdate: true,
		ReturnDeleted:       true,
		New:                 func() runtime.Object { return &corev1.PodTemplate{} },
		NewList:             func() runtime.Object { return &corev1.PodTemplateList{} },
		Columns:             columns("Name", "Containers", "Images", "Pod Labels"),
	}, hooks[*corev1.PodTemplate]{
		Default: func(t *corev1.PodTemplate) { defaultPodTemplate(&t.Template) },
		Validate: func(t *corev1.PodTemplate) field.ErrorList {
			return checkPodTemplate(field.NewPath("template"), &t.Template)
		},
		Row: func(t *corev1.PodTemplate, _ time.Time) []any {
			names, images := containerCells(t.Template.Spec.Containers)
			return []any{t.Name, names, images, labels.FormatLabels(t.Template.Labels)}
		},
	})
}
