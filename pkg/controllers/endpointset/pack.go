// Package endpointset packs the endpoints of a Service into EndpointSlices
// with few writes: it is the pure core that the EndpointSlice and the mirroring
// controller share, and what executes its changes.
package endpointset

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Group is endpoints that can share a slice.
type Group struct {
	AddressType discoveryv1.AddressType
	Ports       []discoveryv1.EndpointPort
	Endpoints   []discoveryv1.Endpoint
}

// Same reports whether endpoints of g and h can share a slice.
func (g Group) Same(h Group) bool {
	return groupKey(g.AddressType, g.Ports) == groupKey(h.AddressType, h.Ports)
}

// Meta is what all slices of one Service have in common.
type Meta struct {
	Namespace    string
	GenerateName string
	Labels       map[string]string
	// Annotations are set on each slice; others are left alone.
	Annotations map[string]string
	Owner       metav1.OwnerReference
	// TriggerTime, set on what is written anyway, is when the cause of the
	// change happened, as RFC 3339 with nanoseconds; empty removes it.
	TriggerTime string
}

// Changes is what to write. Creates come first, so that no endpoint is
// missing in between.
type Changes struct {
	Create, Update, Delete []*discoveryv1.EndpointSlice
}

// Empty reports whether there is nothing to write.
func (c Changes) Empty() bool { return len(c.Create)+len(c.Update)+len(c.Delete) == 0 }

// Pack decides how existing slices change to hold exactly groups, at most
// limit endpoints in one. An endpoint stays in the slice it is in. What is new
// goes to slices that change anyway, then to one with room for all of it, then
// to new slices. A group without endpoints gets one empty slice: it shows
// readers that the Service was looked at.
func Pack(existing []*discoveryv1.EndpointSlice, groups []Group, meta Meta, limit int) Changes {
	p := packer{meta: meta, limit: limit, byGroup: map[string][]*slot{}}
	for _, s := range sorted(existing) {
		if s.DeletionTimestamp == nil {
			key := groupKey(s.AddressType, s.Ports)
			p.byGroup[key] = append(p.byGroup[key], &slot{was: s})
		}
	}
	for _, g := range groups {
		key := groupKey(g.AddressType, g.Ports)
		p.pack(g, p.byGroup[key])
		delete(p.byGroup, key)
	}
	for _, key := range slices.Sorted(maps.Keys(p.byGroup)) {
		for _, s := range p.byGroup[key] {
			p.drop(s.was)
		}
	}
	p.reuse()
	return p.changes
}

// slot is a slice being packed.
type slot struct {
	was       *discoveryv1.EndpointSlice
	endpoints []discoveryv1.Endpoint
	changed   bool
}

type packer struct {
	meta    Meta
	limit   int
	byGroup map[string][]*slot
	changes Changes
}

func (p *packer) pack(g Group, slots []*slot) {
	missing := make(map[string]discoveryv1.Endpoint, len(g.Endpoints))
	for _, e := range g.Endpoints {
		missing[endpointKey(e)] = e
	}
	for _, s := range slots {
		for _, e := range s.was.Endpoints {
			want, ok := missing[endpointKey(e)]
			if !ok || len(s.endpoints) == p.limit {
				s.changed = true
				continue
			}
			delete(missing, endpointKey(e))
			s.changed = s.changed || !equality.Semantic.DeepEqual(e, want)
			s.endpoints = append(s.endpoints, want)
		}
	}
	rest := make([]discoveryv1.Endpoint, 0, len(missing))
	for _, key := range slices.Sorted(maps.Keys(missing)) {
		rest = append(rest, missing[key])
	}
	rest = p.fill(slots, rest)
	for len(rest) > 0 {
		n := min(len(rest), p.limit)
		p.create(g, rest[:n])
		rest = rest[n:]
	}
	p.finish(g, slots)
}

// fill puts rest where there is room and returns what found none.
func (p *packer) fill(slots []*slot, rest []discoveryv1.Endpoint) []discoveryv1.Endpoint {
	for _, s := range slots {
		if n := min(p.limit-len(s.endpoints), len(rest)); s.changed && len(s.endpoints) > 0 && n > 0 {
			s.endpoints = append(s.endpoints, rest[:n]...)
			rest = rest[n:]
		}
	}
	if len(rest) == 0 || len(rest) > p.limit {
		return rest
	}
	var best *slot
	for _, s := range slots {
		if p.limit-len(s.endpoints) >= len(rest) && (best == nil || len(s.endpoints) > len(best.endpoints)) {
			best = s
		}
	}
	if best == nil {
		return rest
	}
	best.endpoints = append(best.endpoints, rest...)
	best.changed = true
	return nil
}

// finish turns a group's slots into changes.
func (p *packer) finish(g Group, slots []*slot) {
	empty := len(g.Endpoints) == 0
	for i, s := range slots {
		if len(s.endpoints) == 0 && (!empty || i > 0) {
			p.drop(s.was)
			continue
		}
		if s.changed || !p.wears(s.was) {
			out := p.dressed(s.was)
			out.Endpoints = s.endpoints
			p.setTrigger(out)
			p.changes.Update = append(p.changes.Update, out)
		}
	}
	if empty && len(slots) == 0 {
		p.create(g, nil)
	}
}

func (p *packer) create(g Group, endpoints []discoveryv1.Endpoint) {
	s := p.dressed(&discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: p.meta.Namespace, GenerateName: p.meta.GenerateName},
		AddressType: g.AddressType, Ports: g.Ports, Endpoints: slices.Clone(endpoints),
	})
	p.setTrigger(s)
	p.changes.Create = append(p.changes.Create, s)
}

func (p *packer) drop(s *discoveryv1.EndpointSlice) {
	p.changes.Delete = append(p.changes.Delete, s)
}

// reuse turns a deletion and a creation of one address type into an update.
func (p *packer) reuse() {
	var create []*discoveryv1.EndpointSlice
	for _, c := range p.changes.Create {
		i := slices.IndexFunc(p.changes.Delete, func(d *discoveryv1.EndpointSlice) bool { return d.AddressType == c.AddressType })
		if i < 0 {
			create = append(create, c)
			continue
		}
		out := p.dressed(p.changes.Delete[i])
		out.Ports, out.Endpoints = c.Ports, c.Endpoints
		p.setTrigger(out)
		p.changes.Update = append(p.changes.Update, out)
		p.changes.Delete = slices.Delete(p.changes.Delete, i, i+1)
	}
	p.changes.Create = create
}

// dressed returns a copy of s with the metadata it should have.
func (p *packer) dressed(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	out := s.DeepCopy()
	out.Labels = maps.Clone(p.meta.Labels)
	for k, v := range p.meta.Annotations {
		metav1.SetMetaDataAnnotation(&out.ObjectMeta, k, v)
	}
	out.OwnerReferences = []metav1.OwnerReference{p.meta.Owner}
	return out
}

func (p *packer) setTrigger(s *discoveryv1.EndpointSlice) {
	if p.meta.TriggerTime == "" {
		delete(s.Annotations, triggerAnnotation)
		return
	}
	metav1.SetMetaDataAnnotation(&s.ObjectMeta, triggerAnnotation, p.meta.TriggerTime)
}

// wears reports whether s has the metadata it should have.
func (p *packer) wears(s *discoveryv1.EndpointSlice) bool {
	for k, v := range p.meta.Annotations {
		if s.Annotations[k] != v {
			return false
		}
	}
	return maps.Equal(s.Labels, p.meta.Labels) && len(s.OwnerReferences) == 1 &&
		equality.Semantic.DeepEqual(s.OwnerReferences[0], p.meta.Owner)
}

func sorted(in []*discoveryv1.EndpointSlice) []*discoveryv1.EndpointSlice {
	out := slices.Clone(in)
	slices.SortFunc(out, func(a, b *discoveryv1.EndpointSlice) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// endpointKey identifies an endpoint across updates.
func endpointKey(e discoveryv1.Endpoint) string {
	key := strings.Join(e.Addresses, ",")
	if e.TargetRef != nil {
		key = e.TargetRef.Name + "/" + string(e.TargetRef.UID) + "/" + key
	}
	return key
}

// groupKey is equal for slices whose endpoints could be in one.
func groupKey(t discoveryv1.AddressType, ports []discoveryv1.EndpointPort) string {
	keys := make([]string, len(ports))
	for i, p := range ports {
		keys[i] = fmt.Sprintf("%s|%s|%d|%s", text(p.Name), text(p.Protocol), number(p.Port), text(p.AppProtocol))
	}
	slices.SortFunc(keys, cmp.Compare)
	return string(t) + " " + strings.Join(keys, " ")
}

func text[T ~string](p *T) string {
	if p == nil {
		return ""
	}
	return string(*p)
}

func number(p *int32) int32 {
	if p == nil {
		return -1 // all ports
	}
	return *p
}
