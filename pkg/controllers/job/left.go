package job

import (
	"context"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/reconcile"
)

// isLeft reports whether, by the cache, pod has the finalizer of a job that
// does not count it any more: the job is finished or gone, or there never was
// one.
func (c *Controller) isLeft(pod *corev1.Pod) bool {
	if !tracked(pod) {
		return false
	}
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil {
		return !c.adoptable(pod)
	}
	if ref.Kind != kind.Kind || ref.APIVersion != kind.GroupVersion().String() {
		return false
	}
	job := reconcile.Cached[*batchv1.Job](c.jobs, reconcile.Key{Namespace: pod.Namespace, Name: ref.Name})
	return job == nil || job.UID != ref.UID || ours(job) && finished(job)
}

// adoptable reports whether there is a job that pod may still belong to.
func (c *Controller) adoptable(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp != nil {
		return false
	}
	for _, job := range reconcile.Indexed[*batchv1.Job](c.jobs, cache.NamespaceIndex, pod.Namespace) {
		if job.DeletionTimestamp != nil || finished(job) {
			continue
		}
		if selector, err := selectorOf(job); err == nil && selector.Matches(labels.Set(pod.Labels)) {
			return true
		}
	}
	return false
}

// leftBy returns the pods that the event about job leaves behind: those of one
// that is finished or gone, and those that it could have adopted.
func (c *Controller) leftBy(job *batchv1.Job) []reconcile.Key {
	now := reconcile.Cached[*batchv1.Job](c.jobs, reconcile.KeyOf(job))
	if now != nil && now.UID == job.UID && !finished(now) && now.DeletionTimestamp == nil {
		return nil
	}
	var keys []reconcile.Key
	for _, owner := range []string{string(job.UID), reconcile.OrphansIn(job.Namespace)} {
		for _, pod := range reconcile.Indexed[*corev1.Pod](c.pods, reconcile.ByController, owner) {
			if c.isLeft(pod) {
				keys = append(keys, reconcile.KeyOf(pod))
			}
		}
	}
	return keys
}

// letGo removes the finalizer from a pod that was left, so that it can be
// deleted.
func (c *Controller) letGo(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	pod := reconcile.Cached[*corev1.Pod](c.pods, req.Key)
	if pod == nil || !c.isLeft(pod) {
		return reconcile.Result{}, nil
	}
	// The cache of jobs may be behind that of pods.
	if ref := metav1.GetControllerOfNoCopy(pod); ref != nil {
		job, err := c.env.Client.BatchV1().Jobs(pod.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return reconcile.Result{}, fmt.Errorf("confirm that the job of pod %s is gone: %w", pod.Name, err)
		case job.UID == ref.UID && (!ours(job) || !finished(job)):
			return reconcile.Result{}, reconcile.ErrStale
		}
	}
	_, err := c.manager.Unfinalize(ctx, req, []*corev1.Pod{pod}, true)
	return reconcile.Result{}, err
}
