package storagemigration

import (
	"errors"
	"testing"
	"time"

	migrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func migration(name, resource string, age time.Duration) *migrationv1.StorageVersionMigration {
	return &migrationv1.StorageVersionMigration{
		ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.Time{Time: noon.Add(-age)}},
		Spec:       migrationv1.StorageVersionMigrationSpec{Resource: metav1.GroupResource{Resource: resource}},
	}
}

func TestOneMigrationOfAResourceAtATime(t *testing.T) {
	old, young, other := migration("b", "pods", time.Hour), migration("a", "pods", time.Minute), migration("c", "secrets", time.Second)
	for _, tc := range []struct {
		name string
		all  []*migrationv1.StorageVersionMigration
		want map[string]bool
	}{
		{"the oldest first", []*migrationv1.StorageVersionMigration{old, young, other}, map[string]bool{"b": true, "c": true}},
		{"one that runs stays", []*migrationv1.StorageVersionMigration{old, started(young, "7", noon), other}, map[string]bool{"a": true, "c": true}},
		{"then the next", []*migrationv1.StorageVersionMigration{finished(started(old, "7", noon), nil, noon), young}, map[string]bool{"a": true, "b": true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, m := range tc.all {
				if got := turn(m, tc.all); got != tc.want[m.Name] {
					t.Errorf("turn of %s is %v", m.Name, got)
				}
			}
		})
	}
}

func TestConditionsOfAMigration(t *testing.T) {
	m := started(migration("a", "pods", 0), "7", noon)
	if !running(m) || ended(m) || m.Status.ResourceVersion != "7" {
		t.Fatalf("status %+v", m.Status)
	}
	if again := started(m, "9", noon); again.Status.ResourceVersion != "7" {
		t.Errorf("the version became %s, and may not change", again.Status.ResourceVersion)
	}
	for _, failure := range []error{nil, errors.New("no")} {
		f := finished(m, failure, noon)
		good := meta.IsStatusConditionTrue(f.Status.Conditions, string(migrationv1.MigrationSucceeded))
		if running(f) || !ended(f) || good != (failure == nil) {
			t.Errorf("after %v the conditions are %+v", failure, f.Status.Conditions)
		}
	}
}

func TestOnlyWhatIsOldIsDue(t *testing.T) {
	for object, want := range map[string]bool{"6": true, "7": true, "8": false, "10": false} {
		if got := due(object, "7"); got != want {
			t.Errorf("due at %s is %v", object, got)
		}
	}
}
