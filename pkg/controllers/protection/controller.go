// Package protection keeps what is in use: a claim that a pod has mounted, a
// volume that a claim is bound to, a volume attributes class that a claim or a
// volume has, a group that pods are members of. Admission gives each a
// finalizer; here it is taken off once the object is being deleted and nothing
// uses it.
package protection

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// Controller looks after the finalizer of one kind. Make it with NewClaims,
// NewVolumes, NewClasses or NewGroups.
type Controller[T object[T]] struct {
	loop      *reconcile.Loop
	informer  cache.SharedIndexInformer
	finalizer string
	// bare leaves objects alone that came before their protection, or whose
	// protection somebody took off.
	bare   bool
	used   func(ctx context.Context, obj T) (bool, error)
	update func(ctx context.Context, obj T, opts metav1.UpdateOptions) (T, error)
}

type object[T any] interface {
	reconcile.Object
	DeepCopy() T
}

// Run blocks until ctx ends.
func (c *Controller[T]) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller[T]) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	var none T
	obj := reconcile.Cached[T](c.informer, req.Key)
	if obj == none {
		return reconcile.Result{}, nil
	}
	switch decide(obj, c.finalizer) {
	case leave:
		return reconcile.Result{}, nil
	case protect:
		if c.bare {
			return reconcile.Result{}, nil
		}
	case release:
		used, err := c.used(ctx, obj)
		if err != nil || used {
			return reconcile.Result{}, err
		}
	}
	next := obj.DeepCopy()
	next.SetFinalizers(toggled(obj, c.finalizer))
	got, err := c.update(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return reconcile.Result{}, nil
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("change the finalizers of %s: %w", req.Key, err)
	}
	if got.GetDeletionTimestamp() == nil {
		req.Wrote(c.informer, got)
	}
	return reconcile.Result{}, nil
}

// NewClaims protects claims that pods use.
func NewClaims(env reconcile.Env) *Controller[*corev1.PersistentVolumeClaim] {
	env = env.Defaulted()
	c := &Controller[*corev1.PersistentVolumeClaim]{
		informer: env.Informers.Core().V1().PersistentVolumeClaims().Informer(), finalizer: "kubernetes.io/pvc-protection",
		update: func(ctx context.Context, claim *corev1.PersistentVolumeClaim, opts metav1.UpdateOptions) (*corev1.PersistentVolumeClaim, error) {
			return env.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, opts)
		},
	}
	c.loop = env.Loop("pvc-protection", c.reconcile)
	reconcile.Watch(c.loop, c.informer, reconcile.Self[*corev1.PersistentVolumeClaim])
	pods := env.Informers.Core().V1().Pods().Informer()
	reconcile.Watch(c.loop, pods, func(pod *corev1.Pod) []reconcile.Key {
		var keys []reconcile.Key
		for _, name := range claimsOf(pod) {
			key := reconcile.Key{Namespace: pod.Namespace, Name: name}
			if claim := reconcile.Cached[*corev1.PersistentVolumeClaim](c.informer, key); claim != nil && claim.DeletionTimestamp != nil {
				keys = append(keys, key)
			}
		}
		return keys
	})
	c.used = func(ctx context.Context, claim *corev1.PersistentVolumeClaim) (bool, error) {
		for _, obj := range pods.GetStore().List() {
			if pod, ok := obj.(*corev1.Pod); ok && holds(pod, claim) {
				return true, nil
			}
		}
		// A pod may be bound that the cache does not show yet.
		live, err := env.Client.CoreV1().Pods(claim.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, fmt.Errorf("look for pods that use claim %s/%s: %w", claim.Namespace, claim.Name, err)
		}
		for i := range live.Items {
			if holds(&live.Items[i], claim) {
				return true, nil
			}
		}
		return false, nil
	}
	return c
}

// NewVolumes protects volumes that are bound.
func NewVolumes(env reconcile.Env) *Controller[*corev1.PersistentVolume] {
	env = env.Defaulted()
	c := &Controller[*corev1.PersistentVolume]{
		informer: env.Informers.Core().V1().PersistentVolumes().Informer(), finalizer: "kubernetes.io/pv-protection",
		used:   func(_ context.Context, volume *corev1.PersistentVolume) (bool, error) { return bound(volume), nil },
		update: env.Client.CoreV1().PersistentVolumes().Update,
	}
	c.loop = env.Loop("pv-protection", c.reconcile)
	reconcile.Watch(c.loop, c.informer, reconcile.Self[*corev1.PersistentVolume])
	return c
}

// NewClasses protects volume attributes classes that claims or volumes have.
func NewClasses(env reconcile.Env) *Controller[*storagev1.VolumeAttributesClass] {
	env = env.Defaulted()
	claims := env.Informers.Core().V1().PersistentVolumeClaims().Informer()
	volumes := env.Informers.Core().V1().PersistentVolumes().Informer()
	c := &Controller[*storagev1.VolumeAttributesClass]{
		informer: env.Informers.Storage().V1().VolumeAttributesClasses().Informer(), finalizer: "kubernetes.io/vac-protection",
		update: env.Client.StorageV1().VolumeAttributesClasses().Update,
	}
	c.loop = env.Loop("vac-protection", c.reconcile)
	reconcile.Watch(c.loop, c.informer, reconcile.Self[*storagev1.VolumeAttributesClass])
	reconcile.Watch(c.loop, claims, func(claim *corev1.PersistentVolumeClaim) []reconcile.Key { return named(classesOf(claim)) })
	reconcile.Watch(c.loop, volumes, func(volume *corev1.PersistentVolume) []reconcile.Key {
		return named(classOf(volume))
	})
	c.used = func(ctx context.Context, class *storagev1.VolumeAttributesClass) (bool, error) {
		for _, obj := range claims.GetStore().List() {
			if claim, ok := obj.(*corev1.PersistentVolumeClaim); ok && slices.Contains(classesOf(claim), class.Name) {
				return true, nil
			}
		}
		for _, obj := range volumes.GetStore().List() {
			if volume, ok := obj.(*corev1.PersistentVolume); ok && slices.Contains(classOf(volume), class.Name) {
				return true, nil
			}
		}
		return classUsed(ctx, env.Client, class.Name)
	}
	return c
}

// pageSize is how many objects are asked for at once.
const pageSize = 500

// classUsed asks the server whether a claim or a volume has the class: the
// caches may not show the newest.
func classUsed(ctx context.Context, client kubernetes.Interface, name string) (bool, error) {
	for opts := (metav1.ListOptions{Limit: pageSize}); ; {
		list, err := client.CoreV1().PersistentVolumeClaims("").List(ctx, opts)
		if err != nil {
			return false, fmt.Errorf("look for claims of class %s: %w", name, err)
		}
		for i := range list.Items {
			if slices.Contains(classesOf(&list.Items[i]), name) {
				return true, nil
			}
		}
		if opts.Continue = list.Continue; opts.Continue == "" {
			break
		}
	}
	for opts := (metav1.ListOptions{Limit: pageSize}); ; {
		list, err := client.CoreV1().PersistentVolumes().List(ctx, opts)
		if err != nil {
			return false, fmt.Errorf("look for volumes of class %s: %w", name, err)
		}
		for i := range list.Items {
			if slices.Contains(classOf(&list.Items[i]), name) {
				return true, nil
			}
		}
		if opts.Continue = list.Continue; opts.Continue == "" {
			return false, nil
		}
	}
}

func named(names []string) []reconcile.Key {
	keys := make([]reconcile.Key, len(names))
	for i, name := range names {
		keys[i].Name = name
	}
	return keys
}
