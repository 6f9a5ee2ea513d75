package endpointset

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// triggerAnnotation tells readers when the cause of a change happened.
const triggerAnnotation = corev1.EndpointsLastChangeTriggerTime

// ByService is the name of the index that AddServiceIndex makes.
const ByService = "service-and-manager"

// AddServiceIndex indexes slices by Service and managing controller. Adding it
// twice is harmless.
func AddServiceIndex(informer cache.SharedIndexInformer) {
	if _, ok := informer.GetIndexer().GetIndexers()[ByService]; ok {
		return
	}
	err := informer.AddIndexers(cache.Indexers{ByService: func(obj any) ([]string, error) {
		s, ok := obj.(*discoveryv1.EndpointSlice)
		if !ok {
			return nil, nil
		}
		key := reconcile.Key{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
		return []string{IndexValue(key, s.Labels[discoveryv1.LabelManagedBy])}, nil
	}})
	if err != nil {
		panic(fmt.Sprintf("add indices before the informers stop: %v", err))
	}
}

// IndexValue is the ByService value of a Service's slices of one manager.
func IndexValue(service reconcile.Key, manager string) string {
	return service.String() + " " + manager
}

// ServiceOf maps a slice of the given manager to its Service.
func ServiceOf(manager string) func(*discoveryv1.EndpointSlice) []reconcile.Key {
	return func(s *discoveryv1.EndpointSlice) []reconcile.Key {
		name := s.Labels[discoveryv1.LabelServiceName]
		if name == "" || s.Labels[discoveryv1.LabelManagedBy] != manager {
			return nil
		}
		return []reconcile.Key{{Namespace: s.Namespace, Name: name}}
	}
}

// Write executes c. A namespace that is going away is no error.
func Write(ctx context.Context, req *reconcile.Request, client kubernetes.Interface, informer cache.SharedIndexInformer, c Changes) error {
	for _, s := range c.Create {
		got, err := client.DiscoveryV1().EndpointSlices(s.Namespace).Create(ctx, s, metav1.CreateOptions{})
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		if err != nil {
			if reconcile.Lost(err) {
				req.Unsure(lookFor(client, informer, s))
			}
			return fmt.Errorf("create endpoint slice %s*: %w", s.GenerateName, err)
		}
		req.Wrote(informer, got)
	}
	for _, s := range c.Update {
		got, err := client.DiscoveryV1().EndpointSlices(s.Namespace).Update(ctx, s, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("update endpoint slice %s: %w", s.Name, err)
		}
		req.Wrote(informer, got)
	}
	for _, s := range c.Delete {
		err := client.DiscoveryV1().EndpointSlices(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &s.UID},
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete endpoint slice %s: %w", s.Name, err)
		}
		req.Deleted(informer, s)
	}
	return nil
}

// lookFor finds the slices of made's Service that the server has: made, whose
// create had no answer, may be one of them.
func lookFor(client kubernetes.Interface, informer cache.SharedIndexInformer, made *discoveryv1.EndpointSlice) reconcile.Look {
	return func(ctx context.Context, req *reconcile.Request) error {
		list, err := client.DiscoveryV1().EndpointSlices(made.Namespace).List(ctx, metav1.ListOptions{
			LabelSelector: discoveryv1.LabelServiceName + "=" + made.Labels[discoveryv1.LabelServiceName],
		})
		if err != nil {
			return err
		}
		for i := range list.Items {
			req.Wrote(informer, &list.Items[i])
		}
		return nil
	}
}
