package scheduler

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"coracle/pkg/scheduler/plugin"
)

// owners knows the selectors of Services and of the controllers of pods, for
// the default topology spread constraints. The lock of the cluster guards it.
type owners struct {
	services    map[string]map[string]serviceSelector // by namespace and name
	controllers map[controllerKey]labels.Selector
	version     uint64
}

type serviceSelector struct {
	labels   labels.Set
	selector labels.Selector
}

type controllerKey struct{ kind, namespace, name string }

func newOwners() *owners {
	return &owners{services: map[string]map[string]serviceSelector{}, controllers: map[controllerKey]labels.Selector{}}
}

// Version implements plugin.Owners.
func (o *owners) Version() uint64 { return o.version }

// Selector implements plugin.Owners.
func (o *owners) Selector(g *plugin.Group, owner plugin.Owner) labels.Selector {
	all := labels.Set{}
	for _, s := range o.services[g.Namespace] {
		if s.selector.Matches(g.Labels) {
			all = labels.Merge(all, s.labels)
		}
	}
	selector := all.AsSelector()
	if controller := o.controllers[controllerKey{owner.APIVersion + "/" + owner.Kind, g.Namespace, owner.Name}]; controller != nil {
		if requirements, ok := controller.Requirements(); ok {
			selector = selector.Add(requirements...)
		}
	}
	return selector
}

// The controllers whose selectors count, as pods name them.
const (
	replicationController = "v1/ReplicationController"
	replicaSet            = "apps/v1/ReplicaSet"
	statefulSet           = "apps/v1/StatefulSet"
)

// see takes over an object, or with gone drops it.
func (o *owners) see(obj any, gone bool) {
	switch obj := obj.(type) {
	case *corev1.Service:
		o.seeService(obj, gone)
	case *corev1.ReplicationController:
		o.seeController(replicationController, obj, labels.SelectorFromSet(obj.Spec.Selector), gone)
	case *appsv1.ReplicaSet:
		o.seeController(replicaSet, obj, parse(obj.Spec.Selector), gone)
	case *appsv1.StatefulSet:
		o.seeController(statefulSet, obj, parse(obj.Spec.Selector), gone)
	}
}

// parse returns nil for a selector that cannot be parsed: it adds nothing.
func parse(s *metav1.LabelSelector) labels.Selector {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil
	}
	return selector
}

// seeService takes over a Service. One without a selector selects nothing.
func (o *owners) seeService(s *corev1.Service, gone bool) {
	of := o.services[s.Namespace]
	old, had := of[s.Name]
	if gone || s.Spec.Selector == nil {
		if had {
			delete(of, s.Name)
			o.version++
		}
		return
	}
	if had && labels.Equals(old.labels, s.Spec.Selector) {
		return
	}
	if of == nil {
		of = map[string]serviceSelector{}
		o.services[s.Namespace] = of
	}
	of[s.Name] = serviceSelector{s.Spec.Selector, labels.Set(s.Spec.Selector).AsSelectorPreValidated()}
	o.version++
}

func (o *owners) seeController(kind string, obj metav1.Object, selector labels.Selector, gone bool) {
	key := controllerKey{kind, obj.GetNamespace(), obj.GetName()}
	old, had := o.controllers[key]
	switch {
	case gone || selector == nil:
		if had {
			delete(o.controllers, key)
			o.version++
		}
	case !had || old.String() != selector.String():
		o.controllers[key] = selector
		o.version++
	}
}
