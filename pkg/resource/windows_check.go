package resource

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What pods of Windows may ask for, and what pods of one system may not ask of
// the other. No node of ours runs Windows; the API takes such pods all the same.

// eachContainer calls f for the containers of all three lists.
func eachContainer(path *field.Path, spec *corev1.PodSpec, f func(*field.Path, *corev1.Container)) {
	for i := range spec.InitContainers {
		f(path.Child("initContainers").Index(i), &spec.InitContainers[i])
	}
	for i := range spec.Containers {
		f(path.Child("containers").Index(i), &spec.Containers[i])
	}
	for i := range spec.EphemeralContainers {
		f(path.Child("ephemeralContainers").Index(i), (*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
}

// windowsPod: a pod that names its system asks for nothing of the other one.
func (c *podChecker) windowsPod(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if c.spec.OS == nil {
		return nil
	}
	forbid := func(why string, set map[string]bool, order []string, path *field.Path) {
		for _, name := range order {
			if set[name] {
				errs = append(errs, field.Forbidden(path.Child(name), why))
			}
		}
	}
	sc := path.Child("securityContext")
	switch c.spec.OS.Name {
	case corev1.Linux:
		const why = "windows options cannot be set for a linux pod"
		if s := c.spec.SecurityContext; s != nil && s.WindowsOptions != nil {
			errs = append(errs, field.Forbidden(sc.Child("windowsOptions"), why))
		}
		eachContainer(path, c.spec, func(p *field.Path, ctr *corev1.Container) {
			if s := ctr.SecurityContext; s != nil && s.WindowsOptions != nil {
				errs = append(errs, field.Forbidden(p.Child("securityContext", "windowsOptions"), why))
			}
		})
	case corev1.Windows:
		const why = "cannot be set for a windows pod"
		forbid(why, map[string]bool{
			"hostUsers": c.spec.HostUsers != nil, "hostPID": c.spec.HostPID, "hostIPC": c.spec.HostIPC,
			"shareProcessNamespace": c.spec.ShareProcessNamespace != nil,
		}, []string{"hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"}, path)
		if c.spec.SecurityContext != nil {
			forbid(why, setNames(c.spec.SecurityContext), podLinuxOnly, sc)
		}
		eachContainer(path, c.spec, func(p *field.Path, ctr *corev1.Container) {
			if ctr.SecurityContext != nil {
				forbid(why, setNames(ctr.SecurityContext), containerLinuxOnly, p.Child("securityContext"))
			}
		})
	}
	return errs
}

// The fields of the two security contexts that mean nothing to Windows.
var (
	podLinuxOnly = []string{
		"appArmorProfile", "seLinuxOptions", "seccompProfile", "fsGroup", "fsGroupChangePolicy", "sysctls", "runAsUser",
		"runAsGroup", "supplementalGroups", "supplementalGroupsPolicy", "seLinuxChangePolicy",
	}
	containerLinuxOnly = []string{
		"appArmorProfile", "seLinuxOptions", "seccompProfile", "capabilities", "readOnlyRootFilesystem", "privileged",
		"allowPrivilegeEscalation", "procMount", "runAsUser", "runAsGroup",
	}
)

// setNames are the JSON names of the fields of a struct that are not zero.
func setNames(s any) map[string]bool {
	v := reflect.ValueOf(s).Elem()
	out := map[string]bool{}
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		out[name] = !v.Field(i).IsZero()
	}
	return out
}

// hostProcess: containers that are processes of a Windows host are so all
// together, and on its network.
func (c *podChecker) hostProcess(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	var pod *bool
	if s := c.spec.SecurityContext; s != nil && s.WindowsOptions != nil {
		pod = s.WindowsOptions.HostProcess
	}
	all, host := 0, 0
	eachContainer(path, c.spec, func(p *field.Path, ctr *corev1.Container) {
		all++
		own := pod
		if s := ctr.SecurityContext; s != nil && s.WindowsOptions != nil && s.WindowsOptions.HostProcess != nil {
			own = s.WindowsOptions.HostProcess
			if pod != nil && *own != *pod {
				errs = append(errs, field.Invalid(p.Child("securityContext", "windowsOptions", "hostProcess"), *own,
					fmt.Sprintf("pod hostProcess value must be identical if both are specified, was %v", *pod)))
			}
		}
		if own != nil && *own {
			host++
		}
	})
	if host == 0 {
		return errs
	}
	if host != all {
		errs = append(errs, field.Invalid(path, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers"))
	}
	if !c.spec.HostNetwork {
		errs = append(errs, field.Invalid(path.Child("hostNetwork"), false, "hostNetwork must be true if pod contains any hostProcess containers"))
	}
	return errs
}

const (
	maxCredentialSpec  = 64 << 10 // bytes
	maxWindowsDomain   = 255
	maxWindowsUserName = 104
)

// The forms of a Windows user's name, DOMAIN\USER.
var (
	windowsControl   = regexp.MustCompile(`[[:cntrl:]]`)
	windowsNetBIOS   = regexp.MustCompile(`^[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}$`)
	windowsDNS       = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$`)
	windowsBlankUser = regexp.MustCompile(`^[. ]+$`)
)

const windowsBadUserChars = `"/\:;|=,+*?<>@[]`

func checkWindowsOptions(path *field.Path, o *corev1.WindowsSecurityContextOptions) field.ErrorList {
	var errs field.ErrorList
	if o == nil {
		return nil
	}
	if name := o.GMSACredentialSpecName; name != nil {
		errs = append(errs, invalid(path.Child("gmsaCredentialSpecName"), *name, utilvalidation.IsDNS1123Subdomain(*name))...)
	}
	if spec := o.GMSACredentialSpec; spec != nil {
		p := path.Child("gmsaCredentialSpec")
		if *spec == "" {
			errs = append(errs, field.Invalid(p, *spec, "gmsaCredentialSpec cannot be an empty string"))
		} else if len(*spec) > maxCredentialSpec {
			errs = append(errs, field.Invalid(p, "", "gmsaCredentialSpec size must be under 64 KiB"))
		}
	}
	if name := o.RunAsUserName; name != nil {
		errs = append(errs, invalid(path.Child("runAsUserName"), *name, badWindowsName(*name))...)
	}
	return errs
}

// badWindowsName says what is wrong with a user's name.
func badWindowsName(name string) []string {
	switch {
	case name == "":
		return []string{"runAsUserName cannot be an empty string"}
	case windowsControl.MatchString(name):
		return []string{"runAsUserName cannot contain control characters"}
	case strings.Count(name, `\`) > 1:
		return []string{"runAsUserName cannot contain more than one backslash"}
	}
	domain, user, has := strings.Cut(name, `\`)
	if !has {
		domain, user = "", name
	}
	var bad []string
	if len(domain) > maxWindowsDomain {
		bad = append(bad, fmt.Sprintf("runAsUserName's Domain length must be under %d characters", maxWindowsDomain+1))
	}
	if has && !windowsNetBIOS.MatchString(domain) && !windowsDNS.MatchString(domain) {
		bad = append(bad, "runAsUserName's Domain doesn't match the NetBios nor the DNS format")
	}
	if user == "" {
		bad = append(bad, "runAsUserName's User cannot be empty")
	} else if len(user) > maxWindowsUserName {
		bad = append(bad, fmt.Sprintf("runAsUserName's User length must not be longer than %d characters", maxWindowsUserName))
	}
	if windowsBlankUser.MatchString(user) {
		bad = append(bad, "runAsUserName's User cannot contain only periods or spaces")
	}
	if strings.ContainsAny(user, windowsBadUserChars) {
		bad = append(bad, "runAsUserName's User cannot contain the following characters: "+windowsBadUserChars)
	}
	return bad
}
