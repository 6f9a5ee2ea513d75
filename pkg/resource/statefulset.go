package resource

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func statefulSets() *Resource {
	return define(Resource{
		Group: "apps", Version: "v1", Kind: "StatefulSet", Plural: "statefulsets", ShortNames: []string{"sts"},
		Categories:          []string{"all"},
		Namespaced:          true,
		HasStatus:           true,
		HasGeneration:       true,
		UnconditionalUpdate: true,
		Subresources:        []Subresource{scaleSubresource()},
		New:                 func() runtime.Object { return &appsv1.StatefulSet{} },
		NewList:             func() runtime.Object { return &appsv1.StatefulSetList{} },
		Columns:             columns("Name", "Ready", "Age", "+Containers", "+Images"),
	}, hooks[*appsv1.StatefulSet]{
		Default:        defaultStatefulSet,
		Validate:       validateStatefulSet,
		ValidateUpdate: validateStatefulSetUpdate,
		ValidateStatus: validateStatefulSetStatus,
		Warnings: func(obj, old *appsv1.StatefulSet) []string {
			if old != nil && old.Generation == obj.Generation {
				return nil
			}
			return podSpecWarnings(field.NewPath("spec", "template", "spec"), &obj.Spec.Template.Spec)
		},
		Scale: func(s *appsv1.StatefulSet) *autoscalingv1.Scale {
			return makeScale(&s.ObjectMeta, s.Spec.Replicas, s.Status.Replicas, s.Spec.Selector)
		},
		SetScale: func(s *appsv1.StatefulSet, scale *autoscalingv1.Scale) field.ErrorList {
			return takeScale(&s.Spec.Replicas, scale)
		},
		Row: func(s *appsv1.StatefulSet, now time.Time) []any {
			names, images := containerCells(s.Spec.Template.Spec.Containers)
			return []any{
				s.Name, fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, count(s.Spec.Replicas, 0)),
				age(s.CreationTimestamp, now), names, images,
			}
		},
	})
}

func defaultStatefulSet(s *appsv1.StatefulSet) {
	spec := &s.Spec
	defaultPodTemplate(&spec.Template)
	defaultCount(&spec.Replicas, 1)
	defaultCount(&spec.RevisionHistoryLimit, 10)
	if spec.PodManagementPolicy == "" {
		spec.PodManagementPolicy = appsv1.OrderedReadyPodManagement
	}
	u := &spec.UpdateStrategy
	if u.Type == "" {
		u.Type = appsv1.RollingUpdateStatefulSetStrategyType
		if u.RollingUpdate == nil {
			u.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{}
		}
	}
	if u.Type == appsv1.RollingUpdateStatefulSetStrategyType && u.RollingUpdate != nil {
		defaultCount(&u.RollingUpdate.Partition, 0)
		if u.RollingUpdate.MaxUnavailable == nil {
			u.RollingUpdate.MaxUnavailable = new(intstr.FromInt32(1))
		}
	}
	if spec.PersistentVolumeClaimRetentionPolicy == nil {
		spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{}
	}
	for _, p := range []*appsv1.PersistentVolumeClaimRetentionPolicyType{
		&spec.PersistentVolumeClaimRetentionPolicy.WhenDeleted, &spec.PersistentVolumeClaimRetentionPolicy.WhenScaled,
	} {
		if *p == "" {
			*p = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
		}
	}
	for i := range spec.VolumeClaimTemplates {
		t := &spec.VolumeClaimTemplates[i]
		// The stored form has no room for a template's kind, which could
		// be no other; it goes at once, so that every answer is the same.
		t.TypeMeta = metav1.TypeMeta{}
		defaultClaim(t)
	}
}

func validateStatefulSet(s *appsv1.StatefulSet) field.ErrorList {
	path, spec := field.NewPath("spec"), &s.Spec
	var errs field.ErrorList
	if p := spec.PodManagementPolicy; p != appsv1.OrderedReadyPodManagement && p != appsv1.ParallelPodManagement {
		errs = append(errs, field.Invalid(path.Child("podManagementPolicy"), p,
			fmt.Sprintf("must be '%s' or '%s'", appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement)))
	}
	errs = append(errs, checkStatefulUpdate(path.Child("updateStrategy"), &spec.UpdateStrategy)...)
	if r := spec.PersistentVolumeClaimRetentionPolicy; r != nil {
		p := path.Child("persistentVolumeClaimRetentionPolicy")
		for _, f := range []struct {
			name  string
			value appsv1.PersistentVolumeClaimRetentionPolicyType
		}{{"whenDeleted", r.WhenDeleted}, {"whenScaled", r.WhenScaled}} {
			errs = append(errs, checkOptional(p.Child(f.name), &f.value, appsv1.DeletePersistentVolumeClaimRetentionPolicyType,
				appsv1.RetainPersistentVolumeClaimRetentionPolicyType)...)
		}
	}
	if spec.Ordinals != nil {
		errs = append(errs, checkNotNegative(path.Child("ordinals", "start"), spec.Ordinals.Start)...)
	}
	if spec.ServiceName != "" {
		errs = append(errs, invalid(path.Child("serviceName"), spec.ServiceName, utilvalidation.IsDNS1123Subdomain(spec.ServiceName))...)
	}
	errs = append(errs, checkNotNegative(path.Child("minReadySeconds"), spec.MinReadySeconds)...)
	errs = append(errs, checkOptionalNotNegative(path.Child("revisionHistoryLimit"), spec.RevisionHistoryLimit)...)
	// The mounts of the template may name claims that each replica gets.
	withClaims := spec.Template.DeepCopy()
	for _, claim := range spec.VolumeClaimTemplates {
		withClaims.Spec.Volumes = setVolume(withClaims.Spec.Volumes, claim.Name)
	}
	return append(errs, checkReplicated(path, "statefulset", "StatefulSet", spec.Replicas, spec.Selector, withClaims)...)
}

// setVolume puts the claim's volume where the controller will: in place of
// one of the same name.
func setVolume(volumes []corev1.Volume, name string) []corev1.Volume {
	v := corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}}
	for i := range volumes {
		if volumes[i].Name == name {
			volumes[i] = v
			return volumes
		}
	}
	return append(volumes, v)
}

func checkStatefulUpdate(path *field.Path, u *appsv1.StatefulSetUpdateStrategy) field.ErrorList {
	switch u.Type {
	case appsv1.OnDeleteStatefulSetStrategyType:
		if u.RollingUpdate != nil {
			return field.ErrorList{field.Invalid(path.Child("rollingUpdate"), u.RollingUpdate,
				fmt.Sprintf("only allowed for updateStrategy '%s'", appsv1.RollingUpdateStatefulSetStrategyType))}
		}
		return nil
	case appsv1.RollingUpdateStatefulSetStrategyType:
		if u.RollingUpdate == nil {
			return nil
		}
		p := path.Child("rollingUpdate")
		errs := checkOptionalNotNegative(p.Child("partition"), u.RollingUpdate.Partition)
		if m := u.RollingUpdate.MaxUnavailable; m != nil {
			errs = append(errs, checkCountOrPercent(p.Child("maxUnavailable"), *m)...)
			if isZero(*m) {
				errs = append(errs, field.Invalid(p.Child("maxUnavailable"), *m, "cannot be 0"))
			}
			errs = append(errs, checkAtMostAll(p.Child("maxUnavailable"), *m)...)
		}
		return errs
	}
	return field.ErrorList{field.Invalid(path, u.Type,
		fmt.Sprintf("must be '%s' or '%s'", appsv1.RollingUpdateStatefulSetStrategyType, appsv1.OnDeleteStatefulSetStrategyType))}
}

func validateStatefulSetUpdate(s, old *appsv1.StatefulSet) field.ErrorList {
	rest := s.Spec.DeepCopy()
	was := &old.Spec
	rest.Replicas, rest.Template, rest.UpdateStrategy = was.Replicas, was.Template, was.UpdateStrategy
	rest.MinReadySeconds, rest.Ordinals = was.MinReadySeconds, was.Ordinals
	rest.RevisionHistoryLimit = was.RevisionHistoryLimit
	rest.PersistentVolumeClaimRetentionPolicy = was.PersistentVolumeClaimRetentionPolicy
	if equality.Semantic.DeepEqual(rest, was) {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("spec"), "updates to statefulset spec for fields other than 'replicas', 'ordinals', "+
		"'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden")}
}

func validateStatefulSetStatus(s, old *appsv1.StatefulSet) field.ErrorList {
	st := &s.Status
	errs := checkReplicaCounts(st.ObservedGeneration, st.Replicas, counts{
		"readyReplicas": st.ReadyReplicas, "currentReplicas": st.CurrentReplicas,
		"updatedReplicas": st.UpdatedReplicas, "availableReplicas": st.AvailableReplicas,
	}, st.ReadyReplicas, st.AvailableReplicas)
	return append(errs, checkCollisions(field.NewPath("status", "collisionCount"), st.CollisionCount, old.Status.CollisionCount)...)
}
