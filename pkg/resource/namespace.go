package resource

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func namespaces() *Resource {
	return define(Resource{
		Version: "v1", Kind: "Namespace", Plural: "namespaces", ShortNames: []string{"ns"},
		// No deletecollection: upstream serves none for namespaces.
		Verbs:               []string{"create", "delete", "get", "list", "patch", "update", "watch"},
		HasStatus:           true,
		UnconditionalUpdate: true,
		ValidateName:        validation.ValidateNamespaceName,
		Subresources: []Subresource{{
			Name: "finalize", Verbs: []string{"update"},
			Prepare:  two(func(ns, old *corev1.Namespace) { ns.Status = *old.Status.DeepCopy() }),
			Validate: twoResult(func(ns, _ *corev1.Namespace) field.ErrorList { return checkNamespaceFinalizers(ns) }),
		}},
		New:        func() runtime.Object { return &corev1.Namespace{} },
		NewList:    func() runtime.Object { return &corev1.NamespaceList{} },
		FieldNames: []string{"status.phase"},
		Columns:    columns("Name", "Status", "Age"),
	}, hooks[*corev1.Namespace]{
		Default: func(ns *corev1.Namespace) {
			// The label is how selectors name a namespace (KEP-2161).
			if ns.Name != "" {
				if ns.Labels == nil {
					ns.Labels = map[string]string{}
				}
				ns.Labels[corev1.LabelMetadataName] = ns.Name
			}
		},
		Prepare: func(ns, old *corev1.Namespace) {
			if old != nil {
				ns.Spec.Finalizers = slices.Clone(old.Spec.Finalizers)
				return
			}
			ns.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
			for _, f := range ns.Spec.Finalizers {
				if f == corev1.FinalizerKubernetes {
					return
				}
			}
			ns.Spec.Finalizers = append(ns.Spec.Finalizers, corev1.FinalizerKubernetes)
		},
		Validate: checkNamespaceFinalizers,
		ValidateStatus: func(ns, _ *corev1.Namespace) field.ErrorList {
			want, when := corev1.NamespaceActive, "is empty"
			if ns.DeletionTimestamp != nil {
				want, when = corev1.NamespaceTerminating, "is not empty"
			}
			if ns.Status.Phase != want {
				return field.ErrorList{field.Invalid(field.NewPath("status", "Phase"), ns.Status.Phase,
					"may only be '"+string(want)+"' if `deletionTimestamp` "+when)}
			}
			return nil
		},
		Held:         func(ns *corev1.Namespace) bool { return len(ns.Spec.Finalizers) > 0 },
		MarkDeleting: func(ns *corev1.Namespace) { ns.Status.Phase = corev1.NamespaceTerminating },
		Fields: func(ns *corev1.Namespace) map[string]string {
			return map[string]string{"status.phase": string(ns.Status.Phase)}
		},
		Row: func(ns *corev1.Namespace, now time.Time) []any {
			return []any{ns.Name, string(ns.Status.Phase), age(ns.CreationTimestamp, now)}
		},
	})
}

func checkNamespaceFinalizers(ns *corev1.Namespace) field.ErrorList {
	var errs field.ErrorList
	for i, f := range ns.Spec.Finalizers {
		errs = append(errs, validation.ValidateFinalizerName(string(f), field.NewPath("spec", "finalizers").Index(i))...)
	}
	return errs
}
