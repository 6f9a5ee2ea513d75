package resource

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// checkClaimStatuses: the names under which claims were made are those of the
// pod's spec.
func checkClaimStatuses(path *field.Path, pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, s := range pod.Status.ResourceClaimStatuses {
		p := path.Child("resourceClaimStatuses").Index(i).Child("name")
		if !slices.ContainsFunc(pod.Spec.ResourceClaims, func(c corev1.PodResourceClaim) bool { return c.Name == s.Name }) {
			errs = append(errs, field.Invalid(p, s.Name, "must match the name of an entry in `spec.resourceClaims`"))
		}
		if seen[s.Name] {
			errs = append(errs, field.Duplicate(p, s.Name))
		}
		seen[s.Name] = true
		if s.ResourceClaimName != nil {
			errs = append(errs, invalid(p, *s.ResourceClaimName, utilvalidation.IsDNS1123Subdomain(*s.ResourceClaimName))...)
		}
	}
	return append(errs, checkNodeAllocatable(path.Child("nodeAllocatableResourceClaimStatuses"), pod.Status.NodeAllocatableResourceClaimStatuses)...)
}

func checkNodeAllocatable(path *field.Path, list []corev1.NodeAllocatableResourceClaimStatus) field.ErrorList {
	var errs field.ErrorList
	claims := map[string]bool{}
	for i, s := range list {
		p := path.Index(i)
		errs = append(errs, required(p.Child("resourceClaimName"), s.ResourceClaimName)...)
		if claims[s.ResourceClaimName] {
			errs = append(errs, field.Duplicate(p, s.ResourceClaimName))
		}
		claims[s.ResourceClaimName] = true
		for j, c := range s.Containers {
			if slices.Index(s.Containers, c) < j {
				errs = append(errs, field.Duplicate(p.Child("containers").Index(j), c))
			}
		}
		names := map[corev1.ResourceName]bool{}
		for j, m := range s.Mapping {
			mp := p.Child("mapping").Index(j)
			errs = append(errs, required(mp.Child("name"), string(m.Name))...)
			if m.Quantity == nil {
				errs = append(errs, field.Required(mp.Child("quantity"), ""))
			}
			if names[m.Name] {
				errs = append(errs, field.Duplicate(mp, m.Name))
			}
			names[m.Name] = true
		}
		names = map[corev1.ResourceName]bool{}
		for j, o := range s.Overhead {
			op := p.Child("overhead").Index(j)
			errs = append(errs, required(op.Child("name"), string(o.Name))...)
			if o.PerPod == nil && o.PerContainer == nil {
				errs = append(errs, field.Required(op, "at least one of perPod and perContainer must be specified"))
			}
			if names[o.Name] {
				errs = append(errs, field.Duplicate(op, o.Name))
			}
			names[o.Name] = true
		}
	}
	return errs
}

// checkContainerStatuses is about what an agent reports of its containers.
func checkContainerStatuses(path *field.Path, pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	for _, l := range []struct {
		name       string
		statuses   []corev1.ContainerStatus
		containers []corev1.Container
	}{
		{"containerStatuses", pod.Status.ContainerStatuses, pod.Spec.Containers},
		{"initContainerStatuses", pod.Status.InitContainerStatuses, pod.Spec.InitContainers},
		{"ephemeralContainerStatuses", pod.Status.EphemeralContainerStatuses, nil},
	} {
		for i := range l.statuses {
			s, p := &l.statuses[i], path.Child(l.name).Index(i)
			errs = append(errs, checkContainerUser(p.Child("linux"), s.User, pod.Spec.OS)...)
			if l.name == "ephemeralContainerStatuses" {
				if len(s.AllocatedResourcesStatus) > 0 {
					errs = append(errs, field.Forbidden(p.Child("allocatedResourcesStatus"), "must not be specified in container status"))
				}
				continue
			}
			errs = append(errs, checkAllocatedHealth(p.Child("allocatedResourcesStatus"), s, l.containers)...)
		}
	}
	return errs
}

func checkContainerUser(path *field.Path, user *corev1.ContainerUser, os *corev1.PodOS) field.ErrorList {
	if user == nil || user.Linux == nil {
		return nil
	}
	if os != nil && os.Name == corev1.Windows {
		return field.ErrorList{field.Forbidden(path, "cannot be set for a windows pod")}
	}
	errs := checkUser(path.Child("uid"), &user.Linux.UID)
	errs = append(errs, checkGroup(path.Child("gid"), &user.Linux.GID)...)
	for i, g := range user.Linux.SupplementalGroups {
		errs = append(errs, checkGroup(path.Child("supplementalGroups").Index(i), &g)...)
	}
	return errs
}

// checkAllocatedHealth: the health of devices is told of resources that the
// container asked for.
func checkAllocatedHealth(path *field.Path, s *corev1.ContainerStatus, containers []corev1.Container) field.ErrorList {
	var errs field.ErrorList
	at := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == s.Name })
	for i, r := range s.AllocatedResourcesStatus {
		p := path.Index(i)
		if at >= 0 {
			if why := notAskedFor(&containers[at], r.Name); why != "" {
				errs = append(errs, field.Invalid(p.Child("name"), r.Name, why))
			}
		}
		seen := map[corev1.ResourceID]bool{}
		for j, h := range r.Resources {
			hp := p.Child("resources").Index(j)
			errs = append(errs, checkOptional(hp.Child("health"), &h.Health, corev1.ResourceHealthStatusHealthy,
				corev1.ResourceHealthStatusUnhealthy, corev1.ResourceHealthStatusUnknown)...)
			if seen[h.ResourceID] {
				errs = append(errs, field.Duplicate(hp.Child("resourceID"), h.ResourceID))
			}
			seen[h.ResourceID] = true
		}
	}
	return errs
}

func notAskedFor(c *corev1.Container, name corev1.ResourceName) string {
	if !strings.HasPrefix(string(name), "claim:") {
		if _, ok := c.Resources.Requests[name]; ok {
			return ""
		}
		return "must match one of the container's resource requests"
	}
	for _, claim := range c.Resources.Claims {
		key := "claim:" + claim.Name
		if claim.Request != "" {
			key += "/" + claim.Request
		}
		if key == string(name) {
			return ""
		}
	}
	return "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty"
}
