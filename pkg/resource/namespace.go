package resource

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
			Prepare: two(func(ns, old *corev1.Namespace) { ns.Status = *old.Status.DeepCopy() }),
			Validate: twoResult(func(ns, _ *corev1.Namespace) field.ErrorList {
				return checkNamespaceFinalizers(ns, func(i int) *field.Path { return namespaceFinalizers.Index(i) })
			}),
		}},
		New:        func() runtime.Object { return &corev1.Namespace{} },
		NewList:    func() runtime.Object { return &corev1.NamespaceList{} },
		FieldNames: []string{"status.phase"},
		FieldsRead: []string{"status.phase"},
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
		Validate: func(ns *corev1.Namespace) field.ErrorList {
			// Upstream's path of these lacks the index; so does this.
			return checkNamespaceFinalizers(ns, func(int) *field.Path { return namespaceFinalizers })
		},
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

var namespaceFinalizers = field.NewPath("spec", "finalizers")

// checkNamespaceFinalizers wants Kubernetes' own or names with a domain.
func checkNamespaceFinalizers(ns *corev1.Namespace, path func(i int) *field.Path) field.ErrorList {
	var errs field.ErrorList
	own := []corev1.FinalizerName{corev1.FinalizerKubernetes, metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents}
	for i, f := range ns.Spec.Finalizers {
		errs = append(errs, validation.ValidateFinalizerName(string(f), path(i))...)
		if !strings.Contains(string(f), "/") && !slices.Contains(own, f) {
			errs = append(errs, field.Invalid(path(i), f, "name is neither a standard finalizer name nor is it fully qualified"))
		}
	}
	return errs
}
