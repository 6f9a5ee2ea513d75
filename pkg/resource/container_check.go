package resource

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// containers checks all three lists of containers; a name is used once in all
// of them.
func (c *podChecker) containers(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	p := path.Child("containers")
	if len(c.spec.Containers) == 0 {
		errs = append(errs, field.Required(p, ""))
	}
	names := make(map[string]bool, len(c.spec.Containers)+len(c.spec.InitContainers))
	for i := range c.spec.Containers {
		ctr := &c.spec.Containers[i]
		errs = append(errs, c.container(p.Index(i), ctr, names)...)
		errs = append(errs, c.lifecycle(p.Index(i), ctr)...)
		errs = append(errs, checkRestartRules(p.Index(i), ctr, corev1.ContainerRestartPolicyAlways,
			corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)...)
	}
	errs = append(errs, checkHostPorts(p, 0, c.spec.Containers)...)
	errs = append(errs, c.hostNetworkPorts(p)...)
	p = path.Child("initContainers")
	for i := range c.spec.InitContainers {
		ctr := &c.spec.InitContainers[i]
		errs = append(errs, checkHostPorts(p, i, c.spec.InitContainers[i:i+1])...)
		errs = append(errs, c.container(p.Index(i), ctr, names)...)
		errs = append(errs, c.initContainer(p.Index(i), ctr)...)
	}
	p = path.Child("ephemeralContainers")
	for i := range c.spec.EphemeralContainers {
		errs = append(errs, c.ephemeralContainer(p.Index(i), &c.spec.EphemeralContainers[i], names)...)
	}
	return errs
}

// container checks what is the same for every sort of container.
func (c *podChecker) container(path *field.Path, ctr *corev1.Container, names map[string]bool) field.ErrorList {
	errs := checkName(path.Child("name"), ctr.Name, isLabel)
	if ctr.Name != "" && names[ctr.Name] {
		errs = append(errs, field.Duplicate(path.Child("name"), ctr.Name))
	}
	names[ctr.Name] = true
	if ctr.Image == "" {
		errs = append(errs, field.Required(path.Child("image"), ""))
	} else if c.isPod && strings.TrimSpace(ctr.Image) != ctr.Image {
		errs = append(errs, field.Invalid(path.Child("image"), ctr.Image, "must not have leading or trailing whitespace"))
	}
	errs = append(errs, checkSet(path.Child("terminationMessagePolicy"), ctr.TerminationMessagePolicy,
		corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)...)
	errs = append(errs, checkSet(path.Child("imagePullPolicy"), ctr.ImagePullPolicy,
		corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
	errs = append(errs, checkContainerPorts(path.Child("ports"), ctr.Ports)...)
	errs = append(errs, checkEnv(path.Child("env"), ctr.Env)...)
	errs = append(errs, c.envFiles(path.Child("env"), ctr.Env)...)
	errs = append(errs, checkEnvFrom(path.Child("envFrom"), ctr.EnvFrom)...)
	errs = append(errs, c.mounts(path, ctr)...)
	errs = append(errs, c.containerResources(path.Child("resources"), &ctr.Resources)...)
	errs = append(errs, c.resizePolicy(path.Child("resizePolicy"), ctr.ResizePolicy)...)
	return append(errs, c.containerSecurity(path.Child("securityContext"), ctr.SecurityContext)...)
}

func checkContainerPorts(path *field.Path, ports []corev1.ContainerPort) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
	for i, port := range ports {
		p := path.Index(i)
		if port.Name != "" {
			if msgs := utilvalidation.IsValidPortName(port.Name); len(msgs) > 0 {
				errs = append(errs, invalid(p.Child("name"), port.Name, msgs)...)
			} else if names[port.Name] {
				errs = append(errs, field.Duplicate(p.Child("name"), port.Name))
			}
			names[port.Name] = true
		}
		if port.ContainerPort == 0 {
			errs = append(errs, field.Required(p.Child("containerPort"), ""))
		} else {
			errs = append(errs, checkPortNumber(p.Child("containerPort"), port.ContainerPort)...)
		}
		if port.HostPort != 0 {
			errs = append(errs, checkPortNumber(p.Child("hostPort"), port.HostPort)...)
		}
		errs = append(errs, checkSet(p.Child("protocol"), port.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
	}
	return errs
}

// hostNetworkPorts: on the host's network a container's port is the host's.
func (c *podChecker) hostNetworkPorts(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if !c.spec.HostNetwork {
		return nil
	}
	for i := range c.spec.Containers {
		for j, port := range c.spec.Containers[i].Ports {
			if port.HostPort != port.ContainerPort && (c.isPod || port.HostPort != 0) {
				errs = append(errs, field.Invalid(path.Index(i).Child("ports").Index(j).Child("hostPort"), port.HostPort,
					"must match `containerPort` when `hostNetwork` is true"))
			}
		}
	}
	return errs
}

// checkHostPorts: containers that run together take different ports of their
// host. The first one is at index first of path.
func checkHostPorts(path *field.Path, first int, containers []corev1.Container) field.ErrorList {
	var errs field.ErrorList
	taken := map[string]bool{}
	for i := range containers {
		for j, port := range containers[i].Ports {
			if port.HostPort == 0 {
				continue
			}
			key := fmt.Sprintf("%s/%s/%d", port.Protocol, port.HostIP, port.HostPort)
			if taken[key] {
				errs = append(errs, field.Duplicate(path.Index(first+i).Child("ports").Index(j).Child("hostPort"), key))
			}
			taken[key] = true
		}
	}
	return errs
}

// initContainer: an init container runs to its end, so that hooks and probes
// make sense only for one that is restarted for ever (a sidecar).
func (c *podChecker) initContainer(path *field.Path, ctr *corev1.Container) field.ErrorList {
	errs := checkRestartRules(path, ctr, corev1.ContainerRestartPolicyAlways,
		corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)
	if isSidecar(ctr) {
		return append(errs, c.lifecycle(path, ctr)...)
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"lifecycle", ctr.Lifecycle != nil}, {"livenessProbe", ctr.LivenessProbe != nil},
		{"readinessProbe", ctr.ReadinessProbe != nil}, {"startupProbe", ctr.StartupProbe != nil},
	} {
		if f.set {
			errs = append(errs, field.Forbidden(path.Child(f.name), "may not be set for init containers without restartPolicy=Always"))
		}
	}
	return errs
}

const (
	maxRestartRules     = 20
	maxRestartExitCodes = 255
)

func checkRestartRules(path *field.Path, ctr *corev1.Container, allowed ...corev1.ContainerRestartPolicy) field.ErrorList {
	errs := checkOptional(path.Child("restartPolicy"), ctr.RestartPolicy, allowed...)
	p := path.Child("restartPolicyRules")
	if len(ctr.RestartPolicyRules) > 0 && ctr.RestartPolicy == nil {
		errs = append(errs, field.Required(path.Child("restartPolicy"), "must specify restartPolicy when restart rules are used"))
	}
	if len(ctr.RestartPolicyRules) > maxRestartRules {
		errs = append(errs, field.TooLong(p, ctr.RestartPolicyRules, maxRestartRules))
	}
	for i, rule := range ctr.RestartPolicyRules {
		errs = append(errs, checkSet(p.Index(i).Child("action"), rule.Action,
			corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)...)
		codes := p.Index(i).Child("exitCodes")
		if rule.ExitCodes == nil {
			errs = append(errs, field.Required(codes, "must be specified"))
			continue
		}
		errs = append(errs, checkSet(codes.Child("operator"), rule.ExitCodes.Operator,
			corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)...)
		if len(rule.ExitCodes.Values) > maxRestartExitCodes {
			errs = append(errs, field.TooLong(codes.Child("values"), rule.ExitCodes.Values, maxRestartExitCodes))
		}
	}
	return errs
}

func (c *podChecker) ephemeralContainer(path *field.Path, ec *corev1.EphemeralContainer, names map[string]bool) field.ErrorList {
	ctr := (*corev1.Container)(&ec.EphemeralContainerCommon)
	errs := c.container(path, ctr, names)
	if t := ec.TargetContainerName; t != "" && !c.hasContainer(t) {
		errs = append(errs, field.NotFound(path.Child("targetContainerName"), t))
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"ports", len(ctr.Ports) > 0}, {"lifecycle", ctr.Lifecycle != nil}, {"livenessProbe", ctr.LivenessProbe != nil},
		{"readinessProbe", ctr.ReadinessProbe != nil}, {"startupProbe", ctr.StartupProbe != nil},
		{"resources", len(ctr.Resources.Limits)+len(ctr.Resources.Requests)+len(ctr.Resources.Claims) > 0},
		{"resizePolicy", len(ctr.ResizePolicy) > 0}, {"restartPolicy", ctr.RestartPolicy != nil},
		{"restartPolicyRules", len(ctr.RestartPolicyRules) > 0},
	} {
		if f.set {
			errs = append(errs, field.Forbidden(path.Child(f.name), "cannot be set for an Ephemeral Container"))
		}
	}
	for i, m := range ctr.VolumeMounts {
		p := path.Child("volumeMounts").Index(i)
		if m.SubPath != "" {
			errs = append(errs, field.Forbidden(p.Child("subPath"), "cannot be set for an Ephemeral Container"))
		}
		if m.SubPathExpr != "" {
			errs = append(errs, field.Forbidden(p.Child("subPathExpr"), "cannot be set for an Ephemeral Container"))
		}
	}
	return errs
}

func (c *podChecker) hasContainer(name string) bool {
	for _, list := range [][]corev1.Container{c.spec.Containers, c.spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return true
			}
		}
	}
	return false
}
