package admission

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// HardenedContainers gives pods that say nothing of it the runtime's seccomp
// profile, and their containers no way to gain rights and no raw packets (which
// forge the answers of others, CVE-2020-10749). What a pod says itself is for
// pod security to judge.
type HardenedContainers struct {
	// Exempt are the namespaces of the cluster's own parts.
	Exempt []string
}

// Name implements Plugin.
func (HardenedContainers) Name() string { return "HardenedContainers" }

const rawPackets corev1.Capability = "NET_RAW"

// Admit implements Mutator.
func (p HardenedContainers) Admit(_ context.Context, a *Attributes) error {
	pod, ok := bringsContainers(a)
	if !ok || slices.Contains(p.Exempt, a.Namespace) || pod.Spec.OS != nil && pod.Spec.OS.Name == corev1.Windows {
		return nil
	}
	switch {
	case a.Operation == Create && a.Subresource == "":
		if pod.Spec.SecurityContext == nil {
			pod.Spec.SecurityContext = &corev1.PodSecurityContext{}
		}
		if sc := pod.Spec.SecurityContext; sc.SeccompProfile == nil {
			sc.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
		}
		for i := range pod.Spec.InitContainers {
			confine(&pod.Spec.InitContainers[i].SecurityContext)
		}
		for i := range pod.Spec.Containers {
			confine(&pod.Spec.Containers[i].SecurityContext)
		}
	case a.Operation == Update && a.Subresource == "ephemeralcontainers":
		for i := range newContainers(pod, a.Old()) {
			confine(&pod.Spec.EphemeralContainers[i].SecurityContext)
		}
	}
	return nil
}

// newContainers are the ephemeral containers that a pod did not have, by their
// place.
func newContainers(pod *corev1.Pod, old any) map[int]bool {
	had := map[string]bool{}
	if o, ok := old.(*corev1.Pod); ok {
		for i := range o.Spec.EphemeralContainers {
			had[o.Spec.EphemeralContainers[i].Name] = true
		}
	}
	out := map[int]bool{}
	for i := range pod.Spec.EphemeralContainers {
		if !had[pod.Spec.EphemeralContainers[i].Name] {
			out[i] = true
		}
	}
	return out
}

// confine fills in what a container does not say. One that is privileged, or
// may administrate the system, has said enough.
func confine(at **corev1.SecurityContext) {
	if *at == nil {
		*at = &corev1.SecurityContext{}
	}
	sc := *at
	privileged := sc.Privileged != nil && *sc.Privileged
	if privileged {
		return
	}
	if sc.Capabilities == nil {
		sc.Capabilities = &corev1.Capabilities{}
	}
	caps := sc.Capabilities
	admin := hasCapability(caps.Add, "SYS_ADMIN")
	if sc.AllowPrivilegeEscalation == nil && !admin {
		sc.AllowPrivilegeEscalation = new(false)
	}
	if !hasCapability(caps.Add, rawPackets) && !hasCapability(caps.Drop, rawPackets) {
		caps.Drop = append(caps.Drop, rawPackets)
	}
}

// hasCapability also knows the name with its kernel prefix, and all of them.
func hasCapability(list []corev1.Capability, name corev1.Capability) bool {
	return slices.ContainsFunc(list, func(c corev1.Capability) bool { return c == name || c == "CAP_"+name || c == "ALL" })
}
