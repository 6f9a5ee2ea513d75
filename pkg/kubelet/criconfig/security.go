package criconfig

import (
	"fmt"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// effective is a container's security context with the pod's filled in.
type effective struct {
	user, group *int64
	nonRoot     bool
	seccomp     *corev1.SeccompProfile
	apparmor    *corev1.AppArmorProfile
	selinux     *corev1.SELinuxOptions
	own         corev1.SecurityContext
}

func effectiveSecurity(pod *corev1.Pod, spec *corev1.Container) effective {
	var e effective
	if sc := pod.Spec.SecurityContext; sc != nil {
		e.user, e.group = sc.RunAsUser, sc.RunAsGroup
		e.nonRoot = sc.RunAsNonRoot != nil && *sc.RunAsNonRoot
		e.seccomp, e.apparmor, e.selinux = sc.SeccompProfile, sc.AppArmorProfile, sc.SELinuxOptions
	}
	if sc := spec.SecurityContext; sc != nil {
		e.own = *sc
		if sc.RunAsUser != nil {
			e.user = sc.RunAsUser
		}
		if sc.RunAsGroup != nil {
			e.group = sc.RunAsGroup
		}
		if sc.RunAsNonRoot != nil {
			e.nonRoot = *sc.RunAsNonRoot
		}
		if sc.SeccompProfile != nil {
			e.seccomp = sc.SeccompProfile
		}
		if sc.AppArmorProfile != nil {
			e.apparmor = sc.AppArmorProfile
		}
		if sc.SELinuxOptions != nil {
			e.selinux = sc.SELinuxOptions
		}
	}
	return e
}

func containerSecurity(in ContainerInput) (*runtimeapi.LinuxContainerSecurityContext, error) {
	e := effectiveSecurity(in.Pod, in.Spec)
	if err := e.checkNonRoot(in); err != nil {
		return nil, err
	}
	out := &runtimeapi.LinuxContainerSecurityContext{
		NamespaceOptions: namespaces(in.Pod, in.TargetID),
		Privileged:       truth(e.own.Privileged),
		ReadonlyRootfs:   truth(e.own.ReadOnlyRootFilesystem),
		NoNewPrivs:       e.own.AllowPrivilegeEscalation != nil && !*e.own.AllowPrivilegeEscalation,
		Capabilities:     capabilities(e.own.Capabilities),
		SelinuxOptions:   selinux(e.selinux),
		MaskedPaths:      maskedPaths(),
		ReadonlyPaths:    readonlyPaths(),
	}
	if e.own.ProcMount != nil && *e.own.ProcMount == corev1.UnmaskedProcMount {
		out.MaskedPaths, out.ReadonlyPaths = []string{}, []string{}
	}
	out.SupplementalGroups, out.SupplementalGroupsPolicy = groups(in.Pod)
	e.identity(out, in.Image)
	var err error
	if out.Seccomp, err = e.seccompProfile(in.SeccompRoot); err != nil {
		return nil, err
	}
	out.Apparmor = apparmor(e.apparmor)
	return out, nil
}

func truth(b *bool) bool { return b != nil && *b }

// checkNonRoot refuses a container that must not run as root and would.
func (e effective) checkNonRoot(in ContainerInput) error {
	if !e.nonRoot {
		return nil
	}
	who := fmt.Sprintf("(pod: %q, container: %s)", in.Pod.Name+"_"+in.Pod.Namespace+"("+string(in.Pod.UID)+")", in.Spec.Name)
	switch {
	case e.user != nil && *e.user == 0:
		return fmt.Errorf("container's runAsUser breaks non-root policy %s", who)
	case e.user != nil:
		return nil
	case in.Image.GetUid() != nil && in.Image.GetUid().GetValue() == 0,
		in.Image.GetUid() == nil && in.Image.GetUsername() == "":
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", who)
	case in.Image.GetUid() == nil:
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", in.Image.GetUsername(), who)
	}
	return nil
}

// identity sets user and group. A group alone needs the image's user beside
// it; without either the runtime takes what the image says.
func (e effective) identity(out *runtimeapi.LinuxContainerSecurityContext, image *runtimeapi.Image) {
	if e.user != nil {
		out.RunAsUser = &runtimeapi.Int64Value{Value: *e.user}
	}
	if e.group == nil {
		return
	}
	out.RunAsGroup = &runtimeapi.Int64Value{Value: *e.group}
	switch {
	case out.RunAsUser != nil:
	case image.GetUid() != nil:
		out.RunAsUser = &runtimeapi.Int64Value{Value: image.GetUid().GetValue()}
	case image.GetUsername() != "":
		out.RunAsUsername = image.GetUsername()
	default:
		out.RunAsUser = &runtimeapi.Int64Value{Value: 0}
	}
}

func capabilities(c *corev1.Capabilities) *runtimeapi.Capability {
	if c == nil {
		return nil
	}
	out := &runtimeapi.Capability{}
	for _, name := range c.Add {
		out.AddCapabilities = append(out.AddCapabilities, strings.TrimPrefix(string(name), "CAP_"))
	}
	for _, name := range c.Drop {
		out.DropCapabilities = append(out.DropCapabilities, strings.TrimPrefix(string(name), "CAP_"))
	}
	return out
}

func selinux(o *corev1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func (e effective) seccompProfile(root string) (*runtimeapi.SecurityProfile, error) {
	out := &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	if e.seccomp == nil {
		return out, nil
	}
	switch e.seccomp.Type {
	case corev1.SeccompProfileTypeRuntimeDefault:
		out.ProfileType = runtimeapi.SecurityProfile_RuntimeDefault
	case corev1.SeccompProfileTypeLocalhost:
		if e.seccomp.LocalhostProfile == nil || !filepath.IsLocal(*e.seccomp.LocalhostProfile) {
			return nil, fmt.Errorf("localhostProfile must be a relative path below the node's folder of seccomp profiles")
		}
		out.ProfileType = runtimeapi.SecurityProfile_Localhost
		out.LocalhostRef = filepath.Join(root, *e.seccomp.LocalhostProfile)
	}
	return out, nil
}

func apparmor(p *corev1.AppArmorProfile) *runtimeapi.SecurityProfile {
	if p == nil {
		return nil
	}
	out := &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	switch p.Type {
	case corev1.AppArmorProfileTypeUnconfined:
		out.ProfileType = runtimeapi.SecurityProfile_Unconfined
	case corev1.AppArmorProfileTypeLocalhost:
		out.ProfileType = runtimeapi.SecurityProfile_Localhost
		if p.LocalhostProfile != nil {
			out.LocalhostRef = *p.LocalhostProfile
		}
	}
	return out
}

// maskedPaths are hidden from containers: they tell about, or act on, the
// machine as a whole.
func maskedPaths() []string {
	return []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
		"/sys/devices/virtual/powercap",
	}
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
