// Package quota says how much of a ResourceQuota an object takes. Admission
// charges new objects by it and the quota controller counts those that exist;
// what both say of one object is the same because both ask here.
//
// Everything is pure: the time is an argument, objects and quotas are read
// only, and lists that are returned are the caller's.
package quota

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Evaluator measures the objects of one resource.
type Evaluator interface {
	// Tracks says whether a quota's entry of this name is about the resource.
	Tracks(name corev1.ResourceName) bool
	// Handles says whether a write may change what the object takes. old is nil
	// on create.
	Handles(subresource string, obj, old runtime.Object) bool
	// Usage is what obj takes of every name, tracked by anybody or not.
	Usage(obj runtime.Object, now time.Time) corev1.ResourceList
	// InScope says whether obj is what the selector asks for. A kind that has
	// no such scope is never.
	InScope(s corev1.ScopedResourceSelectorRequirement, obj runtime.Object) bool
	// Missing says in words what obj must specify when quotas bound the names;
	// empty when nothing.
	Missing(names []corev1.ResourceName, obj runtime.Object) string
}

// For returns the evaluator of a resource; nil for the few that no quota
// counts. Objects of pods, services, persistentvolumeclaims and resourceclaims
// must be of k8s.io/api types; of others nothing is looked at.
func For(gr schema.GroupResource) Evaluator {
	switch gr {
	case schema.GroupResource{Resource: "events"}, schema.GroupResource{Group: "events.k8s.io", Resource: "events"}:
		return nil // they expire by themselves
	case schema.GroupResource{Resource: "pods"}:
		return pods{}
	case schema.GroupResource{Resource: "services"}:
		return services{}
	case schema.GroupResource{Resource: "persistentvolumeclaims"}:
		return claims{}
	case schema.GroupResource{Group: resourcev1.GroupName, Resource: "resourceclaims"}:
		return devices{}
	}
	names := []corev1.ResourceName{CountName(gr)}
	if gr.Group == "" && slices.Contains([]string{"configmaps", "resourcequotas", "replicationcontrollers", "secrets"}, gr.Resource) {
		names = append(names, corev1.ResourceName(gr.Resource))
	}
	return counted{names}
}

const countPrefix = "count/"

// CountName is the entry that bounds how many objects of a resource there are.
func CountName(gr schema.GroupResource) corev1.ResourceName {
	return corev1.ResourceName(countPrefix + gr.String())
}

// Resource is what an entry of a quota is about; ok is false for names that
// nothing can be counted for.
func Resource(name corev1.ResourceName) (gr schema.GroupResource, ok bool) {
	if counted, ok := strings.CutPrefix(string(name), countPrefix); ok {
		return schema.ParseGroupResource(counted), true
	}
	for _, gr := range []schema.GroupResource{
		{Resource: "pods"}, {Resource: "services"}, {Resource: "persistentvolumeclaims"},
		{Group: resourcev1.GroupName, Resource: "resourceclaims"},
		{Resource: "configmaps"}, {Resource: "resourcequotas"}, {Resource: "replicationcontrollers"}, {Resource: "secrets"},
	} {
		if For(gr).Tracks(name) {
			return gr, true
		}
	}
	return schema.GroupResource{}, false
}

// Selectors are a quota's scopes in one form.
func Selectors(spec *corev1.ResourceQuotaSpec) []corev1.ScopedResourceSelectorRequirement {
	var out []corev1.ScopedResourceSelectorRequirement
	for _, s := range spec.Scopes {
		out = append(out, corev1.ScopedResourceSelectorRequirement{ScopeName: s, Operator: corev1.ScopeSelectorOpExists})
	}
	if spec.ScopeSelector != nil {
		out = append(out, spec.ScopeSelector.MatchExpressions...)
	}
	return out
}

// InScopes says whether obj is in all scopes of a quota.
func InScopes(e Evaluator, spec *corev1.ResourceQuotaSpec, obj runtime.Object) bool {
	for _, s := range Selectors(spec) {
		if !e.InScope(s, obj) {
			return false
		}
	}
	return true
}

// Used is what objs, which are all of e's resource in a namespace, take of a
// quota with the given spec: one entry for each of its names that e tracks.
func Used(e Evaluator, spec *corev1.ResourceQuotaSpec, objs []runtime.Object, now time.Time) corev1.ResourceList {
	out := corev1.ResourceList{}
	for _, name := range tracked(e, spec.Hard) {
		out[name] = number(0)
	}
	for _, obj := range objs {
		if !InScopes(e, spec, obj) {
			continue
		}
		for name, x := range e.Usage(obj, now) {
			if sum, ok := out[name]; ok {
				sum.Add(x)
				out[name] = sum
			}
		}
	}
	return out
}

// tracked are the sorted names of list that e is about.
func tracked(e Evaluator, list corev1.ResourceList) []corev1.ResourceName {
	var out []corev1.ResourceName
	for name := range list {
		if e.Tracks(name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Write is a write of an object that quotas may bound.
type Write struct {
	Evaluator   Evaluator
	Subresource string
	// Object is the new state, Old the stored one, nil on create.
	Object, Old runtime.Object
	Now         time.Time
}

// Charge is what w adds to the usage of q, with the names that q bounds; empty
// when nothing. The error says why q forbids w whatever is left of it.
func (w Write) Charge(q *corev1.ResourceQuota) (corev1.ResourceList, error) {
	names := tracked(w.Evaluator, q.Status.Hard)
	if len(names) == 0 || !InScopes(w.Evaluator, &q.Spec, w.Object) {
		return nil, nil
	}
	if missing := w.Evaluator.Missing(names, w.Object); missing != "" {
		return nil, fmt.Errorf("failed quota: %s: must specify %s", q.Name, missing)
	}
	for _, name := range names {
		if _, ok := q.Status.Used[name]; !ok {
			return nil, fmt.Errorf("status unknown for quota: %s, resources: %s", q.Name, joinNames(names))
		}
	}
	usage := w.Evaluator.Usage(w.Object, w.Now)
	if negative := below(usage); len(negative) > 0 {
		return nil, fmt.Errorf("quota usage is negative for resource(s): %s", joinNames(negative))
	}
	if w.Old != nil && InScopes(w.Evaluator, &q.Spec, w.Old) {
		usage = Excess(usage, w.Evaluator.Usage(w.Old, w.Now))
	}
	return withoutZeros(Mask(usage, q.Status.Hard)), nil
}

// Reserve is the usage of q after delta was added to used. The error says that
// this is more than q allows.
func (w Write) Reserve(q *corev1.ResourceQuota, used, delta corev1.ResourceList) (corev1.ResourceList, error) {
	after := Add(used, delta)
	if w.Subresource == "status" {
		return after, nil // it tells what is so already
	}
	over := corev1.ResourceList{}
	for name := range delta {
		have, hard := after[name], q.Status.Hard[name]
		if have.Cmp(hard) > 0 {
			over[name] = hard
		}
	}
	if len(over) > 0 {
		return nil, fmt.Errorf("exceeded quota: %s, requested: %s, used: %s, limited: %s",
			q.Name, text(Mask(delta, over)), text(Mask(used, over)), text(over))
	}
	return after, nil
}

// counted measures objects of which only the number is of interest.
type counted struct{ names []corev1.ResourceName }

func (c counted) Tracks(name corev1.ResourceName) bool { return slices.Contains(c.names, name) }

func (counted) Handles(subresource string, _, old runtime.Object) bool {
	return subresource == "" && old == nil
}

func (c counted) Usage(runtime.Object, time.Time) corev1.ResourceList {
	out := corev1.ResourceList{}
	for _, name := range c.names {
		out[name] = number(1)
	}
	return out
}

func (counted) InScope(corev1.ScopedResourceSelectorRequirement, runtime.Object) bool { return false }

func (counted) Missing([]corev1.ResourceName, runtime.Object) string { return "" }
