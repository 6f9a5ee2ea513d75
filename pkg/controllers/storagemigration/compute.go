package storagemigration

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	migrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// patience is how long a resource may be missing from discovery before its
// migration fails: a new definition takes a while to be served.
const patience = time.Minute

// Reasons of conditions.
const (
	reasonRunning   = "MigrationRunning"
	reasonCompleted = "MigrationCompleted"
	reasonSucceeded = "StorageVersionMigrationSucceeded"
	reasonFailed    = "StorageVersionMigrationFailed"
)

func ended(m *migrationv1.StorageVersionMigration) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, string(migrationv1.MigrationSucceeded)) ||
		meta.IsStatusConditionTrue(m.Status.Conditions, string(migrationv1.MigrationFailed))
}

// turn says whether it is m's turn: migrations of one resource run one after
// the other, those that run already first and then the oldest.
func turn(m *migrationv1.StorageVersionMigration, all []*migrationv1.StorageVersionMigration) bool {
	rank := func(m *migrationv1.StorageVersionMigration) int {
		if running(m) {
			return 0
		}
		return 1
	}
	for _, other := range all {
		if other.Name == m.Name || other.Spec.Resource != m.Spec.Resource || ended(other) {
			continue
		}
		if cmp.Or(cmp.Compare(rank(other), rank(m)), other.CreationTimestamp.Compare(m.CreationTimestamp.Time), cmp.Compare(other.Name, m.Name)) < 0 {
			return false
		}
	}
	return true
}

func running(m *migrationv1.StorageVersionMigration) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, string(migrationv1.MigrationRunning))
}

// started is the status of a migration that begins, of what is stored up to
// version.
func started(m *migrationv1.StorageVersionMigration, version string, now time.Time) *migrationv1.StorageVersionMigration {
	out := m.DeepCopy()
	if out.Status.ResourceVersion == "" {
		out.Status.ResourceVersion = version
	}
	set(out, migrationv1.MigrationRunning, metav1.ConditionTrue, reasonRunning, "The migration is running", now)
	return out
}

// finished is the status of a migration that is over; failure is nil when it
// went well.
func finished(m *migrationv1.StorageVersionMigration, failure error, now time.Time) *migrationv1.StorageVersionMigration {
	out := m.DeepCopy()
	if running(m) {
		set(out, migrationv1.MigrationRunning, metav1.ConditionFalse, reasonCompleted, "Migration completed", now)
	}
	if failure == nil {
		set(out, migrationv1.MigrationSucceeded, metav1.ConditionTrue, reasonSucceeded, "Migration completed", now)
	} else {
		set(out, migrationv1.MigrationFailed, metav1.ConditionTrue, reasonFailed, fmt.Sprintf("migration encountered unhandled error: %s", failure), now)
	}
	return out
}

func set(m *migrationv1.StorageVersionMigration, t migrationv1.MigrationConditionType, status metav1.ConditionStatus, reason, message string, now time.Time) {
	meta.SetStatusCondition(&m.Status.Conditions, metav1.Condition{
		Type: string(t), Status: status, Reason: reason, Message: message,
		ObservedGeneration: m.Generation, LastTransitionTime: metav1.Time{Time: now},
	})
}

// due says whether an object may have been stored before version. One that was
// written later has the form that the server stores now.
func due(object, version string) bool {
	c, err := resourceversion.CompareResourceVersion(object, version)
	return err != nil || c <= 0
}

// find returns the version in which the server prefers a resource. The lists
// are in the server's order.
func find(lists []*metav1.APIResourceList, want metav1.GroupResource) (gvr schema.GroupVersionResource, verbs metav1.Verbs, ok bool) {
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil || gv.Group != want.Group {
			continue
		}
		for i := range list.APIResources {
			if r := &list.APIResources[i]; r.Name == want.Resource {
				return gv.WithResource(r.Name), r.Verbs, true
			}
		}
	}
	return gvr, nil, false
}

// migratable says whether all that a migration needs is served.
func migratable(verbs metav1.Verbs) bool {
	return slices.Contains(verbs, "list") && slices.Contains(verbs, "patch")
}
