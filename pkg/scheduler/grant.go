package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"

	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	resourceclient "k8s.io/client-go/kubernetes/typed/resource/v1"

	"coracle/pkg/scheduler/plugin"
)

// grantTries is how often a claim is written that somebody else changes
// meanwhile.
const grantTries = 5

// grant writes the devices that were chosen into a pod's claims, and that the
// pod uses them.
func (s *Scheduler) grant(ctx context.Context, pod *plugin.Pod, work *plugin.DeviceWork) error {
	ctx, cancel := context.WithTimeout(ctx, bindTimeout)
	defer cancel()
	for i := range work.Grant {
		claim, err := s.reserve(ctx, pod, work.Grant[i].Claim, &work.Grant[i].Allocation)
		if err != nil {
			return err
		}
		s.devices.Written(claim)
	}
	for _, claim := range work.Reserve {
		if _, err := s.reserve(ctx, pod, claim, nil); err != nil {
			return err
		}
	}
	return nil
}

// reserve writes one claim; allocation is nil when it has devices already.
func (s *Scheduler) reserve(ctx context.Context, pod *plugin.Pod, claim *resourcev1.ResourceClaim, allocation *resourcev1.AllocationResult) (*resourcev1.ResourceClaim, error) {
	client := s.cfg.Client.ResourceV1().ResourceClaims(claim.Namespace)
	uid := claim.UID
	for try := 1; ; try++ {
		if claim.UID != uid || claim.DeletionTimestamp != nil {
			return nil, fmt.Errorf("claim %s/%s got deleted in the meantime", claim.Namespace, claim.Name)
		}
		if !s.cluster.isAssumed(pod.UID) {
			return nil, errors.New("pod does not exist any more")
		}
		got, err := writeClaim(ctx, client, pod, claim, allocation)
		if err == nil || !apierrors.IsConflict(err) || try == grantTries {
			return got, err
		}
		if claim, err = client.Get(ctx, claim.Name, metav1.GetOptions{}); err != nil {
			return nil, fmt.Errorf("get updated claim after conflict: %w", err)
		}
	}
}

// writeClaim protects a claim and then writes devices and pod into its status,
// in that order: a claim with devices must not vanish.
func writeClaim(ctx context.Context, client resourceclient.ResourceClaimInterface, pod *plugin.Pod, claim *resourcev1.ResourceClaim, allocation *resourcev1.AllocationResult) (*resourcev1.ResourceClaim, error) {
	next := claim.DeepCopy()
	name := claim.Namespace + "/" + claim.Name
	switch {
	case allocation == nil && claim.Status.Allocation == nil:
		return nil, fmt.Errorf("claim %s got deallocated elsewhere in the meantime", name)
	case allocation != nil && claim.Status.Allocation != nil:
		return nil, fmt.Errorf("claim %s got allocated elsewhere in the meantime", name)
	case allocation != nil:
		if !slices.Contains(next.Finalizers, resourcev1.Finalizer) {
			next.Finalizers = append(next.Finalizers, resourcev1.Finalizer)
			var err error
			if next, err = client.Update(ctx, next, metav1.UpdateOptions{}); err != nil {
				return nil, fmt.Errorf("add finalizer to claim %s: %w", name, err)
			}
		}
		next.Status.Allocation = allocation.DeepCopy()
	}
	if !hasUser(next, pod.UID) {
		next.Status.ReservedFor = append(next.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID})
	}
	got, err := client.UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if err != nil {
		return nil, fmt.Errorf("add allocation and reservation to claim %s: %w", name, err)
	}
	return got, nil
}

func hasUser(claim *resourcev1.ResourceClaim, pod types.UID) bool {
	return slices.ContainsFunc(claim.Status.ReservedFor, func(r resourcev1.ResourceClaimConsumerReference) bool { return r.UID == pod })
}

// giveBack takes a pod off the claims that this attempt put it on, and takes
// back the devices that nobody else came to use. What cannot be given back now
// is found at the next attempt, or by the controller when the pod goes.
func (s *Scheduler) giveBack(ctx context.Context, pod *plugin.Pod, o *outcome) {
	if o.devices.Empty() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, bindTimeout)
	defer cancel()
	// The answer to a binding may be lost, and another may have bound the pod.
	now, err := s.cfg.Client.CoreV1().Pods(pod.Namespace()).Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil || now.UID != pod.UID || now.Spec.NodeName != "" {
		return
	}
	for i := range o.devices.Grant {
		s.takeOff(ctx, pod, o.devices.Grant[i].Claim, true)
	}
	for _, claim := range o.devices.Reserve {
		s.takeOff(ctx, pod, claim, false)
	}
}

func (s *Scheduler) takeOff(ctx context.Context, pod *plugin.Pod, was *resourcev1.ResourceClaim, granted bool) {
	client := s.cfg.Client.ResourceV1().ResourceClaims(was.Namespace)
	claim, err := client.Get(ctx, was.Name, metav1.GetOptions{})
	if err != nil || claim.UID != was.UID || !hasUser(claim, pod.UID) {
		return
	}
	claim.Status.ReservedFor = slices.DeleteFunc(claim.Status.ReservedFor, func(r resourcev1.ResourceClaimConsumerReference) bool { return r.UID == pod.UID })
	if granted && len(claim.Status.ReservedFor) == 0 {
		claim.Status.Allocation, claim.Status.Devices = nil, nil
	}
	if _, err := client.UpdateStatus(ctx, claim, metav1.UpdateOptions{}); err != nil {
		s.cfg.Log.Warn("devices of a pod that was not bound could not be given back", "pod", pod.Key(), "claim", claim.Name, "error", err)
	}
}

// unstrand takes devices from a claim of a pod that waits because they are
// elsewhere, and which nobody else uses: other devices may be where the pod can
// go.
func (s *Scheduler) unstrand(ctx context.Context, pod *plugin.Pod, why *diagnosis) {
	if len(pod.Devices) == 0 || why.reasons[plugin.ReasonDeviceElsewhere] == 0 {
		return
	}
	claim := plugin.Stranded(s.devices, pod)
	if claim == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, bindTimeout)
	defer cancel()
	claim = claim.DeepCopy()
	claim.Status.Allocation, claim.Status.ReservedFor, claim.Status.Devices = nil, nil, nil
	if _, err := s.cfg.Client.ResourceV1().ResourceClaims(claim.Namespace).UpdateStatus(ctx, claim, metav1.UpdateOptions{}); err != nil && !apierrors.IsConflict(err) && ctx.Err() == nil {
		s.cfg.Log.Warn("devices where a pod cannot go could not be taken back", "pod", pod.Key(), "claim", claim.Name, "error", err)
	}
}
