package controllers_test

import (
	"fmt"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (c *cluster) wantClaims(want ...string) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("claims are %v", want), func() error {
		list, err := c.Client.CoreV1().PersistentVolumeClaims("default").List(c.t.Context(), metav1.ListOptions{LabelSelector: "app=db"})
		if err != nil {
			return err
		}
		var got []string
		for _, claim := range list.Items {
			got = append(got, claim.Name)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			return fmt.Errorf("they are %v", got)
		}
		return nil
	})
}

func TestStatefulSetClaimsGoWithTheirOwner(t *testing.T) {
	const retain, remove = appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	for _, tc := range []struct {
		deleted, scaled       appsv1.PersistentVolumeClaimRetentionPolicyType
		afterScale, afterward []string
	}{
		{retain, retain, []string{"data-db-0", "data-db-1"}, []string{"data-db-0", "data-db-1"}},
		{remove, retain, []string{"data-db-0", "data-db-1"}, nil},
		{retain, remove, []string{"data-db-0"}, []string{"data-db-0"}},
		{remove, remove, []string{"data-db-0"}, nil},
	} {
		t.Run(fmt.Sprintf("deleted %s, scaled %s", tc.deleted, tc.scaled), func(t *testing.T) {
			scenario(t, func(t *testing.T, c *cluster) {
				c.makeStatefulSet(statefulSet(2, withClaims(tc.deleted, tc.scaled)))
				c.wantRolledOut()
				c.wantClaims("data-db-0", "data-db-1")
				c.patchStatefulSet(`{"spec":{"replicas":1}}`)
				c.wantRolledOut()
				c.wantClaims(tc.afterScale...)
				c.settle()
				c.wantClaims(tc.afterScale...)
				c.patchStatefulSet(`{"spec":{"replicas":2}}`)
				c.wantRolledOut()
				c.wantClaims("data-db-0", "data-db-1")
				c.patchStatefulSet(`{"spec":{"replicas":1}}`)
				c.wantRolledOut()
				if err := c.Client.AppsV1().StatefulSets("default").Delete(t.Context(), "db", metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
				c.wantMembers(map[string]string{})
				c.settle()
				c.wantClaims(tc.afterward...)
			})
		})
	}
}

// TestStatefulSetLateEcho lets the controllers see every change seconds late:
// no identity is ever there twice, and none is disturbed without need.
func TestStatefulSetLateEcho(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		t.Cleanup(c.startControllers(transports{read: lateWatches(lateEcho)}))
		story := c.story()
		c.makeStatefulSet(statefulSet(2, withClaims(appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType)))
		c.wantRolledOut()
		c.patchStatefulSet(`{"spec":{"replicas":1}}`)
		c.wantRolledOut()
		c.patchStatefulSet(`{"spec":{"replicas":2}}`)
		c.wantRolledOut()
		c.settle()
		if got, want := story(), "+db-0 !db-0 +db-1 !db-1 -db-1 ~db-1 +db-1 !db-1"; got != want {
			t.Errorf("it went\n%s, want\n%s", got, want)
		}
	})
}

// TestStatefulSetCrashAtAnyWrite kills and restarts the controllers at one
// write of a set's life, a different one each time.
func TestStatefulSetCrashAtAnyWrite(t *testing.T) {
	crashAt(t, 1, 41, 4, func(t *testing.T, c *cluster) {
		story := c.story()
		c.makeStatefulSet(statefulSet(2, withClaims(appsv1.DeletePersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType)))
		c.wantRolledOut()
		c.setStatefulImage("v2")
		c.wantRolledOut()
		c.patchStatefulSet(`{"spec":{"replicas":1}}`)
		c.wantRolledOut()
		c.wantMembers(map[string]string{"db-0": "v2"})
		c.wantClaims("data-db-0")
		c.settle()
		if got, want := story(), "+db-0 !db-0 +db-1 !db-1 -db-1 ~db-1 +db-1 !db-1 -db-0 ~db-0 +db-0 !db-0 -db-1 ~db-1"; got != want {
			t.Errorf("it went\n%s, want\n%s", got, want)
		}
		list, err := c.Client.AppsV1().ControllerRevisions("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=db"})
		if err != nil || len(list.Items) != 2 {
			t.Errorf("%d revisions, err %v, want 2", len(list.Items), err)
		}
		if err := c.Client.AppsV1().StatefulSets("default").Delete(t.Context(), "db", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.wantMembers(map[string]string{})
		c.wantClaims()
		c.eventually("its revisions are gone", func() error {
			list, err := c.Client.AppsV1().ControllerRevisions("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=db"})
			if err == nil && len(list.Items) > 0 {
				err = fmt.Errorf("%d are left", len(list.Items))
			}
			return err
		})
		if _, err := c.Client.AppsV1().StatefulSets("default").Get(t.Context(), "db", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the set is there: %v", err)
		}
	})
}
