package namespace

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func TestCompute(t *testing.T) {
	widgets := schema.GroupVersionResource{Group: "example.org", Version: "v1", Resource: "widgets"}
	for _, tc := range []struct {
		name string
		left remains
		done bool
		// bad are the conditions that are true, with the text they contain.
		bad map[corev1.NamespaceConditionType]string
	}{
		{name: "empty", done: true},
		{
			name: "a type that is not known may have objects",
			left: remains{discovery: errors.New("metrics is down")},
			bad:  map[corev1.NamespaceConditionType]string{corev1.NamespaceDeletionDiscoveryFailure: "Discovery failed for some groups: metrics is down"},
		},
		{
			name: "a type that cannot be listed may have objects",
			left: remains{failures: []error{errors.New("widgets: list: no")}},
			bad:  map[corev1.NamespaceConditionType]string{corev1.NamespaceDeletionContentFailure: "Failed to delete some content: widgets: list: no"},
		},
		{
			name: "objects held by a finalizer are named",
			left: remains{count: map[schema.GroupVersionResource]int{widgets: 2, podsResource: 0}, finalizers: map[string]int{"example.org/hold": 2}},
			bad: map[corev1.NamespaceConditionType]string{
				corev1.NamespaceContentRemaining:    "Some resources are remaining: widgets.example.org has 2 resource instances",
				corev1.NamespaceFinalizersRemaining: "Some content in the namespace has finalizers remaining: example.org/hold in 2 resource instances",
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := compute(nil, tc.left, time.Minute, now)
			if v.done != tc.done || (v.wait == 0) != tc.done {
				t.Errorf("done %v, wait %v, want done %v", v.done, v.wait, tc.done)
			}
			if len(v.conditions) != 5 {
				t.Fatalf("%d conditions, want all 5", len(v.conditions))
			}
			for _, c := range v.conditions {
				message, bad := tc.bad[c.Type]
				if (c.Status == corev1.ConditionTrue) != bad || (bad && c.Message != message) {
					t.Errorf("condition %s is %s %q, want bad=%v %q", c.Type, c.Status, c.Message, bad, message)
				}
			}
			later := compute(v.conditions, tc.left, time.Minute, now.Add(time.Hour))
			if !equality.Semantic.DeepEqual(later.conditions, v.conditions) {
				t.Errorf("the same remains change the conditions: %v", later.conditions)
			}
		})
	}
}

func TestWaitGrowsWithAge(t *testing.T) {
	left := remains{discovery: errors.New("x")}
	if w := compute(nil, left, 0, now).wait; w != minWait {
		t.Errorf("a new namespace waits %v, want %v", w, minWait)
	}
	if w := compute(nil, left, time.Hour, now).wait; w != maxWait {
		t.Errorf("an old namespace waits %v, want %v", w, maxWait)
	}
}
