package replicationcontroller

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// TestStatusKeepsEverything: nothing of a status is lost on the way through
// the shared form.
func TestStatusKeepsEverything(t *testing.T) {
	want := corev1.ReplicationControllerStatus{
		Replicas: 5, FullyLabeledReplicas: 4, ReadyReplicas: 3, AvailableReplicas: 2, ObservedGeneration: 7,
		Conditions: []corev1.ReplicationControllerCondition{{
			Type: corev1.ReplicationControllerReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: "quota",
			LastTransitionTime: metav1.Unix(100, 0),
		}},
	}
	if diff := cmp.Diff(want, fromShared(toShared(want))); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestDescribe(t *testing.T) {
	two := int32(2)
	rc := &corev1.ReplicationController{Spec: corev1.ReplicationControllerSpec{
		Replicas: &two, MinReadySeconds: 3, Selector: map[string]string{"app": "web"}, Template: &corev1.PodTemplateSpec{},
	}}
	set, err := describe(rc)
	if err != nil || set.Replicas != 2 || set.MinReady != 3*time.Second || set.CountsTerminating {
		t.Errorf("it is %+v, err %v", set, err)
	}
	if !set.Selector.Matches(labels.Set{"app": "web", "more": "x"}) || set.Selector.Matches(labels.Set{"app": "db"}) {
		t.Errorf("the selector is %v", set.Selector)
	}
	rc.Spec.Selector = nil
	if _, err := describe(rc); err == nil {
		t.Error("an empty selector is taken for all pods")
	}
}
