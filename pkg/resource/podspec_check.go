package resource

import (
	"fmt"
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// podChecker is what the checks of a pod spec's parts need to know of the whole.
type podChecker struct {
	spec *corev1.PodSpec
	// isPod is false in templates, which may leave to the pod what is
	// defaulted there.
	isPod   bool
	volumes map[string]*corev1.Volume
}

// checkPodSpec validates a defaulted pod spec at path.
func checkPodSpec(path *field.Path, spec *corev1.PodSpec, isPod bool) field.ErrorList {
	c := &podChecker{spec: spec, isPod: isPod, volumes: make(map[string]*corev1.Volume, len(spec.Volumes))}
	errs := checkVolumes(path.Child("volumes"), spec.Volumes, c.volumes)
	errs = append(errs, c.containers(path)...)
	errs = append(errs, checkSet(path.Child("restartPolicy"), spec.RestartPolicy,
		corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)...)
	errs = append(errs, checkDNS(path, spec)...)
	errs = append(errs, metav1validation.ValidateLabels(spec.NodeSelector, path.Child("nodeSelector"))...)
	errs = append(errs, c.podSecurity(path)...)
	errs = append(errs, checkPodNames(path, spec)...)
	if d := spec.ActiveDeadlineSeconds; d != nil && (*d < 1 || *d > math.MaxInt32) {
		errs = append(errs, field.Invalid(path.Child("activeDeadlineSeconds"), *d, utilvalidation.InclusiveRangeError(1, math.MaxInt32)))
	}
	errs = append(errs, checkAffinity(path.Child("affinity"), spec.Affinity)...)
	errs = append(errs, checkTolerations(path.Child("tolerations"), spec.Tolerations)...)
	errs = append(errs, checkTopologySpread(path.Child("topologySpreadConstraints"), spec.TopologySpreadConstraints)...)
	errs = append(errs, checkGates(path, spec)...)
	errs = append(errs, checkHostAliases(path.Child("hostAliases"), spec.HostAliases)...)
	errs = append(errs, checkOptional(path.Child("preemptionPolicy"), spec.PreemptionPolicy,
		corev1.PreemptLowerPriority, corev1.PreemptNever)...)
	errs = append(errs, checkPodResources(path, spec)...)
	errs = append(errs, checkPodClaims(path.Child("resourceClaims"), spec.ResourceClaims)...)
	if spec.TerminationGracePeriodSeconds == nil {
		errs = append(errs, field.Required(path.Child("terminationGracePeriodSeconds"), ""))
	}
	if spec.OS != nil && spec.OS.Name == "" {
		errs = append(errs, field.Required(path.Child("os", "name"), "cannot be empty"))
	} else if spec.OS != nil {
		errs = append(errs, checkOptional(path.Child("os"), &spec.OS.Name, corev1.Linux, corev1.Windows)...)
	}
	if g := spec.SchedulingGroup; g != nil && g.PodGroupName != nil {
		p := path.Child("schedulingGroup", "podGroupName")
		errs = append(errs, invalid(p, *g.PodGroupName, isSubdomain(*g.PodGroupName))...)
	} else if g != nil {
		errs = append(errs, field.Required(path.Child("schedulingGroup"), "must specify one of: `podGroupName`"))
	}
	return append(errs, checkResponders(path.Child("evictionResponders"), spec.EvictionResponders)...)
}

const (
	maxResponders        = 10
	maxResponderPriority = 100000
)

// checkResponders: whom an eviction asks before it acts, in an order.
func checkResponders(path *field.Path, list []corev1.EvictionResponder) field.ErrorList {
	if len(list) > maxResponders {
		return field.ErrorList{field.TooMany(path, len(list), maxResponders)}
	}
	var errs field.ErrorList
	names := map[string]bool{}
	for i, r := range list {
		p := path.Index(i)
		errs = append(errs, utilvalidation.IsDomainPrefixedKey(p.Child("name"), r.Name)...)
		if names[r.Name] {
			errs = append(errs, field.Duplicate(p, r.Name))
		}
		names[r.Name] = true
		switch n := r.Priority; {
		case n == nil:
			errs = append(errs, field.Required(p.Child("priority"), ""))
		case *n < 0:
			errs = append(errs, field.Invalid(p.Child("priority"), *n, "must be greater than or equal to 0"))
		case *n > maxResponderPriority:
			errs = append(errs, field.Invalid(p.Child("priority"), *n, "must be less than or equal to 100000"))
		}
	}
	return errs
}

// checkPodNames: the names of other objects that a spec refers to, and the
// pod's own on the network.
func checkPodNames(path *field.Path, spec *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	optional := func(name, value string, rule func(string) []string) {
		if value != "" {
			errs = append(errs, invalid(path.Child(name), value, rule(value))...)
		}
	}
	subdomain := utilvalidation.IsDNS1123Subdomain
	optional("serviceAccountName", spec.ServiceAccountName, subdomain)
	optional("nodeName", spec.NodeName, subdomain)
	optional("hostname", spec.Hostname, isLabel)
	optional("subdomain", spec.Subdomain, isLabel)
	optional("priorityClassName", spec.PriorityClassName, subdomain)
	if spec.RuntimeClassName != nil {
		errs = append(errs, invalid(path.Child("runtimeClassName"), *spec.RuntimeClassName, subdomain(*spec.RuntimeClassName))...)
	}
	if h := spec.HostnameOverride; h != nil {
		errs = append(errs, checkHostnameOverride(path, spec, *h)...)
	}
	return errs
}

// maxHostname is what the kernel keeps of a host's name.
const maxHostname = 64

func checkHostnameOverride(path *field.Path, spec *corev1.PodSpec, name string) field.ErrorList {
	p := path.Child("hostnameOverride")
	errs := invalid(p, name, isSubdomain(name))
	if len(name) > maxHostname {
		errs = append(errs, field.TooLong(p, name, maxHostname))
	}
	if spec.HostNetwork {
		errs = append(errs, field.Forbidden(p, "may not be specified when hostNetwork is true"))
	}
	if spec.SetHostnameAsFQDN != nil && *spec.SetHostnameAsFQDN {
		errs = append(errs, field.Forbidden(p, "may not be specified when setHostnameAsFQDN is true"))
	}
	return errs
}

const (
	maxNameservers    = 3
	maxSearchDomains  = 32
	maxSearchListSize = 2048
)

func checkDNS(path *field.Path, spec *corev1.PodSpec) field.ErrorList {
	errs := checkSet(path.Child("dnsPolicy"), spec.DNSPolicy, corev1.DNSClusterFirstWithHostNet,
		corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)
	p := path.Child("dnsConfig")
	if spec.DNSPolicy == corev1.DNSNone {
		if spec.DNSConfig == nil {
			return append(errs, field.Required(p, "must provide `dnsConfig` when `dnsPolicy` is None"))
		}
		if len(spec.DNSConfig.Nameservers) == 0 {
			return append(errs, field.Required(p.Child("nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None"))
		}
	}
	c := spec.DNSConfig
	if c == nil {
		return errs
	}
	if len(c.Nameservers) > maxNameservers {
		errs = append(errs, field.Invalid(p.Child("nameservers"), c.Nameservers,
			fmt.Sprintf("must not have more than %v nameservers", maxNameservers)))
	}
	for i, ns := range c.Nameservers {
		errs = append(errs, utilvalidation.IsValidIP(p.Child("nameservers").Index(i), ns)...)
	}
	if len(c.Searches) > maxSearchDomains {
		errs = append(errs, field.Invalid(p.Child("searches"), c.Searches,
			fmt.Sprintf("must not have more than %v search paths", maxSearchDomains)))
	}
	size := len(c.Searches) - 1
	for i, s := range c.Searches {
		size += len(s)
		if s != "." {
			s = strings.TrimSuffix(s, ".")
			errs = append(errs, invalid(p.Child("searches").Index(i), s, utilvalidation.IsDNS1123SubdomainWithUnderscore(s))...)
		}
	}
	if size > maxSearchListSize {
		errs = append(errs, field.Invalid(p.Child("searches"), c.Searches,
			fmt.Sprintf("must not have more than %v characters (including spaces) in the search list", maxSearchListSize)))
	}
	for i, o := range c.Options {
		if o.Name == "" {
			errs = append(errs, field.Required(p.Child("options").Index(i), "must not be empty"))
		}
	}
	return errs
}

func checkGates(path *field.Path, spec *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	for i, g := range spec.ReadinessGates {
		p := path.Child("readinessGates").Index(i).Child("conditionType")
		errs = append(errs, invalid(p, string(g.ConditionType), utilvalidation.IsQualifiedName(string(g.ConditionType)))...)
	}
	seen := map[string]bool{}
	for i, g := range spec.SchedulingGates {
		p := path.Child("schedulingGates").Index(i)
		errs = append(errs, invalid(p, g.Name, utilvalidation.IsQualifiedName(g.Name))...)
		if seen[g.Name] {
			errs = append(errs, field.Duplicate(p, g.Name))
		}
		seen[g.Name] = true
	}
	return errs
}

func checkPodClaims(path *field.Path, claims []corev1.PodResourceClaim) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
	for i, c := range claims {
		p := path.Index(i)
		errs = append(errs, checkName(p.Child("name"), c.Name, isLabel)...)
		if c.Name != "" && names[c.Name] {
			errs = append(errs, field.Duplicate(p.Child("name"), c.Name))
		}
		names[c.Name] = true
		switch {
		case c.ResourceClaimName != nil && c.ResourceClaimTemplateName != nil:
			errs = append(errs, field.Invalid(p, c, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"))
		case c.ResourceClaimName == nil && c.ResourceClaimTemplateName == nil:
			errs = append(errs, field.Invalid(p, c, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"))
		}
		for _, f := range []struct {
			name  string
			value *string
		}{{"resourceClaimName", c.ResourceClaimName}, {"resourceClaimTemplateName", c.ResourceClaimTemplateName}} {
			if f.value != nil {
				errs = append(errs, invalid(p.Child(f.name), *f.value, isSubdomain(*f.value))...)
			}
		}
	}
	return errs
}

func checkHostAliases(path *field.Path, aliases []corev1.HostAlias) field.ErrorList {
	var errs field.ErrorList
	for i, a := range aliases {
		errs = append(errs, utilvalidation.IsValidIP(path.Index(i).Child("ip"), a.IP)...)
		for j, h := range a.Hostnames {
			errs = append(errs, invalid(path.Index(i).Child("hostnames").Index(j), h, isSubdomain(h))...)
		}
	}
	return errs
}

// checkPodTemplate validates a workload's pod template. Upstream reports
// labels and annotations without the metadata element; so does this.
func checkPodTemplate(path *field.Path, t *corev1.PodTemplateSpec) field.ErrorList {
	errs := metav1validation.ValidateLabels(t.Labels, path.Child("labels"))
	errs = append(errs, validation.ValidateAnnotations(t.Annotations, path.Child("annotations"))...)
	errs = append(errs, checkPodAnnotations(path.Child("annotations"), t.Annotations, &t.Spec)...)
	errs = append(errs, checkPodSpec(path.Child("spec"), &t.Spec, false)...)
	errs = append(errs, checkProfilesMatch(path.Child("spec"), t.Annotations, &t.Spec)...)
	if len(t.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(path.Child("spec", "ephemeralContainers"),
			"ephemeral containers not allowed in pod template"))
	}
	return errs
}
