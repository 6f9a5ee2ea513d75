package resource

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Annotations that once were, or still are, part of a pod's API.

const (
	appArmorPrefix = corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix
	seccompPod     = corev1.SeccompPodAnnotationKey
	seccompPrefix  = corev1.SeccompContainerAnnotationKeyPrefix
)

// checkPodAnnotations is about the values of a pod's or a template's
// annotations; path leads to them.
func checkPodAnnotations(path *field.Path, annotations map[string]string, spec *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	if v, ok := annotations[corev1.MirrorPodAnnotationKey]; ok && spec.NodeName == "" {
		errs = append(errs, field.Invalid(path.Key(corev1.MirrorPodAnnotationKey), v, "must set spec.nodeName if mirror pod annotation is set"))
	}
	if v, ok := annotations[corev1.PodDeletionCost]; ok {
		if _, err := strconv.ParseInt(v, 10, 32); err != nil || strings.HasPrefix(v, "+") || len(v) > 1 && v[0] == '0' {
			errs = append(errs, field.Invalid(path.Key(corev1.PodDeletionCost), v, "must be a 32bit integer"))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		value := annotations[key]
		if key == seccompPod || strings.HasPrefix(key, seccompPrefix) {
			errs = append(errs, checkSeccompAnnotation(path.Child(key), value)...)
		}
		name, ok := strings.CutPrefix(key, appArmorPrefix)
		if !ok {
			continue
		}
		if !hasContainerNamed(spec, name) {
			errs = append(errs, field.Invalid(path.Key(key), name, "container not found"))
		}
		known := value == "" || value == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault || value == corev1.DeprecatedAppArmorBetaProfileNameUnconfined
		if !known && !strings.HasPrefix(value, corev1.DeprecatedAppArmorBetaProfileNamePrefix) {
			errs = append(errs, field.Invalid(path.Key(key), value, "invalid AppArmor profile name: "+strconv.Quote(value)))
		}
	}
	return errs
}

func checkSeccompAnnotation(path *field.Path, value string) field.ErrorList {
	if file, ok := strings.CutPrefix(value, corev1.SeccompLocalhostProfileNamePrefix); ok {
		return checkRelativePath(path, file)
	}
	if value != corev1.SeccompProfileRuntimeDefault && value != corev1.DeprecatedSeccompProfileDockerDefault && value != corev1.SeccompProfileNameUnconfined {
		return field.ErrorList{field.Invalid(path, value, "must be a valid seccomp profile")}
	}
	return nil
}

func hasContainerNamed(spec *corev1.PodSpec, name string) bool {
	found := false
	eachContainer(nil, spec, func(_ *field.Path, c *corev1.Container) { found = found || c.Name == name })
	return found
}

// checkProfilesMatch: where a profile is both in an annotation and in its
// field, the two say the same. path leads to the spec.
func checkProfilesMatch(path *field.Path, annotations map[string]string, spec *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	var armor *corev1.AppArmorProfile
	if sc := spec.SecurityContext; sc != nil {
		armor = sc.AppArmorProfile
		if s, noted := sc.SeccompProfile, annotations[seccompPod]; s != nil && noted != "" {
			errs = append(errs, profileMatches(path.Child("securityContext", "seccompProfile"), "seccomp", noted,
				string(s.Type), s.LocalhostProfile, seccompNames)...)
		}
	}
	windows := spec.OS != nil && spec.OS.Name == corev1.Windows
	eachContainer(path, spec, func(p *field.Path, c *corev1.Container) {
		p = p.Child("securityContext")
		own := armor
		if sc := c.SecurityContext; sc != nil {
			if sc.AppArmorProfile != nil {
				own = sc.AppArmorProfile
			}
			if s, noted := sc.SeccompProfile, annotations[seccompPrefix+c.Name]; s != nil && noted != "" {
				errs = append(errs, profileMatches(p.Child("seccompProfile"), "seccomp", noted, string(s.Type), s.LocalhostProfile, seccompNames)...)
			}
		}
		if noted, ok := annotations[appArmorPrefix+c.Name]; ok && own != nil && !windows {
			errs = append(errs, profileMatches(p.Child("appArmorProfile"), "apparmor", noted, string(own.Type), own.LocalhostProfile, appArmorNames)...)
		}
	})
	return errs
}

// What the types of profiles are called in annotations. The last of a list of
// one that ends in a slash is a prefix.
var (
	seccompNames = map[string][]string{
		"Unconfined":     {corev1.SeccompProfileNameUnconfined},
		"RuntimeDefault": {corev1.SeccompProfileRuntimeDefault, corev1.DeprecatedSeccompProfileDockerDefault},
		"Localhost":      {corev1.SeccompLocalhostProfileNamePrefix},
	}
	appArmorNames = map[string][]string{
		"Unconfined":     {corev1.DeprecatedAppArmorBetaProfileNameUnconfined},
		"RuntimeDefault": {corev1.DeprecatedAppArmorBetaProfileRuntimeDefault},
		"Localhost":      {corev1.DeprecatedAppArmorBetaProfileNamePrefix},
	}
)

func profileMatches(path *field.Path, what, noted, kind string, file *string, names map[string][]string) field.ErrorList {
	if kind != "Localhost" {
		if names[kind] != nil && !slices.Contains(names[kind], noted) {
			return field.ErrorList{field.Forbidden(path.Child("type"), what+" type in annotation and field must match")}
		}
		return nil
	}
	local, ok := strings.CutPrefix(noted, names[kind][0])
	switch {
	case !ok:
		return field.ErrorList{field.Forbidden(path.Child("type"), what+" type in annotation and field must match")}
	case file == nil || local != *file:
		return field.ErrorList{field.Forbidden(path.Child("localhostProfile"), what+" profile in annotation and field must match")}
	}
	return nil
}

// checkPodAnnotationUpdate: what the node's agent has acted on stays.
func checkPodAnnotationUpdate(path *field.Path, is, was map[string]string) field.ErrorList {
	var errs field.ErrorList
	for _, key := range slices.Sorted(maps.Keys(is)) {
		if old, had := was[key]; had && old == is[key] {
			continue
		} else if strings.HasPrefix(key, appArmorPrefix) {
			errs = append(errs, field.Forbidden(path.Key(key), "may not add AppArmor annotations"))
		} else if key == corev1.MirrorPodAnnotationKey && !had {
			errs = append(errs, field.Forbidden(path.Key(key), "may not add mirror pod annotation"))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(was)) {
		if value, has := is[key]; has && value == was[key] {
			continue
		} else if strings.HasPrefix(key, appArmorPrefix) {
			errs = append(errs, field.Forbidden(path.Key(key), "may not remove or update AppArmor annotations"))
		} else if key == corev1.MirrorPodAnnotationKey {
			errs = append(errs, field.Forbidden(path.Key(key), "may not remove or update mirror pod annotation"))
		}
	}
	return errs
}
