package resource

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	sysctlPattern = `[a-z0-9]([-_a-z0-9]*[a-z0-9])?`
	maxSysctlName = 253
)

// sysctlFull: parts are joined by dots or slashes.
const sysctlFull = `(` + sysctlPattern + `[\./])*` + sysctlPattern

var sysctlName = regexp.MustCompile(`^` + sysctlFull + `$`)

func (c *podChecker) podSecurity(path *field.Path) field.ErrorList {
	sc, p := c.spec.SecurityContext, path.Child("securityContext")
	var errs field.ErrorList
	if c.spec.ShareProcessNamespace != nil && *c.spec.ShareProcessNamespace && c.spec.HostPID {
		errs = append(errs, field.Invalid(p.Child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled"))
	}
	errs = append(errs, c.hostUsers(path)...)
	errs = append(errs, c.hostProcess(path)...)
	errs = append(errs, c.windowsPod(path)...)
	if sc == nil {
		return errs
	}
	errs = append(errs, checkUser(p.Child("runAsUser"), sc.RunAsUser)...)
	errs = append(errs, checkGroup(p.Child("runAsGroup"), sc.RunAsGroup)...)
	errs = append(errs, checkGroup(p.Child("fsGroup"), sc.FSGroup)...)
	for i, g := range sc.SupplementalGroups {
		errs = append(errs, checkGroup(p.Child("supplementalGroups").Index(i), &g)...)
	}
	errs = append(errs, checkOptional(p.Child("supplementalGroupsPolicy"), sc.SupplementalGroupsPolicy,
		corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)...)
	errs = append(errs, checkOptional(p.Child("fsGroupChangePolicy"), sc.FSGroupChangePolicy,
		corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)...)
	errs = append(errs, checkOptional(p.Child("seLinuxChangePolicy"), sc.SELinuxChangePolicy,
		corev1.SELinuxChangePolicyMountOption, corev1.SELinuxChangePolicyRecursive)...)
	errs = append(errs, c.sysctls(p.Child("sysctls"), sc.Sysctls)...)
	errs = append(errs, checkSeccomp(p.Child("seccompProfile"), sc.SeccompProfile)...)
	errs = append(errs, checkAppArmor(p.Child("appArmorProfile"), sc.AppArmorProfile)...)
	return append(errs, checkWindowsOptions(p.Child("windowsOptions"), sc.WindowsOptions)...)
}

// hostUsers: a pod with users of its own shares nothing else with the host.
// The odd capitals are upstream's.
func (c *podChecker) hostUsers(path *field.Path) field.ErrorList {
	if c.spec.HostUsers == nil || *c.spec.HostUsers {
		return nil
	}
	var errs field.ErrorList
	for _, f := range []struct {
		name string
		set  bool
	}{{"hostNetwork", c.spec.HostNetwork}, {"HostPID", c.spec.HostPID}, {"HostIPC", c.spec.HostIPC}} {
		if f.set {
			errs = append(errs, field.Forbidden(path.Child(f.name), "when `pod.Spec.HostUsers` is false"))
		}
	}
	return errs
}

func checkUser(path *field.Path, id *int64) field.ErrorList {
	if id == nil {
		return nil
	}
	return invalid(path, *id, utilvalidation.IsValidUserID(*id))
}

func checkGroup(path *field.Path, id *int64) field.ErrorList {
	if id == nil {
		return nil
	}
	return invalid(path, *id, utilvalidation.IsValidGroupID(*id))
}

// sysctls: a name may be written with dots or slashes. Those of a namespace
// that the pod shares with the host would change the host.
func (c *podChecker) sysctls(path *field.Path, list []corev1.Sysctl) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, s := range list {
		p := path.Index(i).Child("name")
		name := dotted(s.Name)
		switch {
		case s.Name == "":
			errs = append(errs, field.Required(p, ""))
		case len(s.Name) > maxSysctlName || !sysctlName.MatchString(s.Name):
			errs = append(errs, field.Invalid(p, s.Name, fmt.Sprintf("must have at most %d characters and match regex %s", maxSysctlName, sysctlFull)))
		case seen[name]:
			errs = append(errs, field.Duplicate(p, s.Name))
		case c.isPod && c.spec.HostNetwork && strings.HasPrefix(name, "net."):
			errs = append(errs, field.Invalid(p, s.Name, "may not be specified when 'hostNetwork' is true"))
		case c.isPod && c.spec.HostIPC && ipcSysctl(name):
			errs = append(errs, field.Invalid(p, s.Name, "may not be specified when 'hostIPC' is true"))
		}
		seen[name] = true
	}
	return errs
}

// dotted is a sysctl's name with dots between its parts, whichever separator
// comes first in it.
func dotted(name string) string {
	if i := strings.IndexAny(name, "./"); i < 0 || name[i] == '.' {
		return name
	}
	swap := strings.NewReplacer("/", ".", ".", "/")
	return swap.Replace(name)
}

func ipcSysctl(name string) bool {
	return slices.Contains([]string{"kernel.sem"}, name) || strings.HasPrefix(name, "kernel.shm") ||
		strings.HasPrefix(name, "kernel.msg") || strings.HasPrefix(name, "fs.mqueue.")
}

func checkSeccomp(path *field.Path, s *corev1.SeccompProfile) field.ErrorList {
	if s == nil {
		return nil
	}
	if s.Type == "" {
		return field.ErrorList{field.Required(path.Child("type"), "type is required when seccompProfile is set")}
	}
	errs := checkSet(path.Child("type"), s.Type, corev1.SeccompProfileTypeLocalhost,
		corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)
	p, local := path.Child("localhostProfile"), s.Type == corev1.SeccompProfileTypeLocalhost
	switch {
	case local && s.LocalhostProfile == nil:
		errs = append(errs, field.Required(p, "must be set when seccomp type is Localhost"))
	case local:
		errs = append(errs, checkRelativePath(p, *s.LocalhostProfile)...)
	case s.LocalhostProfile != nil:
		errs = append(errs, field.Invalid(p, *s.LocalhostProfile, "can only be set when seccomp type is Localhost"))
	}
	return errs
}

// maxAppArmorName is the longest path, without the zero byte at its end.
const maxAppArmorName = 4095

func checkAppArmor(path *field.Path, a *corev1.AppArmorProfile) field.ErrorList {
	if a == nil {
		return nil
	}
	if a.Type == "" {
		return field.ErrorList{field.Required(path.Child("type"), "type is required when appArmorProfile is set")}
	}
	errs := checkSet(path.Child("type"), a.Type, corev1.AppArmorProfileTypeLocalhost,
		corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)
	p, local := path.Child("localhostProfile"), a.Type == corev1.AppArmorProfileTypeLocalhost
	if !local {
		if a.LocalhostProfile != nil && len(errs) == 0 {
			errs = append(errs, field.Invalid(p, *a.LocalhostProfile, "can only be set when AppArmor type is Localhost"))
		}
		return errs
	}
	name := a.LocalhostProfile
	switch {
	case name == nil, *name == "":
		errs = append(errs, field.Required(p, "must be set when AppArmor type is Localhost"))
	case strings.TrimSpace(*name) != *name:
		errs = append(errs, field.Invalid(p, *name, "must not be padded with whitespace"))
	}
	if name != nil && len(*name) > maxAppArmorName {
		errs = append(errs, field.TooLong(p, *name, maxAppArmorName))
	}
	return errs
}

func (c *podChecker) containerSecurity(path *field.Path, sc *corev1.SecurityContext) field.ErrorList {
	if sc == nil {
		return nil
	}
	errs := checkUser(path.Child("runAsUser"), sc.RunAsUser)
	errs = append(errs, checkGroup(path.Child("runAsGroup"), sc.RunAsGroup)...)
	if sc.ProcMount != nil {
		errs = append(errs, checkOptional(path.Child("procMount"), sc.ProcMount, corev1.DefaultProcMount, corev1.UnmaskedProcMount)...)
		if *sc.ProcMount == corev1.UnmaskedProcMount && (c.spec.HostUsers == nil || *c.spec.HostUsers) {
			errs = append(errs, field.Invalid(path.Child("procMount"), *sc.ProcMount, "`hostUsers` must be false to use `Unmasked`"))
		}
	}
	errs = append(errs, checkSeccomp(path.Child("seccompProfile"), sc.SeccompProfile)...)
	errs = append(errs, checkAppArmor(path.Child("appArmorProfile"), sc.AppArmorProfile)...)
	if sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation {
		if sc.Privileged != nil && *sc.Privileged {
			errs = append(errs, field.Invalid(path, sc, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"))
		}
		if sc.Capabilities != nil && slices.Contains(sc.Capabilities.Add, "CAP_SYS_ADMIN") {
			errs = append(errs, field.Invalid(path, sc, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"))
		}
	}
	return append(errs, checkWindowsOptions(path.Child("windowsOptions"), sc.WindowsOptions)...)
}
