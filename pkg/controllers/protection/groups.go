package protection

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// NewGroups protects groups of pods whose members have not all ended.
func NewGroups(env reconcile.Env) *Controller[*schedulingv1beta1.PodGroup] {
	env = env.Defaulted()
	c := &Controller[*schedulingv1beta1.PodGroup]{
		informer: env.Informers.Scheduling().V1beta1().PodGroups().Informer(), finalizer: "scheduling.k8s.io/podgroup-protection", bare: true,
		update: func(ctx context.Context, group *schedulingv1beta1.PodGroup, opts metav1.UpdateOptions) (*schedulingv1beta1.PodGroup, error) {
			return env.Client.SchedulingV1beta1().PodGroups(group.Namespace).Update(ctx, group, opts)
		},
	}
	c.loop = env.Loop("podgroup-protection", c.reconcile)
	reconcile.Watch(c.loop, c.informer, reconcile.Self[*schedulingv1beta1.PodGroup])
	pods := env.Informers.Core().V1().Pods().Informer()
	reconcile.Watch(c.loop, pods, func(pod *corev1.Pod) []reconcile.Key {
		if name := groupOf(pod); name != "" {
			key := reconcile.Key{Namespace: pod.Namespace, Name: name}
			if group := reconcile.Cached[*schedulingv1beta1.PodGroup](c.informer, key); group != nil && group.DeletionTimestamp != nil {
				return []reconcile.Key{key}
			}
		}
		return nil
	})
	c.used = func(ctx context.Context, group *schedulingv1beta1.PodGroup) (bool, error) {
		for _, pod := range reconcile.Indexed[*corev1.Pod](pods, cache.NamespaceIndex, group.Namespace) {
			if groupOf(pod) == group.Name {
				return true, nil
			}
		}
		// A member may have come that the cache does not show yet.
		live, err := env.Client.CoreV1().Pods(group.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, fmt.Errorf("look for members of group %s/%s: %w", group.Namespace, group.Name, err)
		}
		for i := range live.Items {
			if groupOf(&live.Items[i]) == group.Name {
				return true, nil
			}
		}
		return false, nil
	}
	return c
}
