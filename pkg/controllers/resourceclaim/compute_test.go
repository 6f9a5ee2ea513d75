package resourceclaim

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestBaseName(t *testing.T) {
	if got := baseName("web-1", "gpu"); got != "web-1-gpu-" {
		t.Errorf("got %q", got)
	}
	got := baseName(strings.Repeat("p", 63), strings.Repeat("r", 63))
	if len(got) > maxBase || !strings.HasPrefix(got, "pp") || !strings.HasSuffix(got, "rr") {
		t.Errorf("got %q, which does not say both", got)
	}
}

func TestLackingFindsWhatWasNotRecorded(t *testing.T) {
	template := "t"
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "a-uid"}}
	for _, name := range []string{"none", "recorded", "lost", "unrecorded", "stolen", "new"} {
		pod.Spec.ResourceClaims = append(pod.Spec.ResourceClaims, corev1.PodResourceClaim{Name: name, ResourceClaimTemplateName: &template})
	}
	named := func(s string) *string { return &s }
	pod.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{
		{Name: "none"}, {Name: "recorded", ResourceClaimName: named("r")}, {Name: "lost", ResourceClaimName: named("l")}, {Name: "stolen", ResourceClaimName: named("s")}}
	own := claimOf(pod, "unrecorded", &resourcev1.ResourceClaimTemplate{})
	own.Name = "u"
	recorded := map[string]*resourcev1.ResourceClaim{"r": claimOf(pod, "recorded", &resourcev1.ResourceClaimTemplate{}), "s": {}}
	found, missing := lacking(pod, recorded, []*resourcev1.ResourceClaim{own})
	var names []string
	for _, m := range missing {
		names = append(names, m.Name)
	}
	if diff := cmp.Diff([]string{"lost", "stolen", "new"}, names); diff != "" {
		t.Errorf("to be made: %s", diff)
	}
	if diff := cmp.Diff(map[string]string{"unrecorded": "u"}, found); diff != "" {
		t.Errorf("found: %s", diff)
	}
}

func TestReleased(t *testing.T) {
	user := resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: "a", UID: "a"}
	now := metav1.Now()
	tests := []struct {
		name                          string
		deleting, bare, unused        bool // the claim: no finalizer, no users
		left                          []resourcev1.ResourceClaimConsumerReference
		writes, allocated, unprotects bool
	}{
		{name: "a user stays", left: []resourcev1.ResourceClaimConsumerReference{user}, allocated: true},
		{name: "the last user went", writes: true, unprotects: true},
		{name: "nobody's protection", bare: true, writes: true, allocated: true},
		{name: "allocated and not used yet", unused: true, allocated: true},
		{name: "deleted before it was used", unused: true, deleting: true, writes: true, unprotects: true},
		{name: "deleted in use", deleting: true, left: []resourcev1.ResourceClaimConsumerReference{user}, allocated: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			claim := &resourcev1.ResourceClaim{Status: resourcev1.ResourceClaimStatus{Allocation: &resourcev1.AllocationResult{}}}
			if !tt.bare {
				claim.Finalizers = []string{"example.com/other", resourcev1.Finalizer}
			}
			if !tt.unused {
				claim.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{user}
			}
			if tt.deleting {
				claim.DeletionTimestamp = &now
			}
			next := released(claim, tt.left)
			if (next != nil) != tt.writes {
				t.Fatalf("writes %+v, want a write %v", next, tt.writes)
			}
			after := claim
			if next != nil {
				after = next
			}
			if (after.Status.Allocation != nil) != tt.allocated || len(after.Status.ReservedFor) != len(tt.left) && tt.writes {
				t.Errorf("status %+v", after.Status)
			}
			bare := unprotected(after, next != nil)
			if (bare != nil) != tt.unprotects {
				t.Fatalf("unprotected %+v, want %v", bare, tt.unprotects)
			}
			if bare != nil && !cmp.Equal(bare.Finalizers, []string{"example.com/other"}) {
				t.Errorf("finalizers %v", bare.Finalizers)
			}
		})
	}
}
