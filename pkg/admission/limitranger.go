package admission

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	resourcehelper "k8s.io/component-helpers/resource"
)

var limitRangeGVR = corev1.SchemeGroupVersion.WithResource("limitranges")

// limitRangerAnnotation says in words what LimitRanger added to a pod.
const limitRangerAnnotation = "kubernetes.io/limit-ranger"

// LimitRanger gives containers the requests and limits that the LimitRanges
// of their namespace have for those that state none, and refuses pods and
// claims outside of the bounds.
type LimitRanger struct{ Objects Objects }

// Name implements Plugin.
func (LimitRanger) Name() string { return "LimitRanger" }

// Handles implements Selective.
func (LimitRanger) Handles(r schema.GroupResource) bool {
	return r.Group == "" && r.Resource == "pods" || r.Group == "" && r.Resource == "persistentvolumeclaims"
}

// ranges are the LimitRanges that count for a; none for what is being
// deleted.
func (p LimitRanger) ranges(ctx context.Context, a *Attributes) ([]*corev1.LimitRange, error) {
	switch a.Object.(type) {
	case *corev1.Pod:
		resized := a.Subresource == "resize" && a.Operation == Update
		if !resized && (a.Subresource != "" || a.Operation != Create) {
			return nil, nil
		}
		if old, ok := a.Old().(*corev1.Pod); ok && old.DeletionTimestamp != nil {
			return nil, nil
		}
	case *corev1.PersistentVolumeClaim:
		if a.Subresource != "" || a.Operation != Create && a.Operation != Update {
			return nil, nil
		}
		if old, ok := a.Old().(*corev1.PersistentVolumeClaim); ok && old.DeletionTimestamp != nil {
			return nil, nil
		}
	default:
		return nil, nil
	}
	return list[*corev1.LimitRange](ctx, p.Objects, limitRangeGVR, a.Namespace)
}

// Admit implements Mutator.
func (p LimitRanger) Admit(ctx context.Context, a *Attributes) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok {
		return nil
	}
	ranges, err := p.ranges(ctx, a)
	if err != nil {
		return err
	}
	for _, r := range ranges {
		addDefaults(pod, &r.Spec)
	}
	return nil
}

// Validate implements Validator.
func (p LimitRanger) Validate(ctx context.Context, a *Attributes) error {
	ranges, err := p.ranges(ctx, a)
	if err != nil {
		return err
	}
	for _, r := range ranges {
		var errs []error
		switch obj := a.Object.(type) {
		case *corev1.Pod:
			errs = podViolations(pod{obj}, r.Spec.Limits)
		case *corev1.PersistentVolumeClaim:
			errs = claimViolations(obj, r.Spec.Limits)
		}
		if err := utilerrors.NewAggregate(errs); err != nil {
			return forbidden(a, err)
		}
	}
	return nil
}

// addDefaults completes each container's requests and limits, and tells in an
// annotation which.
func addDefaults(pod *corev1.Pod, spec *corev1.LimitRangeSpec) {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	for i := range spec.Limits {
		if l := &spec.Limits[i]; l.Type == corev1.LimitTypeContainer {
			addMissing(&requests, l.DefaultRequest)
			addMissing(&limits, l.Default)
		}
	}
	var told []string
	complete := func(c *corev1.Container, what string) {
		if set := addMissing(&c.Resources.Requests, requests); len(set) > 0 {
			told = append(told, fmt.Sprintf("%s request for %s %s", strings.Join(set, ", "), what, c.Name))
		}
		if set := addMissing(&c.Resources.Limits, limits); len(set) > 0 {
			told = append(told, fmt.Sprintf("%s limit for %s %s", strings.Join(set, ", "), what, c.Name))
		}
	}
	for i := range pod.Spec.Containers {
		complete(&pod.Spec.Containers[i], "container")
	}
	for i := range pod.Spec.InitContainers {
		complete(&pod.Spec.InitContainers[i], "init container")
	}
	if len(told) == 0 {
		return
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[limitRangerAnnotation] = "LimitRanger plugin set: " + strings.Join(told, "; ")
}

// addMissing copies to into what it lacks of from, and returns those names,
// sorted.
func addMissing(into *corev1.ResourceList, from corev1.ResourceList) []string {
	var set []string
	for _, name := range sortedNames(from) {
		if _, ok := (*into)[name]; ok {
			continue
		}
		if *into == nil {
			*into = corev1.ResourceList{}
		}
		(*into)[name] = from[name].DeepCopy()
		set = append(set, string(name))
	}
	return set
}

func sortedNames(list corev1.ResourceList) []corev1.ResourceName {
	names := make([]corev1.ResourceName, 0, len(list))
	for name := range list {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// claimViolations says which bounds a claim's request breaks.
func claimViolations(claim *corev1.PersistentVolumeClaim, limits []corev1.LimitRangeItem) []error {
	var errs []error
	for i := range limits {
		if l := &limits[i]; l.Type == corev1.LimitTypePersistentVolumeClaim {
			asked := demand{kind: l.Type, requests: claim.Spec.Resources.Requests}
			errs = append(errs, asked.belowMin(l.Min)...)
			for _, name := range sortedNames(l.Max) {
				errs = append(errs, asked.requestAboveMax(name, l.Max[name]))
			}
		}
	}
	return errs
}

// pod sums up what a pod asks for.
type pod struct{ *corev1.Pod }

func (p pod) containers() []corev1.Container {
	return slices.Concat(p.Spec.Containers, p.Spec.InitContainers)
}

// podViolations says which bounds a pod or its containers break.
func podViolations(p pod, limits []corev1.LimitRangeItem) []error {
	var errs []error
	for i := range limits {
		l := &limits[i]
		switch l.Type {
		case corev1.LimitTypeContainer:
			for _, c := range p.containers() {
				errs = append(errs, demand{kind: l.Type, requests: c.Resources.Requests, limits: c.Resources.Limits}.violations(l)...)
			}
		case corev1.LimitTypePod:
			// A RuntimeClass's overhead is not the pod's own wish.
			opts := resourcehelper.PodResourcesOptions{ExcludeOverhead: true}
			errs = append(errs, demand{
				kind: l.Type, requests: resourcehelper.PodRequests(p.Pod, opts), limits: resourcehelper.PodLimits(p.Pod, opts),
			}.violations(l)...)
		}
	}
	return errs
}

// demand is what one container, pod or claim asks for.
type demand struct {
	kind             corev1.LimitType
	requests, limits corev1.ResourceList
}

// violations may hold nil errors.
func (d demand) violations(l *corev1.LimitRangeItem) []error {
	errs := d.belowMin(l.Min)
	for _, name := range sortedNames(l.Max) {
		errs = append(errs, d.aboveMax(name, l.Max[name]))
	}
	for _, name := range sortedNames(l.MaxLimitRequestRatio) {
		errs = append(errs, d.aboveRatio(name, l.MaxLimitRequestRatio[name]))
	}
	return errs
}

func (d demand) belowMin(bounds corev1.ResourceList) []error {
	var errs []error
	for _, name := range sortedNames(bounds) {
		bound := bounds[name]
		request, ok := d.requests[name]
		limit, limited := d.limits[name]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("minimum %s usage per %s is %s.  No request is specified", name, d.kind, bound.String()))
		case request.Cmp(bound) < 0:
			errs = append(errs, fmt.Errorf("minimum %s usage per %s is %s, but request is %s", name, d.kind, bound.String(), request.String()))
		case limited && limit.Cmp(bound) < 0:
			errs = append(errs, fmt.Errorf("minimum %s usage per %s is %s, but limit is %s", name, d.kind, bound.String(), limit.String()))
		}
	}
	return errs
}

func (d demand) aboveMax(name corev1.ResourceName, bound resource.Quantity) error {
	limit, ok := d.limits[name]
	request, requested := d.requests[name]
	switch {
	case !ok:
		return fmt.Errorf("maximum %s usage per %s is %s.  No limit is specified", name, d.kind, bound.String())
	case limit.Cmp(bound) > 0:
		return fmt.Errorf("maximum %s usage per %s is %s, but limit is %s", name, d.kind, bound.String(), limit.String())
	case requested && request.Cmp(bound) > 0:
		return fmt.Errorf("maximum %s usage per %s is %s, but request is %s", name, d.kind, bound.String(), request.String())
	}
	return nil
}

// requestAboveMax is aboveMax for what has no limits.
func (d demand) requestAboveMax(name corev1.ResourceName, bound resource.Quantity) error {
	request, ok := d.requests[name]
	switch {
	case !ok:
		return fmt.Errorf("maximum %s usage per %s is %s.  No request is specified", name, d.kind, bound.String())
	case request.Cmp(bound) > 0:
		return fmt.Errorf("maximum %s usage per %s is %s, but request is %s", name, d.kind, bound.String(), request.String())
	}
	return nil
}

func (d demand) aboveRatio(name corev1.ResourceName, bound resource.Quantity) error {
	request, limit := d.requests[name], d.limits[name]
	switch {
	case request.IsZero():
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no request is specified or request is 0", name, d.kind, bound.String())
	case limit.IsZero():
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no limit is specified or limit is 0", name, d.kind, bound.String())
	}
	ratio := limit.AsApproximateFloat64() / request.AsApproximateFloat64()
	if ratio > bound.AsApproximateFloat64() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but provided ratio is %f", name, d.kind, bound.String(), ratio)
	}
	return nil
}
