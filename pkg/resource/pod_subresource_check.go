package resource

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateEphemeralContainers: they can be added, never changed or removed.
func validateEphemeralContainers(pod, old *corev1.Pod) field.ErrorList {
	if _, static := old.Annotations[corev1.MirrorPodAnnotationKey]; static {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers")}
	}
	errs := checkPod(pod)
	path := field.NewPath("spec", "ephemeralContainers")
	byName := map[string]*corev1.EphemeralContainer{}
	for i := range pod.Spec.EphemeralContainers {
		byName[pod.Spec.EphemeralContainers[i].Name] = &pod.Spec.EphemeralContainers[i]
	}
	for i := range old.Spec.EphemeralContainers {
		was := &old.Spec.EphemeralContainers[i]
		if is, ok := byName[was.Name]; !ok {
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", was.Name)))
		} else if !equality.Semantic.DeepEqual(is, was) {
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be changed\n%v", was.Name, diff.Diff(was, is))))
		}
	}
	return errs
}

// validateResize: cpu and memory of app containers and sidecars can change
// while they run, but not so that the pod's quality of service would.
func validateResize(pod, old *corev1.Pod) field.ErrorList {
	if _, static := old.Annotations[corev1.MirrorPodAnnotationKey]; static {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods cannot be resized")}
	}
	if old.Spec.OS != nil && old.Spec.OS.Name == corev1.Windows {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "windows pods cannot be resized")}
	}
	path := field.NewPath("spec")
	if len(pod.Spec.Containers) != len(old.Spec.Containers) || len(pod.Spec.InitContainers) != len(old.Spec.InitContainers) {
		return field.ErrorList{field.Forbidden(path.Child("containers"), "containers may not be added or removed on resize")}
	}
	errs := checkPod(pod)
	if QOSClass(&pod.Spec) != QOSClass(&old.Spec) {
		errs = append(errs, field.Invalid(path, QOSClass(&pod.Spec), "Pod QOS Class may not change as a result of resizing"))
	}
	if !resizable(old) {
		errs = append(errs, field.Forbidden(path, "Pod running on node without support for resize"))
	}
	for i := range old.Spec.Containers {
		is, was := &pod.Spec.Containers[i], &old.Spec.Containers[i]
		errs = append(errs, checkResized(path.Child("containers").Index(i).Child("resources"), is, was)...)
		if !sameBeside(is, was) {
			errs = append(errs, field.Forbidden(path, "only cpu and memory resources are mutable"))
		}
	}
	for i := range old.Spec.InitContainers {
		is, was := &pod.Spec.InitContainers[i], &old.Spec.InitContainers[i]
		switch {
		case !isSidecar(was):
			if !equality.Semantic.DeepEqual(is.Resources, was.Resources) {
				errs = append(errs, field.Forbidden(path, "resources for non-sidecar init containers are immutable"))
			}
			continue
		case !sameBeside(is, was):
			errs = append(errs, field.Forbidden(path, "only cpu and memory resources for sidecar containers are mutable"))
		}
		errs = append(errs, checkResized(path.Child("initContainers").Index(i).Child("resources"), is, was)...)
	}
	return errs
}

// resizable: an agent that can resize reports the resources of what it runs.
func resizable(pod *corev1.Pod) bool {
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Running != nil {
			return c.Resources != nil
		}
	}
	return true
}

// checkResized: what was asked for once is asked for still.
func checkResized(path *field.Path, is, was *corev1.Container) field.ErrorList {
	var errs field.ErrorList
	for _, l := range []struct {
		name    string
		is, was corev1.ResourceList
	}{{"requests", is.Resources.Requests, was.Resources.Requests}, {"limits", is.Resources.Limits, was.Resources.Limits}} {
		for name := range l.was {
			if _, kept := l.is[name]; !kept {
				errs = append(errs, field.Forbidden(path.Child(l.name), "resource "+l.name+" cannot be removed"))
				break
			}
		}
	}
	return errs
}

// sameBeside says that two containers' resources differ in cpu and memory at
// most.
func sameBeside(is, was *corev1.Container) bool {
	beside := func(list corev1.ResourceList) corev1.ResourceList {
		out := corev1.ResourceList{}
		for name, q := range list {
			if name != corev1.ResourceCPU && name != corev1.ResourceMemory {
				out[name] = q
			}
		}
		return out
	}
	return equality.Semantic.DeepEqual(beside(is.Resources.Limits), beside(was.Resources.Limits)) &&
		equality.Semantic.DeepEqual(beside(is.Resources.Requests), beside(was.Resources.Requests)) &&
		equality.Semantic.DeepEqual(is.Resources.Claims, was.Resources.Claims)
}
