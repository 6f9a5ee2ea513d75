package replicaset

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"coracle/pkg/controllers/podset"
)

// plan is what one reconcile of a ReplicaSet does.
type plan struct {
	create int           // how many pods to make
	remove []*corev1.Pod // which pods to delete
	// wake, when positive, is when the next ready pod becomes available.
	wake time.Duration
}

// compute decides which pods are missing or too many. pods are all that the
// set owns; neighbours counts, by node, the active pods of all sets of the
// same owner, so that scaling one of a Deployment's sets down thins out the
// crowded nodes.
func compute(rs *appsv1.ReplicaSet, pods []*corev1.Pod, neighbours map[string]int, now time.Time) plan {
	active := activeOf(pods)
	p := plan{wake: nextAvailable(rs, active, now)}
	if rs.DeletionTimestamp != nil {
		return p
	}
	switch diff := len(active) - int(*rs.Spec.Replicas); {
	case diff < 0:
		p.create = -diff
	case diff > 0:
		p.remove = podset.Victims(active, diff, neighbours, now)
	}
	return p
}

func activeOf(pods []*corev1.Pod) []*corev1.Pod {
	active := make([]*corev1.Pod, 0, len(pods))
	for _, p := range pods {
		if podset.Active(p) {
			active = append(active, p)
		}
	}
	return active
}

func minReady(rs *appsv1.ReplicaSet) time.Duration {
	return time.Duration(rs.Spec.MinReadySeconds) * time.Second
}

func nextAvailable(rs *appsv1.ReplicaSet, active []*corev1.Pod, now time.Time) time.Duration {
	var next time.Duration
	for _, p := range active {
		if _, wait := podset.Available(p, minReady(rs), now); wait > 0 && (next == 0 || wait < next) {
			next = wait
		}
	}
	return next
}

// status computes rs's status from its pods. failure is what went wrong with
// creating or deleting pods this time, or nil.
func status(rs *appsv1.ReplicaSet, pods []*corev1.Pod, failure error, now time.Time) appsv1.ReplicaSetStatus {
	s := *rs.Status.DeepCopy()
	s.ObservedGeneration = rs.Generation
	s.Replicas, s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas = 0, 0, 0, 0
	var terminating int32
	template := labels.SelectorFromValidatedSet(rs.Spec.Template.Labels)
	for _, p := range pods {
		if p.DeletionTimestamp != nil && !podset.Finished(p) {
			terminating++
		}
		if !podset.Active(p) {
			continue
		}
		s.Replicas++
		if template.Matches(labels.Set(p.Labels)) {
			s.FullyLabeledReplicas++
		}
		if podset.Ready(p) {
			s.ReadyReplicas++
		}
		if ok, _ := podset.Available(p, minReady(rs), now); ok {
			s.AvailableReplicas++
		}
	}
	s.TerminatingReplicas = &terminating
	s.Conditions = conditions(rs, s, failure, now)
	return s
}

// conditions sets or removes ReplicaFailure.
func conditions(rs *appsv1.ReplicaSet, s appsv1.ReplicaSetStatus, failure error, now time.Time) []appsv1.ReplicaSetCondition {
	var have *appsv1.ReplicaSetCondition
	var others []appsv1.ReplicaSetCondition
	for i := range s.Conditions {
		if s.Conditions[i].Type == appsv1.ReplicaSetReplicaFailure {
			have = &s.Conditions[i]
		} else {
			others = append(others, s.Conditions[i])
		}
	}
	if failure == nil {
		return others
	}
	if have != nil {
		return s.Conditions
	}
	reason := "FailedCreate"
	if s.Replicas > *rs.Spec.Replicas {
		reason = "FailedDelete"
	}
	return append(others, appsv1.ReplicaSetCondition{
		Type:               appsv1.ReplicaSetReplicaFailure,
		Status:             corev1.ConditionTrue,
		Reason:             reason,
		Message:            failure.Error(),
		LastTransitionTime: metav1.Time{Time: now},
	})
}

// changed reports whether writing s would change anything.
func changed(rs *appsv1.ReplicaSet, s appsv1.ReplicaSetStatus) bool {
	return !equality.Semantic.DeepEqual(rs.Status, s)
}
