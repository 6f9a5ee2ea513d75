package plugin

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	reasonReadWriteOncePod = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
	reasonVolumeZone       = "node(s) had no available volume zone"
)

// VolumeRestrictions gives a claim that one pod may have to one pod only.
type VolumeRestrictions struct{ volumes Volumes }

func newVolumeRestrictions(_ Args, h Handles) (Plugin, error) {
	return VolumeRestrictions{h.Volumes}, nil
}

// Name implements Plugin.
func (VolumeRestrictions) Name() string { return "VolumeRestrictions" }

// PreFilter implements Filter.
func (r VolumeRestrictions) PreFilter(c *Cluster, p *Pod) FilterPlan {
	if r.volumes == nil || len(p.Claims) == 0 {
		return FilterPlan{}
	}
	var single []string
	for _, name := range p.Claims {
		claim := r.volumes.Claim(p.Namespace(), name)
		if claim != nil && slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod) {
			single = append(single, name)
		}
	}
	if len(single) == 0 {
		return FilterPlan{PerPod: true}
	}
	users := usersOf(c, p, single)
	if len(users) == 0 {
		return FilterPlan{PerPod: true}
	}
	return FilterPlan{Check: singleUser{users}, PerPod: true}
}

// usersOf are the other pods on nodes that have one of the claims.
func usersOf(c *Cluster, p *Pod, claims []string) []types.UID {
	var users []types.UID
	for _, n := range c.Nodes() {
		if n == nil {
			continue
		}
		for _, q := range n.Pods {
			if q.UID != p.UID && len(q.Claims) > 0 && q.Namespace() == p.Namespace() &&
				slices.ContainsFunc(claims, func(name string) bool { return slices.Contains(q.Claims, name) }) {
				users = append(users, q.UID)
			}
		}
	}
	return users
}

type singleUser struct{ users []types.UID }

// Check implements Check: all users must go away.
func (s singleUser) Check(v *View) Verdict {
	for _, uid := range s.users {
		if !slices.ContainsFunc(v.Removed, func(q *Pod) bool { return q.UID == uid }) {
			return refuse(Unschedulable, []string{reasonReadWriteOncePod})
		}
	}
	return Verdict{}
}

// VolumeZone keeps pods in the zones and regions that the labels of their
// volumes name.
type VolumeZone struct{ volumes Volumes }

func newVolumeZone(_ Args, h Handles) (Plugin, error) { return VolumeZone{h.Volumes}, nil }

// Name implements Plugin.
func (VolumeZone) Name() string { return "VolumeZone" }

// zoneLabels are the labels that count, with their present names.
func zoneLabels() map[string]string {
	return map[string]string{
		corev1.LabelTopologyZone: corev1.LabelTopologyZone, corev1.LabelTopologyRegion: corev1.LabelTopologyRegion,
		corev1.LabelFailureDomainBetaZone: corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
	}
}

// PreFilter implements Filter.
func (z VolumeZone) PreFilter(_ *Cluster, p *Pod) FilterPlan {
	if z.volumes == nil || len(p.Claims) == 0 {
		return FilterPlan{}
	}
	var wants zoneCheck
	for _, name := range p.Claims {
		claim := z.volumes.Claim(p.Namespace(), name)
		if claim == nil || claim.Spec.VolumeName == "" {
			continue // VolumeBinding looks at it
		}
		v := z.volumes.Volume(claim.Spec.VolumeName)
		if v == nil {
			continue
		}
		for label, now := range zoneLabels() {
			if value, ok := v.Labels[label]; ok {
				// Several zones are joined by two underscores.
				wants = append(wants, zoneWant{[2]string{label, now}, strings.Split(value, "__")})
			}
		}
	}
	if wants == nil {
		return FilterPlan{PerPod: true}
	}
	return FilterPlan{Check: wants, PerPod: true}
}

type zoneWant struct {
	labels [2]string // either will do
	values []string
}

type zoneCheck []zoneWant

// Check implements Check. A node without any such label is in no zone, as all
// nodes of a cluster in one place are.
func (c zoneCheck) Check(v *View) Verdict {
	placed := false
	for label := range zoneLabels() {
		_, ok := v.Labels[label]
		placed = placed || ok
	}
	if !placed {
		return Verdict{}
	}
	for _, want := range c {
		value, ok := v.Labels[want.labels[0]]
		if !ok {
			value, ok = v.Labels[want.labels[1]]
		}
		if !ok || !slices.Contains(want.values, value) {
			return refuse(Unresolvable, []string{reasonVolumeZone})
		}
	}
	return Verdict{}
}
