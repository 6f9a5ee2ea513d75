package resource

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validatePodStatus(pod, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("status")
	var errs field.ErrorList
	if n := pod.Status.NominatedNodeName; n != "" {
		errs = append(errs, invalid(path.Child("nominatedNodeName"), n, utilvalidation.IsDNS1123Subdomain(n))...)
	}
	if old.Status.QOSClass != "" {
		errs = append(errs, checkImmutable(path.Child("qosClass"), pod.Status.QOSClass, old.Status.QOSClass)...)
	}
	if pod.Status.ObservedGeneration < 0 {
		errs = append(errs, field.Invalid(path.Child("observedGeneration"), pod.Status.ObservedGeneration, "must be non-negative"))
	}
	for i, c := range pod.Status.Conditions {
		errs = append(errs, invalid(path.Child("conditions").Index(i).Child("type"), string(c.Type),
			utilvalidation.IsQualifiedName(string(c.Type)))...)
	}
	errs = append(errs, checkAddresses(path.Child("podIPs"), len(pod.Status.PodIPs), func(i int) string { return pod.Status.PodIPs[i].IP })...)
	errs = append(errs, checkAddresses(path.Child("hostIPs"), len(pod.Status.HostIPs), func(i int) string { return pod.Status.HostIPs[i].IP })...)
	return append(errs, checkTransitions(path, pod, old)...)
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
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			policies[list[i].Name] = containerPolicy(&list[i], pod.Spec.RestartPolicy)
		}
	}
	var errs field.ErrorList
	for _, l := range []struct {
		name     string
		is, were []corev1.ContainerStatus
	}{
		{"containerStatuses", pod.Status.ContainerStatuses, old.Status.ContainerStatuses},
		{"initContainerStatuses", pod.Status.InitContainerStatuses, old.Status.InitContainerStatuses},
	} {
		for _, was := range l.were {
			end := was.State.Terminated
			policy, known := policies[was.Name]
			if !known || end == nil || policy == corev1.RestartPolicyAlways || (policy == corev1.RestartPolicyOnFailure && end.ExitCode != 0) {
				continue
			}
			for i, is := range l.is {
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

// validateEphemeralContainers: they can be added, never changed or removed.
func validateEphemeralContainers(pod, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("spec", "ephemeralContainers")
	c := &podChecker{spec: &pod.Spec, isPod: true, volumes: map[string]*corev1.Volume{}}
	for i := range pod.Spec.Volumes {
		c.volumes[pod.Spec.Volumes[i].Name] = &pod.Spec.Volumes[i]
	}
	names := map[string]bool{}
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			names[list[i].Name] = true
		}
	}
	var errs field.ErrorList
	byName := map[string]*corev1.EphemeralContainer{}
	for i := range pod.Spec.EphemeralContainers {
		ec := &pod.Spec.EphemeralContainers[i]
		errs = append(errs, c.ephemeralContainer(path.Index(i), ec, names)...)
		byName[ec.Name] = ec
	}
	for i := range old.Spec.EphemeralContainers {
		was := &old.Spec.EphemeralContainers[i]
		if is, ok := byName[was.Name]; !ok {
			errs = append(errs, field.Forbidden(path, "existing ephemeral containers \""+was.Name+"\" may not be removed\n"))
		} else if !equality.Semantic.DeepEqual(is, was) {
			errs = append(errs, field.Forbidden(path, "existing ephemeral containers \""+was.Name+"\" may not be changed\n"))
		}
	}
	return errs
}

// validateResize: cpu and memory of app containers and sidecars can change
// while they run, but not so that the pod's quality of service would.
func validateResize(pod, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("spec")
	if len(pod.Spec.Containers) != len(old.Spec.Containers) || len(pod.Spec.InitContainers) != len(old.Spec.InitContainers) {
		return field.ErrorList{field.Forbidden(path.Child("containers"), "containers may not be added or removed on resize")}
	}
	errs := checkPodSpec(path, &pod.Spec, true)
	if QOSClass(&pod.Spec) != QOSClass(&old.Spec) {
		errs = append(errs, field.Invalid(path, QOSClass(&pod.Spec), "Pod QOS Class may not change as a result of resizing"))
	}
	for _, l := range []struct {
		name     string
		is, were []corev1.Container
	}{{"containers", pod.Spec.Containers, old.Spec.Containers}, {"initContainers", pod.Spec.InitContainers, old.Spec.InitContainers}} {
		for i := range l.is {
			p := path.Child(l.name).Index(i).Child("resources")
			is, was := &l.is[i], &l.were[i]
			if l.name == "initContainers" && !isSidecar(is) && !equality.Semantic.DeepEqual(is.Resources, was.Resources) {
				errs = append(errs, field.Forbidden(p, "non-sidecar init containers are immutable on resize"))
				continue
			}
			errs = append(errs, checkResizedLists(p, &is.Resources, &was.Resources)...)
		}
	}
	return errs
}

func checkResizedLists(path *field.Path, is, was *corev1.ResourceRequirements) field.ErrorList {
	var errs field.ErrorList
	for _, l := range []struct {
		name    string
		is, was corev1.ResourceList
	}{{"limits", is.Limits, was.Limits}, {"requests", is.Requests, was.Requests}} {
		for _, name := range sortedKeys(l.was) {
			q, kept := l.is[name]
			if old := l.was[name]; name != corev1.ResourceCPU && name != corev1.ResourceMemory && (!kept || q.Cmp(old) != 0) {
				errs = append(errs, field.Forbidden(path.Child(l.name).Key(string(name)), "only cpu and memory resources are mutable"))
			} else if !kept {
				errs = append(errs, field.Forbidden(path.Child(l.name), "resource "+l.name+" cannot be removed"))
			}
		}
		for _, name := range sortedKeys(l.is) {
			if _, had := l.was[name]; !had && name != corev1.ResourceCPU && name != corev1.ResourceMemory {
				errs = append(errs, field.Forbidden(path.Child(l.name).Key(string(name)), "only cpu and memory resources are mutable"))
			}
		}
	}
	return errs
}
