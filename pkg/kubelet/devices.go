package kubelet

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// devicesError is why a pod cannot have the devices of its ResourceClaims.
type devicesError struct{ error }

func (e devicesError) Unwrap() error { return e.error }

// needsDevices refuses a pod whose claims gave it devices: this agent has no
// drivers that could prepare them, and containers must not run as if they had
// what they asked for. nil means that the pod has none.
func (k *Kubelet) needsDevices(ctx context.Context, pod *corev1.Pod) error {
	for i := range pod.Spec.ResourceClaims {
		ref := &pod.Spec.ResourceClaims[i]
		name := ref.ResourceClaimName
		if name == nil {
			made := false
			for j := range pod.Status.ResourceClaimStatuses {
				if s := &pod.Status.ResourceClaimStatuses[j]; s.Name == ref.Name {
					name, made = s.ResourceClaimName, true
				}
			}
			if made && name == nil {
				continue // its template asks for nothing
			}
		}
		if name == nil {
			return devicesError{fmt.Errorf("no ResourceClaim was made yet for %s", ref.Name)}
		}
		if err := k.claimUsable(ctx, pod.Namespace, *name, pod.UID); err != nil {
			return devicesError{err}
		}
	}
	if s := pod.Status.ExtendedResourceClaimStatus; s != nil && s.ResourceClaimName != "" {
		if err := k.claimUsable(ctx, pod.Namespace, s.ResourceClaimName, pod.UID); err != nil {
			return devicesError{err}
		}
	}
	return nil
}

// claimUsable says why a pod cannot use a claim here; nil only for a claim that
// is the pod's and has no devices.
func (k *Kubelet) claimUsable(ctx context.Context, namespace, name string, pod types.UID) error {
	claim, err := k.cfg.Client.ResourceV1().ResourceClaims(namespace).Get(ctx, name, getOptions())
	if err != nil {
		return fmt.Errorf("get ResourceClaim %s: %w", name, err)
	}
	if claim.Status.Allocation == nil {
		return fmt.Errorf("ResourceClaim %s is not allocated", name)
	}
	reserved := false
	for i := range claim.Status.ReservedFor {
		reserved = reserved || claim.Status.ReservedFor[i].UID == pod
	}
	if !reserved {
		return fmt.Errorf("the pod is not allowed to use ResourceClaim %s: it is not reserved for it", name)
	}
	for i := range claim.Status.Allocation.Devices.Results {
		return fmt.Errorf("DRA driver %s is not registered", claim.Status.Allocation.Devices.Results[i].Driver)
	}
	return nil
}

// prepareTrouble is how a failure to prepare a pod is told: the reason of its
// Event and the message.
func prepareTrouble(err error) (reason, message string) {
	if _, ok := errors.AsType[devicesError](err); ok {
		return "FailedPrepareDynamicResources", "Failed to prepare dynamic resources: " + err.Error()
	}
	return "FailedMount", err.Error()
}
