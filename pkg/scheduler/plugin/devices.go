package plugin

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// DeviceRef is one of a pod's references to ResourceClaims.
type DeviceRef struct {
	// Claim is the name of the claim; empty when none is made yet.
	Claim string
	// Generated says that the claim is made from a template, for this pod.
	Generated bool
}

// deviceRefs are a pod's references to claims, but for those that its status
// says need none.
func deviceRefs(pod *corev1.Pod) []DeviceRef {
	var refs []DeviceRef
	for i := range pod.Spec.ResourceClaims {
		r := &pod.Spec.ResourceClaims[i]
		if r.ResourceClaimName != nil {
			refs = append(refs, DeviceRef{Claim: *r.ResourceClaimName})
			continue
		}
		ref, needed := DeviceRef{Generated: true}, true
		for j := range pod.Status.ResourceClaimStatuses {
			if s := &pod.Status.ResourceClaimStatuses[j]; s.Name == r.Name {
				if needed = s.ResourceClaimName != nil; needed {
					ref.Claim = *s.ResourceClaimName
				}
				break
			}
		}
		if needed {
			refs = append(refs, ref)
		}
	}
	return refs
}

// Devices shows ResourceClaims and finds devices for them. Objects are shared
// and never changed; nil means that there is none.
type Devices interface {
	Claim(namespace, name string) *resourcev1.ResourceClaim
	HasClass(name string) bool
	// Promised says that devices for a claim were chosen and are being written.
	Promised(claim types.UID) bool
	// Finder finds devices among those that nobody has or is promised now.
	Finder() (DeviceFinder, error)
}

// DeviceFinder finds devices.
type DeviceFinder interface {
	// Find is an allocation for each claim that a pod on the node could use, or
	// nil when there is none: why says more when something is wrong with the
	// node's devices. An error is about the claims or their classes.
	Find(node *corev1.Node, claims []*resourcev1.ResourceClaim) (found []resourcev1.AllocationResult, why string, err error)
}

// The refusals of DynamicResources, in upstream's words.
const (
	reasonNoDevices = "cannot allocate all claims"
	// ReasonDeviceElsewhere is that a claim has devices that the node does not
	// reach.
	ReasonDeviceElsewhere = "resourceclaim not available on the node"
)

// DynamicResources sends pods where the devices of their ResourceClaims are, or
// can be had.
type DynamicResources struct{ devices Devices }

func newDynamicResources(_ Args, h Handles) (Plugin, error) {
	return DynamicResources{h.Devices}, nil
}

// Name implements Plugin.
func (DynamicResources) Name() string { return "DynamicResources" }

// PreFilter implements Filter.
func (d DynamicResources) PreFilter(_ *Cluster, p *Pod) FilterPlan {
	if d.devices == nil || len(p.Devices) == 0 {
		return FilterPlan{}
	}
	needs, refused := deviceNeedsOf(d.devices, p)
	if !refused.OK() {
		return FilterPlan{Refuse: refused, PerPod: true}
	}
	return FilterPlan{Check: deviceCheck{needs}, PerPod: true}
}

// MayHelp implements Hinter.
func (DynamicResources) MayHelp(p *Pod, e *Event) bool {
	switch e.Kind {
	case NodeAdded, NodeUpdated, OwnPodUpdated:
		return true
	case ObjectChanged:
		if e.Object == nil && e.OldObject == nil {
			return true
		}
		return aboutDevices(e) && mayHelpDevices(p, e)
	}
	return false
}

// aboutDevices says that an event is about an object that has to do with
// devices, and so with nothing else.
func aboutDevices(e *Event) bool {
	obj := e.Object
	if obj == nil {
		obj = e.OldObject
	}
	switch obj.(type) {
	case *resourcev1.ResourceClaim, *resourcev1.ResourceSlice, *resourcev1.DeviceClass, *resourcev1.DeviceTaintRule:
		return true
	}
	return false
}

// mayHelpDevices: a claim helps the pods that name it, or all by giving devices
// back.
func mayHelpDevices(p *Pod, e *Event) bool {
	old, _ := e.OldObject.(*resourcev1.ResourceClaim)
	now, _ := e.Object.(*resourcev1.ResourceClaim)
	if old == nil && now == nil {
		return true
	}
	if old != nil && old.Status.Allocation != nil && (now == nil || now.Status.Allocation == nil) {
		return true
	}
	claim := now
	if claim == nil {
		claim = old
	}
	return claim.Namespace == p.Namespace() && slices.ContainsFunc(p.Devices, func(r DeviceRef) bool { return r.Claim == claim.Name })
}

type deviceCheck struct{ needs *deviceNeeds }

// Check implements Check.
func (c deviceCheck) Check(v *View) Verdict {
	_, verdict := c.needs.on(v.Facts)
	return verdict
}

// deviceNeeds is what a pod's claims have, and what they still need.
type deviceNeeds struct {
	finder DeviceFinder // nil when all claims have devices
	// placed are where the devices of claims that have some can be used.
	placed []*nodeaffinity.NodeSelector
	// pending are the claims without devices, unreserved those with devices
	// which do not know of the pod.
	pending, unreserved []*resourcev1.ResourceClaim
}

// DeviceWork is what is to be written to a pod's claims before it is bound.
type DeviceWork struct {
	// Grant are claims that get devices.
	Grant []DeviceGrant
	// Reserve are claims that have devices and are to know of the pod.
	Reserve []*resourcev1.ResourceClaim
}

// DeviceGrant is a claim and the devices that it is to get.
type DeviceGrant struct {
	Claim      *resourcev1.ResourceClaim
	Allocation resourcev1.AllocationResult
}

// Empty says that there is nothing to do.
func (w *DeviceWork) Empty() bool { return len(w.Grant)+len(w.Reserve) == 0 }

// PlanDevices is the work on a pod's claims for a node that DynamicResources
// let it have.
func PlanDevices(devices Devices, p *Pod, node *Facts) (DeviceWork, Verdict) {
	needs, refused := deviceNeedsOf(devices, p)
	if !refused.OK() {
		return DeviceWork{}, refused
	}
	return needs.on(node)
}

// reserves says that a claim knows of a pod.
func reserves(claim *resourcev1.ResourceClaim, pod types.UID) bool {
	return slices.ContainsFunc(claim.Status.ReservedFor, func(r resourcev1.ResourceClaimConsumerReference) bool { return r.UID == pod })
}

func deviceNeedsOf(devices Devices, p *Pod) (*deviceNeeds, Verdict) {
	n := &deviceNeeds{}
	for _, ref := range p.Devices {
		claim, why := claimOf(devices, p, ref)
		if why != "" {
			return nil, refuse(Unresolvable, []string{why})
		}
		if claim.Status.Allocation == nil {
			if why := unallocatable(devices, claim); why != "" {
				return nil, refuse(Unresolvable, []string{why})
			}
			n.pending = append(n.pending, claim)
			continue
		}
		if where := claim.Status.Allocation.NodeSelector; where != nil {
			selector, err := nodeaffinity.NewNodeSelector(where)
			if err != nil {
				return nil, refuse(Unresolvable, []string{fmt.Sprintf("resourceclaim %q is allocated to nodes that cannot be told: %v", claim.Name, err)})
			}
			n.placed = append(n.placed, selector)
		}
		if !reserves(claim, p.UID) {
			n.unreserved = append(n.unreserved, claim)
		}
	}
	if len(n.pending) > 0 {
		finder, err := devices.Finder()
		if err != nil {
			return nil, refuse(Unresolvable, []string{err.Error()})
		}
		n.finder = finder
	}
	return n, Verdict{}
}

// claimOf is the claim of a reference, or why the pod cannot use it.
func claimOf(devices Devices, p *Pod, ref DeviceRef) (*resourcev1.ResourceClaim, string) {
	if ref.Claim == "" {
		return nil, fmt.Sprintf("pod %q: ResourceClaim not created yet", p.Key())
	}
	claim := devices.Claim(p.Namespace(), ref.Claim)
	switch {
	case claim == nil:
		return nil, fmt.Sprintf("could not find ResourceClaim %q", p.Namespace()+"/"+ref.Claim)
	case claim.DeletionTimestamp != nil:
		return nil, fmt.Sprintf("resourceclaim %q is being deleted", claim.Name)
	}
	if owner := metav1.GetControllerOfNoCopy(claim); ref.Generated && (owner == nil || owner.UID != p.UID) {
		return nil, fmt.Sprintf("ResourceClaim %s/%s was not created for Pod %s (Pod is not owner)", claim.Namespace, claim.Name, p.Key())
	}
	return claim, ""
}

// unallocatable says why a claim can get no devices on any node.
func unallocatable(devices Devices, claim *resourcev1.ResourceClaim) string {
	if devices.Promised(claim.UID) {
		return fmt.Sprintf("resource claim %s/%s is in the process of being allocated", claim.Namespace, claim.Name)
	}
	for i := range claim.Spec.Devices.Requests {
		r := &claim.Spec.Devices.Requests[i]
		switch {
		case r.Exactly != nil:
			if !devices.HasClass(r.Exactly.DeviceClassName) {
				return fmt.Sprintf("request %s: device class %s does not exist", r.Name, r.Exactly.DeviceClassName)
			}
		case len(r.FirstAvailable) > 0:
			for j := range r.FirstAvailable {
				if sub := &r.FirstAvailable[j]; !devices.HasClass(sub.DeviceClassName) {
					return fmt.Sprintf("request %s/%s: device class %s does not exist", r.Name, sub.Name, sub.DeviceClassName)
				}
			}
		default:
			return fmt.Sprintf("resource claim %s/%s, request %s: unknown request type", claim.Namespace, claim.Name, r.Name)
		}
	}
	return ""
}

// on is what is to be done to have the pod's devices on a node, or why that
// cannot be.
func (n *deviceNeeds) on(node *Facts) (DeviceWork, Verdict) {
	for _, selector := range n.placed {
		if !selector.Match(node.Object) {
			return DeviceWork{}, refuse(Unresolvable, []string{ReasonDeviceElsewhere})
		}
	}
	work := DeviceWork{Reserve: n.unreserved}
	if n.finder == nil {
		return work, Verdict{}
	}
	found, why, err := n.finder.Find(node.Object, n.pending)
	switch {
	case err != nil:
		return DeviceWork{}, refuse(Unresolvable, []string{err.Error()})
	case why != "":
		return DeviceWork{}, refuse(Unresolvable, []string{why})
	case len(found) != len(n.pending):
		return DeviceWork{}, refuse(Unresolvable, []string{reasonNoDevices})
	}
	for i, claim := range n.pending {
		work.Grant = append(work.Grant, DeviceGrant{claim, found[i]})
	}
	return work, Verdict{}
}

// Stranded is a claim whose devices keep a pod from all nodes that could take
// it otherwise, and which nobody else uses: it may lose them. Nil if there is
// none.
func Stranded(devices Devices, p *Pod) *resourcev1.ResourceClaim {
	for _, ref := range p.Devices {
		claim := devices.Claim(p.Namespace(), ref.Claim)
		if claim == nil || claim.Status.Allocation == nil || claim.Status.Allocation.NodeSelector == nil {
			continue
		}
		if users := claim.Status.ReservedFor; len(users) == 0 || len(users) == 1 && users[0].UID == p.UID {
			return claim
		}
	}
	return nil
}
