package resource

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	resourcehelper "k8s.io/component-helpers/resource"
)

// checkContainerResource wants a name that a container may ask for: one of the
// standard ones or an extended one ("example.com/thing").
func checkContainerResource(path *field.Path, name corev1.ResourceName) field.ErrorList {
	errs := checkResourceName(path, name)
	own := []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}
	switch {
	case !strings.Contains(string(name), "/"):
		if !isHugePages(name) && !slices.Contains(own, name) {
			errs = append(errs, field.Invalid(path, name, "must be a standard resource for containers"))
		}
	case !nativeResource(name) && !extendedResource(name):
		errs = append(errs, field.Invalid(path, name, "doesn't follow extended resource name standard"))
	}
	return errs
}

// checkResourceName wants one of Kubernetes' own resources or a name with a
// domain.
func checkResourceName(path *field.Path, name corev1.ResourceName) field.ErrorList {
	if msgs := utilvalidation.IsQualifiedName(string(name)); len(msgs) > 0 {
		return invalid(path, name, msgs)
	}
	if !strings.Contains(string(name), "/") && !standardResource(name) {
		return field.ErrorList{field.Invalid(path, name, "must be a standard resource type or fully qualified")}
	}
	return nil
}

func standardResource(name corev1.ResourceName) bool {
	if isHugePages(name) || strings.HasPrefix(string(name), "requests.hugepages-") {
		return true
	}
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourceStorage,
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage,
		corev1.ResourceRequestsStorage, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory,
		corev1.ResourceLimitsEphemeralStorage, corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices,
		corev1.ResourceReplicationControllers, corev1.ResourceSecrets, corev1.ResourceConfigMaps,
		corev1.ResourcePersistentVolumeClaims, corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers:
		return true
	}
	return false
}

// nativeResource: Kubernetes' own, with its prefix or without any.
func nativeResource(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// extendedResource: domain-prefixed, not of Kubernetes itself, and still a
// qualified name with the quota's prefix before it.
func extendedResource(name corev1.ResourceName) bool {
	s := string(name)
	return strings.Contains(s, "/") && !strings.Contains(s, corev1.ResourceDefaultNamespacePrefix) &&
		!strings.HasPrefix(s, corev1.DefaultResourceRequestsPrefix) &&
		len(utilvalidation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+s)) == 0
}

// integerResource: countable things cannot be had in parts.
func integerResource(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices, corev1.ResourceReplicationControllers,
		corev1.ResourceSecrets, corev1.ResourceConfigMaps, corev1.ResourcePersistentVolumeClaims,
		corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers:
		return true
	}
	return extendedResource(name)
}

func checkQuantity(path *field.Path, name corev1.ResourceName, q resource.Quantity) field.ErrorList {
	var errs field.ErrorList
	if q.Sign() < 0 {
		errs = append(errs, field.Invalid(path, q.String(), "must be greater than or equal to 0"))
	}
	if integerResource(name) && q.MilliValue()%1000 != 0 {
		errs = append(errs, field.Invalid(path, q.String(), "must be an integer"))
	}
	return errs
}

// containerResources: requests stay within limits; what cannot be shared by
// time (extended resources, huge pages) is requested exactly as limited.
func (c *podChecker) containerResources(path *field.Path, r *corev1.ResourceRequirements) field.ErrorList {
	return append(checkRequirements(path, r, checkContainerResource), c.claimNames(path.Child("claims"), r.Claims)...)
}

// claimNames: a claim of the pod is used as a whole or by some of its
// requests, each once.
func (c *podChecker) claimNames(path *field.Path, claims []corev1.ResourceClaim) field.ErrorList {
	var errs field.ErrorList
	var known []string
	for _, pc := range c.spec.ResourceClaims {
		if pc.Name != "" {
			known = append(known, pc.Name)
		}
	}
	whole, parts, used := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i, claim := range claims {
		p, key := path.Index(i), claim.Name+"/"+claim.Request
		if claim.Name == "" {
			errs = append(errs, field.Required(p, ""))
			continue
		}
		if claim.Request != "" {
			errs = append(errs, invalid(p.Child("request"), claim.Request, utilvalidation.IsDNS1123Label(claim.Request))...)
		}
		switch {
		case whole[claim.Name], claim.Request == "" && parts[claim.Name]:
			errs = append(errs, field.Duplicate(p, claim.Name))
		case used[key]:
			errs = append(errs, field.Duplicate(p, key))
		}
		used[key] = true
		if claim.Request == "" {
			whole[claim.Name] = true
		} else {
			parts[claim.Name] = true
		}
		if !slices.Contains(known, claim.Name) {
			err := field.NotFound(p, claim.Name)
			err.Detail = "must be one of the names in pod.spec.resourceClaims which is empty"
			if len(known) > 0 {
				err.Detail = "must be one of the names in pod.spec.resourceClaims: " + strings.Join(slices.Sorted(slices.Values(known)), ", ")
			}
			errs = append(errs, err)
		}
	}
	return errs
}

func checkRequirements(path *field.Path, r *corev1.ResourceRequirements,
	checkName func(*field.Path, corev1.ResourceName) field.ErrorList) field.ErrorList {
	var errs field.ErrorList
	limits, requests := path.Child("limits"), path.Child("requests")
	huge, base := false, false
	note := func(name corev1.ResourceName) {
		huge = huge || isHugePages(name)
		base = base || name == corev1.ResourceCPU || name == corev1.ResourceMemory
	}
	for _, name := range sortedKeys(r.Limits) {
		p := limits.Key(string(name))
		errs = append(errs, checkName(p, name)...)
		errs = append(errs, checkQuantity(p, name, r.Limits[name])...)
		errs = append(errs, checkWholePages(p, name, r.Limits[name])...)
		note(name)
	}
	for _, name := range sortedKeys(r.Requests) {
		p := requests.Key(string(name))
		errs = append(errs, checkName(p, name)...)
		q := r.Requests[name]
		errs = append(errs, checkQuantity(p, name, q)...)
		errs = append(errs, checkWholePages(p, name, q)...)
		note(name)
		limit, limited := r.Limits[name]
		exact := !nativeResource(name) || isHugePages(name)
		switch {
		case limited && exact && q.Cmp(limit) != 0:
			errs = append(errs, field.Invalid(requests, q.String(), fmt.Sprintf("must be equal to %s limit of %s", name, limit.String())))
		case limited && !exact && q.Cmp(limit) > 0:
			errs = append(errs, field.Invalid(requests, q.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", name, limit.String())))
		case !limited && exact:
			errs = append(errs, field.Required(limits, "Limit must be set for non overcommitable resources"))
		}
	}
	if huge && !base {
		errs = append(errs, field.Forbidden(path, "HugePages require cpu or memory"))
	}
	return errs
}

// checkPodResources is about the resources of the pod as a whole.
func checkPodResources(path *field.Path, spec *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	if len(spec.Overhead) > 0 {
		errs = append(errs, checkOverhead(path.Child("overhead"), spec.Overhead)...)
	}
	if spec.Resources == nil {
		return errs
	}
	p := path.Child("resources")
	if len(spec.Resources.Claims) > 0 {
		errs = append(errs, field.Forbidden(p.Child("claims"), "claims cannot be set for Resources at pod-level"))
	}
	errs = append(errs, checkRequirements(p, spec.Resources, func(p *field.Path, name corev1.ResourceName) field.ErrorList {
		if !resourcehelper.IsSupportedPodLevelResource(name) {
			return field.ErrorList{field.NotSupported(p, name, sortedKeys(resourcehelper.SupportedPodLevelResources()))}
		}
		return nil
	})...)
	return append(errs, checkPodLevelSums(path, spec)...)
}

// checkOverhead judges what a pod takes beside its containers as their limits
// are judged, and upstream's paths say so.
func checkOverhead(path *field.Path, overhead corev1.ResourceList) field.ErrorList {
	return checkRequirements(path, &corev1.ResourceRequirements{Limits: overhead}, checkContainerResource)
}

// checkWholePages: huge pages come whole.
func checkWholePages(path *field.Path, name corev1.ResourceName, q resource.Quantity) field.ErrorList {
	if !isHugePages(name) {
		return nil
	}
	page, err := resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
	if err != nil || page.Sign() <= 0 || page.MilliValue()%1000 != 0 || q.Value()%page.Value() != 0 {
		return field.ErrorList{field.Invalid(path, q.String(), fmt.Sprintf("%s is not positive integer multiple of %s", q.String(), name))}
	}
	return nil
}

// checkPodLevelSums: what the containers ask for together must fit in what
// the pod asks for, and no container may be allowed more than the pod.
func checkPodLevelSums(path *field.Path, spec *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	sums := resourcehelper.AggregateContainerRequests(&corev1.Pod{Spec: *spec}, resourcehelper.PodResourcesOptions{})
	for _, name := range sortedKeys(spec.Resources.Requests) {
		q, sum := spec.Resources.Requests[name], sums[name]
		if q.Cmp(sum) < 0 {
			errs = append(errs, field.Invalid(path.Child("resources", "requests").Key(string(name)), q.String(),
				fmt.Sprintf("must be greater than or equal to aggregate container requests of %s", sum.String())))
		}
	}
	for i := range spec.Containers {
		for _, name := range sortedKeys(spec.Resources.Limits) {
			most := spec.Resources.Limits[name]
			if q, ok := spec.Containers[i].Resources.Limits[name]; ok && q.Cmp(most) > 0 {
				// Upstream's path; the container's own would be clearer.
				errs = append(errs, field.Invalid(path.Child("resources", "containers").Index(i).Key(string(name)).Child("limits"),
					q.String(), fmt.Sprintf("must be less than or equal to pod limits of %s", most.String())))
			}
		}
	}
	return errs
}

// resizePolicy: a container that is never restarted is not restarted to be
// resized either.
func (c *podChecker) resizePolicy(path *field.Path, list []corev1.ContainerResizePolicy) field.ErrorList {
	var errs field.ErrorList
	seen := map[corev1.ResourceName]bool{}
	for i, r := range list {
		if seen[r.ResourceName] {
			errs = append(errs, field.Duplicate(path.Index(i), r.ResourceName))
		}
		seen[r.ResourceName] = true
		errs = append(errs, checkSet(path, r.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)...)
		errs = append(errs, checkSet(path, r.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)...)
		if c.spec.RestartPolicy == corev1.RestartPolicyNever && r.RestartPolicy != corev1.NotRequired {
			errs = append(errs, field.Invalid(path, r.RestartPolicy, "must be 'NotRequired' when `restartPolicy` is 'Never'"))
		}
	}
	return errs
}
