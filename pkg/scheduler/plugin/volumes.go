package plugin

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/volumebinding"
)

// Volumes shows claims and what they may be bound to. Objects are shared and
// never changed; nil means that there is none.
type Volumes interface {
	Claim(namespace, name string) *corev1.PersistentVolumeClaim
	Volume(name string) *corev1.PersistentVolume
	Class(name string) *storagev1.StorageClass
	// OfClass are the volumes of a class.
	OfClass(class string) []*corev1.PersistentVolume
	// Promised is the claim that a volume is about to get, for a pod on its way
	// to a node; empty when there is none.
	Promised(volume string) types.UID
	// Selected is the node that a claim's volume is being made for; empty when
	// none is chosen.
	Selected(claim *corev1.PersistentVolumeClaim) string
	// HasRoom says whether the provisioner of a class can make a volume for the
	// claim that the node can reach.
	HasRoom(class *storagev1.StorageClass, claim *corev1.PersistentVolumeClaim, node *Facts) bool
}

// The refusals of VolumeBinding, in upstream's words.
const (
	reasonUnboundImmediate = "pod has unbound immediate PersistentVolumeClaims"
	reasonNoVolume         = "node(s) didn't find available persistent volumes to bind"
	reasonVolumeElsewhere  = "node(s) didn't match PersistentVolume's node affinity"
	reasonNoSpace          = "node(s) did not have enough free storage"
	reasonVolumeLost       = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
)

// VolumeBinding sends pods where the volumes of their claims are, or can be
// made.
type VolumeBinding struct{ volumes Volumes }

func newVolumeBinding(_ Args, h Handles) (Plugin, error) { return VolumeBinding{h.Volumes}, nil }

// Name implements Plugin.
func (VolumeBinding) Name() string { return "VolumeBinding" }

// PreFilter implements Filter.
func (b VolumeBinding) PreFilter(_ *Cluster, p *Pod) FilterPlan {
	if b.volumes == nil || len(p.Claims) == 0 {
		return FilterPlan{}
	}
	needs, refused := volumeNeeds(b.volumes, p)
	if !refused.OK() {
		return FilterPlan{Refuse: refused, PerPod: true}
	}
	return FilterPlan{Check: volumeCheck{needs}, PerPod: true}
}

type volumeCheck struct{ needs *VolumeNeeds }

// Check implements Check.
func (c volumeCheck) Check(v *View) Verdict {
	_, verdict := c.needs.On(v.Facts)
	return verdict
}

// VolumeNeeds is what a pod's claims have, and what they still need.
type VolumeNeeds struct {
	volumes Volumes
	bound   []*corev1.PersistentVolume
	lost    bool // a claim is bound to a volume that is not there
	// pending are the claims that wait for the pod's node, the smallest first.
	pending []pendingClaim
}

type pendingClaim struct {
	claim *corev1.PersistentVolumeClaim
	class *storagev1.StorageClass
	// node is where the claim's volume is being made already; empty if nowhere.
	node string
	// fitting are the volumes it may have, the best first.
	fitting []*corev1.PersistentVolume
}

// VolumeWork is what is to be done about a pod's claims before it is bound to a
// node.
type VolumeWork struct {
	// Bind are claims and the volumes that they are to get.
	Bind []VolumeMatch
	// Provision are claims whose volumes are to be made for the node.
	Provision []*corev1.PersistentVolumeClaim
}

// VolumeMatch is a claim and the volume that it is to get.
type VolumeMatch struct {
	Claim  *corev1.PersistentVolumeClaim
	Volume *corev1.PersistentVolume
}

// Empty says that there is nothing to do.
func (w *VolumeWork) Empty() bool { return len(w.Bind)+len(w.Provision) == 0 }

// PlanVolumes is the work that a pod's claims need on a node that VolumeBinding
// let it have.
func PlanVolumes(volumes Volumes, p *Pod, node *Facts) (VolumeWork, Verdict) {
	needs, refused := volumeNeeds(volumes, p)
	if !refused.OK() {
		return VolumeWork{}, refused
	}
	return needs.On(node)
}

func volumeNeeds(volumes Volumes, p *Pod) (*VolumeNeeds, Verdict) {
	n := &VolumeNeeds{volumes: volumes}
	for _, name := range p.Claims {
		claim := volumes.Claim(p.Namespace(), name)
		if why := unusable(claim, name); why != "" {
			return nil, refuse(Unresolvable, []string{why})
		}
		if volumebinding.FullyBound(claim) {
			if v := volumes.Volume(claim.Spec.VolumeName); v != nil {
				n.bound = append(n.bound, v)
			} else {
				n.lost = true
			}
			continue
		}
		class := volumes.Class(volumebinding.ClassOf(claim))
		if claim.Spec.VolumeName != "" || !volumebinding.Waits(class) {
			return nil, refuse(Unresolvable, []string{reasonUnboundImmediate})
		}
		fitting, err := volumebinding.Fitting(claim, volumes.OfClass(class.Name))
		if err != nil {
			return nil, refuse(Unresolvable, []string{err.Error()})
		}
		n.pending = append(n.pending, pendingClaim{claim, class, volumes.Selected(claim), promisedFirst(volumes, claim, fitting)})
	}
	slices.SortStableFunc(n.pending, func(a, b pendingClaim) int {
		x, y := a.claim.Spec.Resources.Requests[corev1.ResourceStorage], b.claim.Spec.Resources.Requests[corev1.ResourceStorage]
		return x.Cmp(y)
	})
	return n, Verdict{}
}

// unusable says why no pod may use a claim, whatever its volume.
func unusable(claim *corev1.PersistentVolumeClaim, name string) string {
	switch {
	case claim == nil:
		return fmt.Sprintf("persistentvolumeclaim %q not found", name)
	case claim.Status.Phase == corev1.ClaimLost:
		return fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, claim.Spec.VolumeName)
	case claim.DeletionTimestamp != nil:
		return fmt.Sprintf("persistentvolumeclaim %q is being deleted", name)
	}
	return ""
}

// promisedFirst leaves only the volume that the claim is about to get, or else
// those that nobody is.
func promisedFirst(volumes Volumes, claim *corev1.PersistentVolumeClaim, list []*corev1.PersistentVolume) []*corev1.PersistentVolume {
	open := list[:0]
	for _, v := range list {
		switch volumes.Promised(v.Name) {
		case claim.UID:
			return []*corev1.PersistentVolume{v}
		case "":
			open = append(open, v)
		}
	}
	return open
}

// On is what is to be done to have the pod's volumes on a node, or why that
// cannot be.
func (n *VolumeNeeds) On(node *Facts) (VolumeWork, Verdict) {
	if n.lost {
		return VolumeWork{}, refuse(Unresolvable, []string{reasonVolumeLost})
	}
	for _, v := range n.bound {
		if !volumebinding.Reaches(v, node.Object) {
			return VolumeWork{}, refuse(Unresolvable, []string{reasonVolumeElsewhere})
		}
	}
	var work VolumeWork
	for _, p := range n.pending {
		if v := p.match(node, &work); v != nil {
			work.Bind = append(work.Bind, VolumeMatch{p.claim, v})
			continue
		}
		if p.node != "" && p.node != node.Name || !volumebinding.Provisions(p.class, node.Labels) ||
			len(p.fitting) > 0 && volumebinding.Names(p.fitting[0], p.claim) {
			return VolumeWork{}, refuse(Unresolvable, []string{reasonNoVolume})
		}
		if p.node == "" && !n.volumes.HasRoom(p.class, p.claim, node) {
			return VolumeWork{}, refuse(Unresolvable, []string{reasonNoSpace})
		}
		work.Provision = append(work.Provision, p.claim)
	}
	return work, Verdict{}
}

// match is the best volume that the node reaches and no other claim of the pod
// takes. A claim whose volume is being made gets no other.
func (p *pendingClaim) match(node *Facts, work *VolumeWork) *corev1.PersistentVolume {
	if p.node != "" {
		return nil
	}
	for _, v := range p.fitting {
		taken := slices.ContainsFunc(work.Bind, func(m VolumeMatch) bool { return m.Volume.Name == v.Name })
		if !taken && volumebinding.Reaches(v, node.Object) {
			return v
		}
	}
	return nil
}
