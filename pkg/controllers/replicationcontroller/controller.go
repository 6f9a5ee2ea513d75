// Package replicationcontroller keeps as many pods as each
// ReplicationController asks for; replicas says how.
package replicationcontroller

import (
	"context"
	"errors"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"coracle/pkg/controllers/replicas"
	"coracle/pkg/reconcile"
)

// New registers the informers of the controller of ReplicationControllers.
func New(env reconcile.Env) *replicas.Controller[*corev1.ReplicationController] {
	env = env.Defaulted()
	return replicas.New(env, replicas.Kind[*corev1.ReplicationController]{
		Name:     "replicationcontroller",
		Kind:     corev1.SchemeGroupVersion.WithKind("ReplicationController"),
		Informer: env.Informers.Core().V1().ReplicationControllers().Informer(),
		Describe: describe,
		Live: func(ctx context.Context, key reconcile.Key) (*corev1.ReplicationController, error) {
			return env.Client.CoreV1().ReplicationControllers(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
		},
		WriteStatus: func(ctx context.Context, rc *corev1.ReplicationController, s appsv1.ReplicaSetStatus) (*corev1.ReplicationController, error) {
			rc = rc.DeepCopy()
			rc.Status = fromShared(s)
			return env.Client.CoreV1().ReplicationControllers(rc.Namespace).UpdateStatus(ctx, rc, metav1.UpdateOptions{})
		},
	})
}

func describe(rc *corev1.ReplicationController) (replicas.Set, error) {
	var err error
	if len(rc.Spec.Selector) == 0 || rc.Spec.Template == nil {
		err = errors.New("it is empty and would take every pod of the namespace, or there is no template to make pods of")
	}
	return replicas.Set{
		Object: rc, Selector: labels.SelectorFromValidatedSet(rc.Spec.Selector), Replicas: int(*rc.Spec.Replicas),
		MinReady: time.Duration(rc.Spec.MinReadySeconds) * time.Second,
		Template: rc.Spec.Template, Status: toShared(rc.Status),
	}, err
}

// toShared writes a status in the form that both kinds have in common.
func toShared(s corev1.ReplicationControllerStatus) appsv1.ReplicaSetStatus {
	out := appsv1.ReplicaSetStatus{
		Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas, ReadyReplicas: s.ReadyReplicas,
		AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration,
	}
	for _, c := range s.Conditions {
		out.Conditions = append(out.Conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetConditionType(c.Type), Status: c.Status,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	return out
}

// fromShared is the way back.
func fromShared(s appsv1.ReplicaSetStatus) corev1.ReplicationControllerStatus {
	out := corev1.ReplicationControllerStatus{
		Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas, ReadyReplicas: s.ReadyReplicas,
		AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration,
	}
	for _, c := range s.Conditions {
		out.Conditions = append(out.Conditions, corev1.ReplicationControllerCondition{
			Type: corev1.ReplicationControllerConditionType(c.Type), Status: c.Status,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	return out
}
