package resource

import (
	"fmt"
	"maps"
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validatePod(pod *corev1.Pod) field.ErrorList {
	errs := checkPod(pod)
	// What was stored has a version; the rest is about a pod that is new.
	if pod.ResourceVersion != "" {
		return errs
	}
	spec := field.NewPath("spec")
	if len(pod.Spec.SchedulingGates) > 0 && pod.Spec.NodeName != "" {
		errs = append(errs, field.Forbidden(spec.Child("nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	if len(pod.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("ephemeralContainers"), "cannot be set on create"))
	}
	return append(errs, checkProfilesMatch(spec, pod.Annotations, &pod.Spec)...)
}

// validateSamePod: metadata is all that can be wrong where a valid spec stays.
func validateSamePod(pod *corev1.Pod) field.ErrorList {
	return checkPodAnnotations(field.NewPath("metadata", "annotations"), pod.Annotations, &pod.Spec)
}

// checkPod is what holds for every pod, new or not.
func checkPod(pod *corev1.Pod) field.ErrorList {
	spec := field.NewPath("spec")
	errs := checkPodAnnotations(field.NewPath("metadata", "annotations"), pod.Annotations, &pod.Spec)
	errs = append(errs, checkPodSpec(spec, &pod.Spec, true)...)
	if pod.Spec.ServiceAccountName == "" {
		errs = append(errs, checkNoTokens(spec.Child("volumes"), pod.Spec.Volumes)...)
	}
	return append(errs, checkVolumeClaimNames(spec.Child("volumes"), pod)...)
}

// checkVolumeClaimNames: the claim of an ephemeral volume is called
// POD-VOLUME, and that must be a name too.
func checkVolumeClaimNames(path *field.Path, pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Ephemeral == nil || pod.Name == "" || v.Name == "" {
			continue
		}
		name := pod.Name + "-" + v.Name
		for _, msg := range isSubdomain(name) {
			errs = append(errs, field.Invalid(path.Index(i).Child("name"), v.Name, fmt.Sprintf("PVC name %q: %v", name, msg)))
		}
	}
	return errs
}

// checkNoTokens: there is no token of no account.
func checkNoTokens(path *field.Path, volumes []corev1.Volume) field.ErrorList {
	var errs field.ErrorList
	for i := range volumes {
		if volumes[i].Projected == nil {
			continue
		}
		for j, s := range volumes[i].Projected.Sources {
			if s.ServiceAccountToken != nil {
				errs = append(errs, field.Forbidden(path.Index(i).Child("projected", "sources").Index(j).Child("serviceAccountToken"),
					"must not be specified when serviceAccountName is not set"))
			}
		}
	}
	return errs
}

// updatableInPod is what the message about a refused update lists.
var updatableInPod = strings.Join([]string{
	"`spec.containers[*].image`", "`spec.initContainers[*].image`", "`spec.activeDeadlineSeconds`",
	"`spec.tolerations` (only additions to existing tolerations)",
	"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
}, ",")

// validatePodUpdate: a pod is what it was created as, but for the fields that
// updatableInPod names. What may change is copied from old, and whatever still
// differs then may not.
func validatePodUpdate(pod, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("spec")
	errs := checkPodAnnotationUpdate(field.NewPath("metadata", "annotations"), pod.Annotations, old.Annotations)
	if len(pod.Spec.Containers) != len(old.Spec.Containers) {
		return append(errs, field.Forbidden(path.Child("containers"), "pod updates may not add or remove containers"))
	}
	if len(pod.Spec.InitContainers) != len(old.Spec.InitContainers) {
		return append(errs, field.Forbidden(path.Child("initContainers"), "pod updates may not add or remove containers"))
	}
	errs = append(errs, checkDeadlineUpdate(path.Child("activeDeadlineSeconds"), pod.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds)...)
	errs = append(errs, checkGateRemoval(path.Child("schedulingGates"), pod.Spec.SchedulingGates, old.Spec.SchedulingGates)...)
	errs = append(errs, checkTolerationUpdate(path.Child("tolerations"), pod.Spec.Tolerations, old.Spec.Tolerations)...)
	if samePodSpec(&pod.Spec, &old.Spec) {
		return errs
	}
	rest := pod.Spec.DeepCopy()
	for i := range rest.Containers {
		rest.Containers[i].Image = old.Spec.Containers[i].Image
	}
	for i := range rest.InitContainers {
		rest.InitContainers[i].Image = old.Spec.InitContainers[i].Image
	}
	rest.ActiveDeadlineSeconds = old.Spec.ActiveDeadlineSeconds
	rest.SchedulingGates = old.Spec.SchedulingGates
	rest.Tolerations = old.Spec.Tolerations
	if was := old.Spec.TerminationGracePeriodSeconds; was != nil && *was < 0 &&
		rest.TerminationGracePeriodSeconds != nil && *rest.TerminationGracePeriodSeconds == 1 {
		rest.TerminationGracePeriodSeconds = was
	}
	errs = append(errs, takeGatedChanges(path, rest, &old.Spec)...)
	if !samePodSpec(rest, &old.Spec) {
		errs = append(errs, field.Forbidden(path, fmt.Sprintf("pod updates may not change fields other than %s\n%v",
			updatableInPod, diff.Diff(old.Spec, *rest))))
	}
	return errs
}

func checkDeadlineUpdate(path *field.Path, deadline, old *int64) field.ErrorList {
	switch {
	case deadline != nil && (*deadline < 0 || *deadline > math.MaxInt32):
		return field.ErrorList{field.Invalid(path, *deadline, utilvalidation.InclusiveRangeError(0, math.MaxInt32))}
	case deadline != nil && old != nil && *old < *deadline:
		return field.ErrorList{field.Invalid(path, *deadline, "must be less than or equal to previous value")}
	case deadline == nil && old != nil:
		return field.ErrorList{field.Invalid(path, deadline, "must not update from a positive integer to nil value")}
	}
	return nil
}

func checkGateRemoval(path *field.Path, gates, old []corev1.PodSchedulingGate) field.ErrorList {
	had := map[string]bool{}
	for _, g := range old {
		had[g.Name] = true
	}
	var errs field.ErrorList
	for i, g := range gates {
		if !had[g.Name] {
			errs = append(errs, field.Forbidden(path.Index(i).Child("name"), fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", g.Name)))
		}
	}
	return errs
}

// checkTolerationUpdate: a pod may come to tolerate more and for another
// time, never less: what runs is not judged anew.
func checkTolerationUpdate(path *field.Path, list, old []corev1.Toleration) field.ErrorList {
	for _, was := range old {
		kept := false
		for _, is := range list {
			is.TolerationSeconds = was.TolerationSeconds
			kept = kept || same(&is, &was)
		}
		if !kept {
			return field.ErrorList{field.Forbidden(path, "existing toleration can not be modified except its tolerationSeconds")}
		}
	}
	return nil
}

// takeGatedChanges lets a pod that no scheduler has looked at yet be bound to
// fewer nodes than before: more node selector, narrower node affinity. What is
// allowed is put back in rest.
func takeGatedChanges(path *field.Path, rest, old *corev1.PodSpec) field.ErrorList {
	if len(old.SchedulingGates) == 0 {
		return nil
	}
	var errs field.ErrorList
	if !equality.Semantic.DeepEqual(rest.NodeSelector, old.NodeSelector) {
		for key, value := range old.NodeSelector {
			if v, ok := rest.NodeSelector[key]; !ok || v != value {
				errs = append(errs, field.Invalid(path.Child("nodeSelector"), rest.NodeSelector, "only additions to spec.nodeSelector are allowed (no mutations or deletions)"))
				break
			}
		}
		rest.NodeSelector = maps.Clone(old.NodeSelector)
	}
	var is, was *corev1.NodeAffinity
	if rest.Affinity != nil {
		is = rest.Affinity.NodeAffinity
	}
	if old.Affinity != nil {
		was = old.Affinity.NodeAffinity
	}
	if equality.Semantic.DeepEqual(is, was) {
		return errs
	}
	errs = append(errs, checkNarrowerAffinity(path.Child("affinity", "nodeAffinity"), is, was)...)
	switch {
	case old.Affinity == nil && rest.Affinity.PodAffinity == nil && rest.Affinity.PodAntiAffinity == nil:
		rest.Affinity = nil
	case rest.Affinity == nil:
		rest.Affinity = &corev1.Affinity{NodeAffinity: was}
	default:
		rest.Affinity.NodeAffinity = was
	}
	return errs
}

func checkNarrowerAffinity(path *field.Path, is, was *corev1.NodeAffinity) field.ErrorList {
	if was == nil || was.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	p := path.Child(mustTerms, "nodeSelectorTerms")
	old := was.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	var terms []corev1.NodeSelectorTerm
	if is != nil && is.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		terms = is.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	}
	if len(old) > 0 && len(terms) != len(old) {
		return field.ErrorList{field.Invalid(p, terms, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")}
	}
	var errs field.ErrorList
	for i := range old {
		// A term of no requirement matches nothing; what is added widens it.
		wider := len(old[i].MatchExpressions)+len(old[i].MatchFields) == 0 && len(terms[i].MatchExpressions)+len(terms[i].MatchFields) > 0
		kept := !wider && len(terms[i].MatchExpressions) >= len(old[i].MatchExpressions) && len(terms[i].MatchFields) >= len(old[i].MatchFields) &&
			equality.Semantic.DeepEqual(terms[i].MatchExpressions[:len(old[i].MatchExpressions)], old[i].MatchExpressions) &&
			equality.Semantic.DeepEqual(terms[i].MatchFields[:len(old[i].MatchFields)], old[i].MatchFields)
		if !kept {
			errs = append(errs, field.Invalid(p.Index(i), terms[i], "only additions are allowed (no mutations or deletions)"))
		}
	}
	return errs
}
