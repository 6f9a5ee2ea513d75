package replicas

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"coracle/pkg/controllers/podset"
)

// Set is what an owner asks for and says of itself, whatever its kind. It
// shares its parts with the owner and must not be changed.
type Set struct {
	Object   podset.Owner
	Selector labels.Selector
	Replicas int
	MinReady time.Duration
	Template *corev1.PodTemplateSpec
	// Status is what the owner's status says now. A kind whose status lacks
	// some of it ignores that when it is written.
	Status appsv1.ReplicaSetStatus
	// CountsTerminating is set by a kind whose status tells how many pods are
	// ending.
	CountsTerminating bool
}

// plan is what one reconcile of a Set does.
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
func compute(set Set, pods []*corev1.Pod, neighbours map[string]int, now time.Time) plan {
	active := activeOf(pods)
	p := plan{wake: nextAvailable(set, active, now)}
	if set.Object.GetDeletionTimestamp() != nil {
		return p
	}
	switch diff := len(active) - set.Replicas; {
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

func nextAvailable(set Set, active []*corev1.Pod, now time.Time) time.Duration {
	var next time.Duration
	for _, p := range active {
		if _, wait := podset.Available(p, set.MinReady, now); wait > 0 && (next == 0 || wait < next) {
			next = wait
		}
	}
	return next
}

// status computes the set's status from its pods. failure is what went wrong
// with creating or deleting pods this time, or nil.
func status(set Set, pods []*corev1.Pod, failure error, now time.Time) appsv1.ReplicaSetStatus {
	s := *set.Status.DeepCopy()
	s.ObservedGeneration = set.Object.GetGeneration()
	s.Replicas, s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas = 0, 0, 0, 0
	var terminating int32
	template := labels.SelectorFromValidatedSet(set.Template.Labels)
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
		if ok, _ := podset.Available(p, set.MinReady, now); ok {
			s.AvailableReplicas++
		}
	}
	if set.CountsTerminating {
		s.TerminatingReplicas = &terminating
	}
	s.Conditions = conditions(set, s, failure, now)
	return s
}

// conditions sets or removes ReplicaFailure.
func conditions(set Set, s appsv1.ReplicaSetStatus, failure error, now time.Time) []appsv1.ReplicaSetCondition {
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
	if int(s.Replicas) > set.Replicas {
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
func changed(set Set, s appsv1.ReplicaSetStatus) bool {
	return !equality.Semantic.DeepEqual(set.Status, s)
}
