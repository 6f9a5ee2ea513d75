// Package replicaset keeps as many pods as each ReplicaSet asks for; replicas
// says how.
package replicaset

import (
	"context"
	"errors"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/controllers/replicas"
	"coracle/pkg/reconcile"
)

// New registers the informers of the controller of ReplicaSets.
func New(env reconcile.Env) *replicas.Controller[*appsv1.ReplicaSet] {
	env = env.Defaulted()
	return replicas.New(env, replicas.Kind[*appsv1.ReplicaSet]{
		Name:     "replicaset",
		Kind:     appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
		Informer: env.Informers.Apps().V1().ReplicaSets().Informer(),
		Describe: describe,
		Live: func(ctx context.Context, key reconcile.Key) (*appsv1.ReplicaSet, error) {
			return env.Client.AppsV1().ReplicaSets(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
		},
		WriteStatus: func(ctx context.Context, rs *appsv1.ReplicaSet, s appsv1.ReplicaSetStatus) (*appsv1.ReplicaSet, error) {
			rs = rs.DeepCopy()
			rs.Status = s
			return env.Client.AppsV1().ReplicaSets(rs.Namespace).UpdateStatus(ctx, rs, metav1.UpdateOptions{})
		},
	})
}

func describe(rs *appsv1.ReplicaSet) (replicas.Set, error) {
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err == nil && selector.Empty() {
		err = errors.New("it is empty and would take every pod of the namespace")
	}
	return replicas.Set{
		Object: rs, Selector: selector, Replicas: int(*rs.Spec.Replicas),
		MinReady: time.Duration(rs.Spec.MinReadySeconds) * time.Second,
		Template: &rs.Spec.Template, Status: rs.Status, CountsTerminating: true,
	}, err
}
