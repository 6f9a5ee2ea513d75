package ctl

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func describePod(p *page, obj runtime.Object) error {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return fmt.Errorf("not a Pod: %T", obj)
	}
	p.line("Name", pod.Name)
	p.line("Namespace", pod.Namespace)
	if pod.Spec.Priority != nil {
		p.line("Priority", *pod.Spec.Priority)
	}
	p.line("Service Account", pod.Spec.ServiceAccountName)
	node := cmp.Or(pod.Spec.NodeName, "<none>")
	if pod.Status.HostIP != "" {
		node += "/" + pod.Status.HostIP
	}
	p.line("Node", node)
	if pod.Status.StartTime != nil {
		p.line("Start Time", pod.Status.StartTime.Format(time.RFC1123Z))
	}
	p.set("Labels", pod.Labels)
	p.set("Annotations", pod.Annotations)
	if pod.DeletionTimestamp != nil {
		p.line("Status", "Terminating (lasts "+age(pod.DeletionTimestamp.Time, p.now)+")")
		if pod.DeletionGracePeriodSeconds != nil {
			p.line("Termination Grace Period", fmt.Sprintf("%ds", *pod.DeletionGracePeriodSeconds))
		}
	} else {
		p.line("Status", pod.Status.Phase)
	}
	if pod.Status.Reason != "" {
		p.line("Reason", pod.Status.Reason)
	}
	if pod.Status.Message != "" {
		p.line("Message", pod.Status.Message)
	}
	p.line("IP", pod.Status.PodIP)
	p.owner(pod)
	p.containers("Init Containers", pod.Spec.InitContainers, pod.Status.InitContainerStatuses)
	p.containers("Containers", pod.Spec.Containers, pod.Status.ContainerStatuses)
	p.conditions(pod)
	p.volumes(pod.Spec.Volumes)
	p.line("QoS Class", pod.Status.QOSClass)
	p.set("Node-Selectors", pod.Spec.NodeSelector)
	var tolerations []string
	for _, t := range pod.Spec.Tolerations {
		tolerations = append(tolerations, toleration(&t))
	}
	p.list("Tolerations", tolerations)
	return nil
}

func (p *page) conditions(pod *corev1.Pod) {
	if len(pod.Status.Conditions) == 0 {
		return
	}
	p.section("Conditions", func() {
		p.line("Type", "Status")
		for _, c := range pod.Status.Conditions {
			text := string(c.Status)
			if c.Status != corev1.ConditionTrue && c.Message != "" {
				text += "  (" + c.Message + ")"
			}
			fmt.Fprintf(p.w, "%s%s\t%s\n", strings.Repeat("  ", p.indent), c.Type, text)
		}
	})
}

// containers writes what was asked of containers and how they are.
func (p *page) containers(title string, specs []corev1.Container, statuses []corev1.ContainerStatus) {
	if len(specs) == 0 {
		return
	}
	p.section(title, func() {
		for i := range specs {
			c := &specs[i]
			p.section(c.Name, func() {
				j := slices.IndexFunc(statuses, func(s corev1.ContainerStatus) bool { return s.Name == c.Name })
				if j < 0 {
					p.container(c, nil)
					return
				}
				p.container(c, &statuses[j])
			})
		}
	})
}

func (p *page) container(c *corev1.Container, s *corev1.ContainerStatus) {
	if s != nil {
		p.line("Container ID", s.ContainerID)
	}
	p.line("Image", c.Image)
	if s != nil {
		p.line("Image ID", s.ImageID)
	}
	p.list(plural("Port", len(c.Ports)), ports(c.Ports))
	if len(c.Command) > 0 {
		p.line("Command", strings.Join(c.Command, " "))
	}
	if len(c.Args) > 0 {
		p.line("Args", strings.Join(c.Args, " "))
	}
	if s != nil {
		p.state("State", s.State)
		if s.LastTerminationState != (corev1.ContainerState{}) {
			p.state("Last State", s.LastTerminationState)
		}
		p.line("Ready", s.Ready)
		p.line("Restart Count", s.RestartCount)
	}
	p.resources("Limits", c.Resources.Limits)
	p.resources("Requests", c.Resources.Requests)
	p.probe("Liveness", c.LivenessProbe)
	p.probe("Readiness", c.ReadinessProbe)
	p.probe("Startup", c.StartupProbe)
	p.environment(c)
	var mounts []string
	for _, m := range c.VolumeMounts {
		mode := "rw"
		if m.ReadOnly {
			mode = "ro"
		}
		mounts = append(mounts, fmt.Sprintf("%s from %s (%s)", m.MountPath, m.Name, mode))
	}
	p.list("Mounts", mounts)
}

// plural appends an s unless there is exactly one.
func plural(s string, n int) string {
	if n == 1 {
		return s
	}
	return s + "s"
}

func ports(ps []corev1.ContainerPort) []string {
	var out []string
	for _, p := range ps {
		text := fmt.Sprintf("%d/%s", p.ContainerPort, p.Protocol)
		if p.Name != "" {
			text += " (" + p.Name + ")"
		}
		if p.HostPort != 0 {
			text += fmt.Sprintf(", host port %d", p.HostPort)
		}
		out = append(out, text)
	}
	return out
}

func (p *page) state(name string, s corev1.ContainerState) {
	switch {
	case s.Running != nil:
		p.line(name, "Running")
		p.line("  Started", s.Running.StartedAt.Format(time.RFC1123Z))
	case s.Terminated != nil:
		p.line(name, "Terminated")
		p.line("  Reason", s.Terminated.Reason)
		if s.Terminated.Message != "" {
			p.line("  Message", strings.TrimSpace(s.Terminated.Message))
		}
		p.line("  Exit Code", s.Terminated.ExitCode)
		if s.Terminated.Signal != 0 {
			p.line("  Signal", s.Terminated.Signal)
		}
		p.line("  Started", s.Terminated.StartedAt.Format(time.RFC1123Z))
		p.line("  Finished", s.Terminated.FinishedAt.Format(time.RFC1123Z))
	case s.Waiting != nil:
		p.line(name, "Waiting")
		p.line("  Reason", s.Waiting.Reason)
		if s.Waiting.Message != "" {
			p.line("  Message", s.Waiting.Message)
		}
	default:
		p.line(name, "Waiting")
	}
}

func (p *page) resources(name string, list corev1.ResourceList) {
	if len(list) == 0 {
		return
	}
	p.section(name, func() {
		byName := map[string]string{}
		for k, q := range list {
			byName[string(k)] = q.String()
		}
		for _, k := range sortedKeys(byName) {
			p.line(k, byName[k])
		}
	})
}

func (p *page) probe(name string, probe *corev1.Probe) {
	if probe == nil {
		return
	}
	what := "unknown"
	switch h := probe.ProbeHandler; {
	case h.Exec != nil:
		what = "exec [" + strings.Join(h.Exec.Command, " ") + "]"
	case h.HTTPGet != nil:
		what = fmt.Sprintf("http-get %s://%s:%s%s", strings.ToLower(string(h.HTTPGet.Scheme)), h.HTTPGet.Host, h.HTTPGet.Port.String(), h.HTTPGet.Path)
	case h.TCPSocket != nil:
		what = fmt.Sprintf("tcp-socket %s:%s", h.TCPSocket.Host, h.TCPSocket.Port.String())
	case h.GRPC != nil:
		what = fmt.Sprintf("grpc :%d", h.GRPC.Port)
	}
	p.line(name, fmt.Sprintf("%s delay=%ds timeout=%ds period=%ds #success=%d #failure=%d", what,
		probe.InitialDelaySeconds, probe.TimeoutSeconds, probe.PeriodSeconds, probe.SuccessThreshold, probe.FailureThreshold))
}

// environment writes variables and where they come from; values of Secrets are
// not in the pod.
func (p *page) environment(c *corev1.Container) {
	var from []string
	for _, e := range c.EnvFrom {
		switch {
		case e.ConfigMapRef != nil:
			from = append(from, "ConfigMap "+e.ConfigMapRef.Name)
		case e.SecretRef != nil:
			from = append(from, "Secret "+e.SecretRef.Name)
		}
	}
	if len(from) > 0 {
		p.list("Environment From", from)
	}
	if len(c.Env) == 0 {
		p.line("Environment", "<none>")
		return
	}
	p.section("Environment", func() {
		for _, e := range c.Env {
			value := firstLine(e.Value)
			if s := e.ValueFrom; s != nil {
				switch {
				case s.FieldRef != nil:
					value = "<field " + s.FieldRef.FieldPath + ">"
				case s.ResourceFieldRef != nil:
					value = "<resource " + s.ResourceFieldRef.Resource + ">"
				case s.ConfigMapKeyRef != nil:
					value = fmt.Sprintf("<key %s of ConfigMap %s>", s.ConfigMapKeyRef.Key, s.ConfigMapKeyRef.Name)
				case s.SecretKeyRef != nil:
					value = fmt.Sprintf("<key %s of Secret %s>", s.SecretKeyRef.Key, s.SecretKeyRef.Name)
				}
			}
			p.line(e.Name, value)
		}
	})
}

func (p *page) volumes(vs []corev1.Volume) {
	if len(vs) == 0 {
		p.line("Volumes", "<none>")
		return
	}
	p.section("Volumes", func() {
		for i := range vs {
			p.line(vs[i].Name, volume(&vs[i]))
		}
	})
}

// volume says in a few words what a volume is.
func volume(v *corev1.Volume) string {
	switch s := v.VolumeSource; {
	case s.EmptyDir != nil:
		text := "EmptyDir"
		if s.EmptyDir.Medium != "" {
			text += " (" + string(s.EmptyDir.Medium) + ")"
		}
		if s.EmptyDir.SizeLimit != nil {
			text += ", at most " + s.EmptyDir.SizeLimit.String()
		}
		return text
	case s.HostPath != nil:
		return "HostPath " + s.HostPath.Path
	case s.ConfigMap != nil:
		return "ConfigMap " + s.ConfigMap.Name
	case s.Secret != nil:
		return "Secret " + s.Secret.SecretName
	case s.PersistentVolumeClaim != nil:
		return "PersistentVolumeClaim " + s.PersistentVolumeClaim.ClaimName
	case s.DownwardAPI != nil:
		return "DownwardAPI"
	case s.NFS != nil:
		return "NFS " + s.NFS.Server + ":" + s.NFS.Path
	case s.CSI != nil:
		return "CSI " + s.CSI.Driver
	case s.Projected != nil:
		var parts []string
		for _, src := range s.Projected.Sources {
			switch {
			case src.ServiceAccountToken != nil:
				parts = append(parts, "service account token")
			case src.ConfigMap != nil:
				parts = append(parts, "ConfigMap "+src.ConfigMap.Name)
			case src.Secret != nil:
				parts = append(parts, "Secret "+src.Secret.Name)
			case src.DownwardAPI != nil:
				parts = append(parts, "DownwardAPI")
			}
		}
		return "Projected: " + strings.Join(parts, ", ")
	}
	return "other"
}

func toleration(t *corev1.Toleration) string {
	text := t.Key
	if t.Value != "" {
		text += "=" + t.Value
	}
	if t.Effect != "" {
		text += ":" + string(t.Effect)
	}
	if t.Operator == corev1.TolerationOpExists {
		text += " op=Exists"
	}
	if t.TolerationSeconds != nil {
		text += fmt.Sprintf(" for %ds", *t.TolerationSeconds)
	}
	return strings.TrimSpace(text)
}
