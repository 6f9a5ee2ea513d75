package resource

import (
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// customResourceDefinitions has no validation of its own: schemas and rules
// need compilers that only the API server links. It gets its validation from
// registry/custom.
func customResourceDefinitions() *Resource {
	return define(Resource{
		Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition", Plural: "customresourcedefinitions",
		StoragePath: "apiextensions.k8s.io/customresourcedefinitions",
		ShortNames:  []string{"crd", "crds"}, Categories: []string{"api-extensions"},
		StoredJSON: true, Compact: true,
		HasStatus: true, HasGeneration: true,
		New:     func() runtime.Object { return &apiextensionsv1.CustomResourceDefinition{} },
		NewList: func() runtime.Object { return &apiextensionsv1.CustomResourceDefinitionList{} },
		Columns: columns("Name", "Created At:date"),
	}, hooks[*apiextensionsv1.CustomResourceDefinition]{
		Default: apiextensionsv1.SetObjectDefaults_CustomResourceDefinition,
		Prepare: func(crd, old *apiextensionsv1.CustomResourceDefinition) {
			if old != nil {
				crd.Status = *old.Status.DeepCopy()
			} else {
				crd.Status = apiextensionsv1.CustomResourceDefinitionStatus{}
			}
			addStoredVersion(crd)
		},
		MarkDeleting: markDefinitionDeleting,
		Row: func(crd *apiextensionsv1.CustomResourceDefinition, _ time.Time) []any {
			return []any{crd.Name, crd.CreationTimestamp.UTC().Format(time.RFC3339)}
		},
	})
}

// addStoredVersion notes that objects are written in the storage version from
// now on.
func addStoredVersion(crd *apiextensionsv1.CustomResourceDefinition) {
	for _, v := range crd.Spec.Versions {
		if v.Storage && !slices.Contains(crd.Status.StoredVersions, v.Name) {
			crd.Status.StoredVersions = append(crd.Status.StoredVersions, v.Name)
		}
	}
}

// markDefinitionDeleting holds a definition until its objects are gone.
func markDefinitionDeleting(crd *apiextensionsv1.CustomResourceDefinition) {
	const finalizer = apiextensionsv1.CustomResourceCleanupFinalizer
	for _, c := range crd.Status.Conditions {
		if c.Type == apiextensionsv1.Terminating {
			return // it was marked before
		}
	}
	if !slices.Contains(crd.Finalizers, finalizer) {
		crd.Finalizers = append(crd.Finalizers, finalizer)
	}
	since := *crd.DeletionTimestamp
	crd.Status.Conditions = append(crd.Status.Conditions, apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionTrue, LastTransitionTime: since,
		Reason:  "InstanceDeletionPending",
		Message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
	})
}
