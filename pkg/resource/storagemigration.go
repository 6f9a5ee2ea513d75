package resource

import (
	"time"

	migrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func storageVersionMigrations() *Resource {
	return define(Resource{
		Group: "storagemigration.k8s.io", Version: "v1", Kind: "StorageVersionMigration", Plural: "storageversionmigrations",
		HasStatus: true,
		New:       func() runtime.Object { return &migrationv1.StorageVersionMigration{} },
		NewList:   func() runtime.Object { return &migrationv1.StorageVersionMigrationList{} },
		Columns:   columns("Name", "Resource", "Age"),
	}, hooks[*migrationv1.StorageVersionMigration]{
		Validate: func(m *migrationv1.StorageVersionMigration) field.ErrorList {
			if m.Spec.Resource.Resource == "" {
				return field.ErrorList{field.Required(field.NewPath("spec", "resource", "resource"), "resource is required")}
			}
			return nil
		},
		ValidateUpdate: func(m, old *migrationv1.StorageVersionMigration) field.ErrorList {
			return checkImmutable(field.NewPath("spec"), m.Spec, old.Spec)
		},
		Row: func(m *migrationv1.StorageVersionMigration, now time.Time) []any {
			name := m.Spec.Resource.Resource
			if m.Spec.Resource.Group != "" {
				name += "." + m.Spec.Resource.Group
			}
			return []any{m.Name, name, age(m.CreationTimestamp, now)}
		},
	})
}
