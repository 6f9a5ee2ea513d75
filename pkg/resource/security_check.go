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
	if c.spec.HostUsers != nil && !*c.spec.HostUsers {
		for _, f := range []struct {
			name string
			set  bool
		}{{"hostPID", c.spec.HostPID}, {"hostIPC", c.spec.HostIPC}, {"hostNetwork", c.spec.HostNetwork}} {
			if f.set {
				errs = append(errs, field.Forbidden(p.Child(f.name), "when `hostUsers` is false"))
			}
		}
	}
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
	errs = append(errs, c.sysctls(p.Child("sysctls"), sc.Sysctls)...)
	errs = append(errs, checkSeccomp(p.Child("seccompProfile"), sc.SeccompProfile)...)
	errs = append(errs, checkAppArmor(p.Child("appArmorProfile"), sc.AppArmorProfile)...)
	return append(errs, c.windows(p, sc.WindowsOptions)...)
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

func (c *podChecker) windows(path *field.Path, o *corev1.WindowsSecurityContextOptions) field.ErrorList {
	if o != nil && c.spec.OS != nil && c.spec.OS.Name == corev1.Linux {
		return field.ErrorList{field.Forbidden(path.Child("windowsOptions"), "windows options cannot be set for a linux pod")}
	}
	return nil
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
	p := path.Child("localhostProfile")
	switch {
	case s.Type != corev1.SeccompProfileTypeLocalhost && s.LocalhostProfile != nil:
		errs = append(errs, field.Invalid(p, *s.LocalhostProfile, "can only be set when seccomp type is Localhost"))
	case s.Type == corev1.SeccompProfileTypeLocalhost && (s.LocalhostProfile == nil || *s.LocalhostProfile == ""):
		errs = append(errs, field.Required(p, "must be set when seccomp type is Localhost"))
	case s.Type == corev1.SeccompProfileTypeLocalhost:
		errs = append(errs, checkRelativePath(p, *s.LocalhostProfile)...)
	}
	return errs
}

func checkAppArmor(path *field.Path, a *corev1.AppArmorProfile) field.ErrorList {
	if a == nil {
		return nil
	}
	if a.Type == "" {
		return field.ErrorList{field.Required(path.Child("type"), "type is required when appArmorProfile is set")}
	}
	errs := checkSet(path.Child("type"), a.Type, corev1.AppArmorProfileTypeLocalhost,
		corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)
	p := path.Child("localhostProfile")
	switch {
	case a.Type != corev1.AppArmorProfileTypeLocalhost && a.LocalhostProfile != nil:
		errs = append(errs, field.Invalid(p, *a.LocalhostProfile, "can only be set when AppArmor type is Localhost"))
	case a.Type == corev1.AppArmorProfileTypeLocalhost && (a.LocalhostProfile == nil || *a.LocalhostProfile == ""):
		errs = append(errs, field.Required(p, "must be set when AppArmor type is Localhost"))
	case a.Type == corev1.AppArmorProfileTypeLocalhost && strings.TrimSpace(*a.LocalhostProfile) != *a.LocalhostProfile:
		errs = append(errs, field.Invalid(p, *a.LocalhostProfile, "must not be padded with whitespace"))
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
		errs = append(errs, checkSet(path.Child("procMount"), *sc.ProcMount, corev1.DefaultProcMount, corev1.UnmaskedProcMount)...)
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
	return append(errs, c.windows(path, sc.WindowsOptions)...)
}
