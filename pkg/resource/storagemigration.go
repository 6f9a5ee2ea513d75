package resource

import (
	"strconv"
	"time"

	migrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
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
		ValidateStatus: validateMigrationStatus,
		Row: func(m *migrationv1.StorageVersionMigration, now time.Time) []any {
			name := m.Spec.Resource.Resource
			if m.Spec.Resource.Group != "" {
				name += "." + m.Spec.Resource.Group
			}
			return []any{m.Name, name, age(m.CreationTimestamp, now)}
		},
	})
}

// validateMigrationStatus: a migration ends once, in one way.
func validateMigrationStatus(m, old *migrationv1.StorageVersionMigration) field.ErrorList {
	var errs field.ErrorList
	p, rv := field.NewPath("status", "resourceVersion"), m.Status.ResourceVersion
	if rv != "" {
		n, err := strconv.ParseInt(rv, 10, 64)
		if err != nil {
			errs = append(errs, field.Invalid(p, rv, "failed to parse resource version: "+err.Error()))
		}
		errs = append(errs, checkNotNegative(p, n)...)
	}
	if was := old.Status.ResourceVersion; was != "" && was != rv {
		errs = append(errs, field.Invalid(p, rv, "cannot be updated"))
	}
	p = field.NewPath("status", "conditions")
	errs = append(errs, metav1validation.ValidateConditions(m.Status.Conditions, p)...)
	is := func(m *migrationv1.StorageVersionMigration, t migrationv1.MigrationConditionType) bool {
		return meta.IsStatusConditionTrue(m.Status.Conditions, string(t))
	}
	succeeded, failed, running := is(m, migrationv1.MigrationSucceeded), is(m, migrationv1.MigrationFailed), is(m, migrationv1.MigrationRunning)
	for _, c := range []struct {
		wrong bool
		text  string
	}{
		{succeeded && failed, "Both success and failed conditions cannot be true at the same time"},
		{succeeded && running, "Running condition cannot be true when success condition is true"},
		{failed && running, "Running condition cannot be true when failed condition is true"},
		{is(old, migrationv1.MigrationSucceeded) && !succeeded, "Success condition cannot be set to false once it is true"},
		{is(old, migrationv1.MigrationFailed) && !failed, "Failed condition cannot be set to false once it is true"},
	} {
		if c.wrong {
			errs = append(errs, field.Invalid(p, m.Status.Conditions, c.text))
		}
	}
	return errs
}
