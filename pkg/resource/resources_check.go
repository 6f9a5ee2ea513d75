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

// checkResourceName wants a name that a container may ask for: one of the
// standard ones or an extended one ("example.com/thing").
func checkContainerResource(path *field.Path, name corev1.ResourceName) field.ErrorList {
	errs := invalid(path, name, utilvalidation.IsQualifiedName(string(name)))
	if len(errs) > 0 {
		return errs
	}
	switch {
	case isHugePages(name):
		return nil
	case slices.Contains([]corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}, name):
		return nil
	case !strings.Contains(string(name), "/"):
		if !standardResource(name) {
			errs = append(errs, field.Invalid(path, name, "must be a standard resource type or fully qualified"))
		}
		return append(errs, field.Invalid(path, name, "must be a standard resource for containers"))
	case !strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix) && !extendedResource(name):
		return field.ErrorList{field.Invalid(path, name, "doesn't follow extended resource name standard")}
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
	errs := checkRequirements(path, r, checkContainerResource)
	for i, claim := range r.Claims {
		p := path.Child("claims").Index(i).Child("name")
		known := slices.ContainsFunc(c.spec.ResourceClaims, func(pc corev1.PodResourceClaim) bool { return pc.Name == claim.Name })
		switch {
		case claim.Name == "":
			errs = append(errs, field.Required(p, ""))
		case !known:
			errs = append(errs, field.NotFound(p, claim.Name))
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
		note(name)
	}
	for _, name := range sortedKeys(r.Requests) {
		p := requests.Key(string(name))
		errs = append(errs, checkName(p, name)...)
		q := r.Requests[name]
		errs = append(errs, checkQuantity(p, name, q)...)
		note(name)
		limit, limited := r.Limits[name]
		exact := extendedResource(name) || isHugePages(name)
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
	for _, name := range sortedKeys(spec.Overhead) {
		p := path.Child("overhead").Key(string(name))
		errs = append(errs, checkContainerResource(p, name)...)
		errs = append(errs, checkQuantity(p, name, spec.Overhead[name])...)
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
				errs = append(errs, field.Invalid(path.Child("containers").Index(i).Child("resources", "limits").Key(string(name)),
					q.String(), fmt.Sprintf("must be less than or equal to pod limits of %s", most.String())))
			}
		}
	}
	return errs
}

func checkResizePolicy(path *field.Path, list []corev1.ContainerResizePolicy) field.ErrorList {
	var errs field.ErrorList
	seen := map[corev1.ResourceName]bool{}
	for _, r := range list {
		if seen[r.ResourceName] {
			errs = append(errs, field.Duplicate(path, r.ResourceName))
		}
		seen[r.ResourceName] = true
		errs = append(errs, checkSet(path, r.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)...)
		errs = append(errs, checkSet(path, r.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)...)
	}
	return errs
}
