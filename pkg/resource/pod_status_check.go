package resource

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validatePodStatus(pod, old *corev1.Pod) field.ErrorList {
	path, status := field.NewPath("status"), &pod.Status
	errs := checkPodAnnotationUpdate(field.NewPath("metadata", "annotations"), pod.Annotations, old.Annotations)
	system := []corev1.PodConditionType{corev1.PodScheduled, corev1.PodReady, corev1.PodInitialized}
	for i, c := range status.Conditions {
		if !slices.Contains(system, c.Type) {
			// Upstream puts the conditions into the metadata; so does this.
			errs = append(errs, invalid(field.NewPath("metadata", "conditions").Index(i).Child("Type"), string(c.Type),
				utilvalidation.IsQualifiedName(string(c.Type)))...)
		}
	}
	if n := status.NominatedNodeName; n != "" && n != old.Status.NominatedNodeName {
		errs = append(errs, invalid(path.Child("nominatedNodeName"), n, utilvalidation.IsDNS1123Subdomain(n))...)
	}
	if old.Status.QOSClass != "" {
		errs = append(errs, checkImmutable(path.Child("qosClass"), status.QOSClass, old.Status.QOSClass)...)
	}
	if status.ObservedGeneration < 0 {
		errs = append(errs, field.Invalid(path.Child("observedGeneration"), status.ObservedGeneration, "must be non-negative"))
	}
	errs = append(errs, checkTransitions(path, pod, old)...)
	errs = append(errs, checkClaimStatuses(path, pod)...)
	errs = append(errs, checkAddresses(path.Child("podIPs"), len(status.PodIPs), func(i int) string { return status.PodIPs[i].IP })...)
	if len(status.HostIPs) > 0 && status.HostIPs[0].IP != status.HostIP {
		errs = append(errs, field.Invalid(path.Child("hostIPs").Index(0).Child("ip"), status.HostIPs[0].IP, "must be equal to `hostIP`"))
	}
	errs = append(errs, checkAddresses(path.Child("hostIPs"), len(status.HostIPs), func(i int) string { return status.HostIPs[i].IP })...)
	for i, v := range status.VolumeHealth {
		p := path.Child("volumeHealth").Index(i)
		errs = append(errs, required(p.Child("name"), v.Name)...)
		errs = append(errs, checkVolumeHealth(p.Child("healthConditions"), v.HealthConditions)...)
	}
	return append(errs, checkContainerStatuses(path, pod)...)
}

// checkAddresses wants at most one address of each family.
func checkAddresses(path *field.Path, n int, at func(int) string) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	families := map[bool]int{}
	for i := range n {
		ip := at(i)
		errs = append(errs, utilvalidation.IsValidIP(path.Index(i), ip)...)
		if seen[ip] {
			errs = append(errs, field.Duplicate(path.Index(i), ip))
		}
		seen[ip] = true
		families[isIPv6(ip)]++
	}
	if n > 1 && (families[false] > 1 || families[true] > 1) {
		errs = append(errs, field.Invalid(path, n, "may specify no more than one IP for each IP family"))
	}
	return errs
}

// checkTransitions: a container that ended for good does not come back, or a
// job would run twice.
func checkTransitions(path *field.Path, pod, old *corev1.Pod) field.ErrorList {
	policies := map[string]corev1.RestartPolicy{}
	eachContainer(nil, &pod.Spec, func(_ *field.Path, c *corev1.Container) {
		policies[c.Name] = containerPolicy(c, pod.Spec.RestartPolicy)
	})
	for i := range pod.Spec.EphemeralContainers {
		policies[pod.Spec.EphemeralContainers[i].Name] = corev1.RestartPolicyNever
	}
	var errs field.ErrorList
	for _, l := range []struct {
		name     string
		is, were []corev1.ContainerStatus
	}{
		{"containerStatuses", pod.Status.ContainerStatuses, old.Status.ContainerStatuses},
		{"initContainerStatuses", pod.Status.InitContainerStatuses, old.Status.InitContainerStatuses},
		{"ephemeralContainerStatuses", pod.Status.EphemeralContainerStatuses, old.Status.EphemeralContainerStatuses},
	} {
		for i, was := range l.were {
			end := was.State.Terminated
			policy, known := policies[was.Name]
			if !known || end == nil || policy == corev1.RestartPolicyAlways || (policy == corev1.RestartPolicyOnFailure && end.ExitCode != 0) {
				continue
			}
			for _, is := range l.is {
				if is.Name == was.Name && is.State.Terminated == nil {
					errs = append(errs, field.Forbidden(path.Child(l.name).Index(i).Child("state"), "may not be transitioned to non-terminated state"))
				}
			}
		}
	}
	return errs
}

// containerPolicy is the restart policy that holds for one container. One with
// rules of its own may always be restarted by them.
func containerPolicy(c *corev1.Container, pod corev1.RestartPolicy) corev1.RestartPolicy {
	switch {
	case len(c.RestartPolicyRules) > 0:
		return corev1.RestartPolicyAlways
	case c.RestartPolicy != nil:
		return corev1.RestartPolicy(*c.RestartPolicy)
	}
	return pod
}
