package fleet

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"coracle/pkg/kubelet/lifecycle"
)

// times are how long things take on a simulated node.
type times struct{ start, run, stop time.Duration }

// killedCode is the exit code of a program that SIGTERM ended.
const killedCode = 143

// verdict is what there is to do for a pod now.
type verdict struct {
	// report says what the containers do that was not reported yet.
	report report
	code   int32 // for stopped: the exit code of those that ran
	// remove says that the pod has ended and its object may go.
	remove bool
	// over says that the pod has ended: nothing will ever happen to it again
	// unless its object changes.
	over bool
	// next is when to ask again; zero means when the object changes.
	next time.Time
}

type report int

const (
	nothing report = iota
	running
	stopped
)

// decide says what to do for a pod that its node has known since seen.
func decide(p *corev1.Pod, t times, seen, now time.Time) verdict {
	switch {
	case p.DeletionTimestamp != nil:
		return deleted(p, t, now)
	case ended(p):
		return verdict{over: true}
	case !reported(p):
		if due := seen.Add(t.start); now.Before(due) {
			return verdict{next: due}
		}
		return verdict{report: running}
	}
	if end := ending(p, t); !end.IsZero() && !now.Before(end) {
		return verdict{report: stopped, code: exitCode(p, end), over: true}
	}
	v := verdict{next: ending(p, t)}
	if p.Generation != p.Status.ObservedGeneration || !ready(p) {
		v.report = running
	}
	return v
}

// deleted waits until the containers have ended, reports that, and lets the
// object go.
func deleted(p *corev1.Pod, t times, now time.Time) verdict {
	var grace time.Duration
	if p.DeletionGracePeriodSeconds != nil {
		grace = time.Duration(*p.DeletionGracePeriodSeconds) * time.Second
	}
	asked := p.DeletionTimestamp.Add(-grace)
	if end := asked.Add(min(t.stop, grace)); reported(p) && now.Before(end) {
		return verdict{next: end}
	}
	v := verdict{remove: true, over: true}
	if !ended(p) {
		v.report, v.code = stopped, killedCode
	}
	return v
}

// status is what v has to be reported of a pod with the addresses ips.
func (v verdict) status(p *corev1.Pod, ips []string, now time.Time) *corev1.PodStatus {
	switch v.report {
	case running:
		return compute(p, ips, runningContainers(p, now), now)
	case stopped:
		return compute(p, ips, stoppedContainers(p, now, v.code), now)
	}
	return nil
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// ready tells whether the pod was said to be ready, and still is: others say
// that it is not when they have not heard of its node.
func ready(p *corev1.Pod) bool {
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// reported tells whether the pod was said to run.
func reported(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning }

// ending is when a running pod ends by itself; zero means never.
func ending(p *corev1.Pod, t times) time.Time {
	if p.Status.StartTime == nil {
		return time.Time{}
	}
	var end time.Time
	if t.run > 0 && p.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		end = p.Status.StartTime.Add(t.run)
	}
	if limit := deadline(p); !limit.IsZero() && (end.IsZero() || limit.Before(end)) {
		end = limit
	}
	return end
}

func deadline(p *corev1.Pod) time.Time {
	if p.Spec.ActiveDeadlineSeconds == nil {
		return time.Time{}
	}
	return p.Status.StartTime.Add(time.Duration(*p.Spec.ActiveDeadlineSeconds) * time.Second)
}

// exitCode is that of the containers of a pod that ends at end: nothing, unless
// its time was up.
func exitCode(p *corev1.Pod, end time.Time) int32 {
	if limit := deadline(p); !limit.IsZero() && !limit.After(end) {
		return killedCode
	}
	return 0
}

// compute asks the core of the real agent what it would report about these
// containers.
func compute(p *corev1.Pod, ips []string, containers []lifecycle.Container, now time.Time) *corev1.PodStatus {
	in := lifecycle.Input{
		Pod: p, Runtime: runtimeName, Containers: containers, Prepared: true, Probes: map[string]lifecycle.Probes{}, Now: now,
		AllocatedGeneration: p.Generation, Last: &p.Status,
	}
	if len(containers) > 0 {
		in.Sandboxes = []lifecycle.Sandbox{{ID: sandboxID(p), Ready: true, IPs: ips, CreatedAt: now}}
	}
	for _, c := range containers {
		in.Probes[c.Name] = lifecycle.Probes{Startup: lifecycle.Success, Readiness: lifecycle.Success, Liveness: lifecycle.Success}
	}
	status := lifecycle.Compute(in).Status
	return &status
}

func sandboxID(p *corev1.Pod) string { return string(p.UID) }

// runningContainers is what a runtime would show of a pod all of whose containers run.
func runningContainers(p *corev1.Pod, now time.Time) []lifecycle.Container {
	var out []lifecycle.Container
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		made := container(p, c, p.Status.InitContainerStatuses, now)
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			made.State, made.FinishedAt = lifecycle.Exited, made.StartedAt
		}
		out = append(out, made)
	}
	for i := range p.Spec.Containers {
		out = append(out, container(p, &p.Spec.Containers[i], p.Status.ContainerStatuses, now))
	}
	for i := range p.Spec.EphemeralContainers {
		c := corev1.Container(p.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		out = append(out, container(p, &c, p.Status.EphemeralContainerStatuses, now))
	}
	return out
}

// stoppedContainers is what a runtime would show of a pod after its containers ended. One
// that never ran has none.
func stoppedContainers(p *corev1.Pod, now time.Time, code int32) []lifecycle.Container {
	if !reported(p) {
		return nil
	}
	out := runningContainers(p, now)
	for i := range out {
		if c := &out[i]; c.State == lifecycle.Running {
			c.State, c.FinishedAt, c.ExitCode = lifecycle.Exited, now, code
		}
	}
	return out
}

// container is one that runs, since when it was said to.
func container(p *corev1.Pod, spec *corev1.Container, told []corev1.ContainerStatus, now time.Time) lifecycle.Container {
	since := now
	for i := range told {
		if told[i].Name != spec.Name {
			continue
		}
		if r := told[i].State.Running; r != nil {
			since = r.StartedAt.Time
		}
		if e := told[i].State.Terminated; e != nil {
			since = e.StartedAt.Time
		}
	}
	return lifecycle.Container{
		ID: string(p.UID) + "-" + spec.Name, Name: spec.Name, SandboxID: sandboxID(p), State: lifecycle.Running,
		CreatedAt: since, StartedAt: since, Image: spec.Image, ImageID: spec.Image,
	}
}
