package resource

import (
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func controllerRevisions() *Resource {
	return define(Resource{
		Group: "apps", Version: "v1", Kind: "ControllerRevision", Plural: "controllerrevisions",
		Namespaced:          true,
		UnconditionalUpdate: true,
		New:                 func() runtime.Object { return &appsv1.ControllerRevision{} },
		NewList:             func() runtime.Object { return &appsv1.ControllerRevisionList{} },
		Columns:             columns("Name", "Controller", "Revision:integer", "Age"),
	}, hooks[*appsv1.ControllerRevision]{
		Validate: func(r *appsv1.ControllerRevision) field.ErrorList {
			var errs field.ErrorList
			if len(r.Data.Raw) == 0 && r.Data.Object == nil {
				errs = append(errs, field.Required(field.NewPath("data"), "data is mandatory"))
			}
			return append(errs, checkNotNegative(field.NewPath("revision"), r.Revision)...)
		},
		ValidateUpdate: func(r, old *appsv1.ControllerRevision) field.ErrorList {
			// A revision is history: only its number moves.
			if !equality.Semantic.DeepEqual(r.Data, old.Data) {
				return field.ErrorList{field.Invalid(field.NewPath("data"), "", "field is immutable")}
			}
			return nil
		},
		Row: func(r *appsv1.ControllerRevision, now time.Time) []any {
			owner := "<none>"
			if ref := metav1.GetControllerOf(r); ref != nil {
				gv, _ := schema.ParseGroupVersion(ref.APIVersion)
				kind := schema.GroupKind{Group: gv.Group, Kind: ref.Kind}
				owner = strings.ToLower(kind.String()) + "/" + ref.Name
			}
			return []any{r.Name, owner, r.Revision, age(r.CreationTimestamp, now)}
		},
	})
}
