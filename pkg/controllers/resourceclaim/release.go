package resourceclaim

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/reconcile"
)

func (c *Controller) reconcileClaim(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	claim := reconcile.Cached[*resourcev1.ResourceClaim](c.claims, req.Key)
	if claim == nil {
		return reconcile.Result{}, nil
	}
	var left []resourcev1.ResourceClaimConsumerReference
	for i := range claim.Status.ReservedFor {
		r := &claim.Status.ReservedFor[i]
		over := false
		if forPod(r) {
			var err error
			if over, err = c.over(ctx, claim.Namespace, r.Name, r.UID); err != nil {
				return reconcile.Result{}, err
			}
		}
		if !over {
			left = append(left, *r)
		}
	}
	claim, err := c.release(ctx, req, claim, left)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("release claim %s: %w", req.Key, err)
	}
	if len(left) > 0 || claim.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{}, c.collect(ctx, req, claim)
}

// over says that a pod is gone, replaced by another of its name, or done. The
// cache is believed only where it knows this very pod.
func (c *Controller) over(ctx context.Context, namespace, name string, uid types.UID) (bool, error) {
	pod := reconcile.Cached[*corev1.Pod](c.pods, reconcile.Key{Namespace: namespace, Name: name})
	if pod == nil || pod.UID != uid {
		var err error
		pod, err = c.env.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("look for pod %s/%s, which uses a claim: %w", namespace, name, err)
		}
	}
	return pod.UID != uid || done(pod), nil
}

// release writes who is left of a claim's users and what follows from that.
func (c *Controller) release(ctx context.Context, req *reconcile.Request, claim *resourcev1.ResourceClaim, left []resourcev1.ResourceClaimConsumerReference) (*resourcev1.ResourceClaim, error) {
	client := c.env.Client.ResourceV1().ResourceClaims(claim.Namespace)
	next := released(claim, left)
	if next != nil {
		// The version must be the one that was looked at: users come and go.
		got, err := client.UpdateStatus(ctx, next, metav1.UpdateOptions{})
		if err != nil {
			return nil, err
		}
		req.Wrote(c.claims, got)
		claim = got
	}
	if bare := unprotected(claim, next != nil); bare != nil {
		got, err := client.Update(ctx, bare, metav1.UpdateOptions{})
		if err != nil {
			return nil, err
		}
		req.Wrote(c.claims, got)
		claim = got
	}
	return claim, nil
}

// collect deletes a claim that was made for a pod which is done, though the pod
// itself may stay. Where the pod is gone the garbage collector is at work.
func (c *Controller) collect(ctx context.Context, req *reconcile.Request, claim *resourcev1.ResourceClaim) error {
	ref := owner(claim)
	if ref == nil {
		return nil
	}
	pod := reconcile.Cached[*corev1.Pod](c.pods, reconcile.Key{Namespace: claim.Namespace, Name: ref.Name})
	if pod == nil {
		return nil
	}
	over, err := c.over(ctx, claim.Namespace, ref.Name, ref.UID)
	if err != nil || !over {
		return err
	}
	err = c.env.Client.ResourceV1().ResourceClaims(claim.Namespace).Delete(ctx, claim.Name, *metav1.NewPreconditionDeleteOptions(string(claim.UID)))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete unused generated claim %s: %w", req.Key, err)
	}
	req.Deleted(c.claims, claim)
	return nil
}
