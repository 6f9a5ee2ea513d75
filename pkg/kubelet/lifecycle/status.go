package lifecycle

import (
	"fmt"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Waiting and terminated reasons that users and controllers know.
const (
	ReasonContainerCreating      = "ContainerCreating"
	ReasonPodInitializing        = "PodInitializing"
	ReasonCrashLoopBackOff       = "CrashLoopBackOff"
	ReasonErrImagePull           = "ErrImagePull"
	ReasonImagePullBackOff       = "ImagePullBackOff"
	ReasonErrImageNeverPull      = "ErrImageNeverPull"
	ReasonInvalidImageName       = "InvalidImageName"
	ReasonCreateContainerConfig  = "CreateContainerConfigError"
	ReasonCreateContainer        = "CreateContainerError"
	ReasonRunContainer           = "RunContainerError"
	ReasonPostStartHook          = "PostStartHookError"
	ReasonCompleted              = "Completed"
	ReasonError                  = "Error"
	ReasonContainerStatusUnknown = "ContainerStatusUnknown"
	ReasonDeadlineExceeded       = "DeadlineExceeded"

	lostMessage = "The container could not be located when the pod was terminated"
	// lostExitCode is that of a killed process: 128 + SIGKILL.
	lostExitCode = 137
)

// status builds what is reported, from the observation alone: what the actions
// of this decision change is seen and reported afterwards.
func (c *computation) status() corev1.PodStatus {
	s := corev1.PodStatus{
		ObservedGeneration: c.Pod.Generation,
		QOSClass:           QOS(c.Pod),
		StartTime:          startTime(c.startTime()),
		Message:            c.Pod.Status.Message,
		Reason:             c.Pod.Status.Reason,
		// written by others, carried through
		NominatedNodeName:     c.Pod.Status.NominatedNodeName,
		ResourceClaimStatuses: c.Pod.Status.ResourceClaimStatuses,
	}
	for _, m := range c.members {
		switch cs := c.containerStatus(m); m.kind {
		case app:
			s.ContainerStatuses = append(s.ContainerStatuses, cs)
		case ephemeral:
			s.EphemeralContainerStatuses = append(s.EphemeralContainerStatuses, cs)
		default:
			s.InitContainerStatuses = append(s.InitContainerStatuses, cs)
		}
	}
	c.phase(&s)
	c.addresses(&s)
	c.conditions(&s)
	return s
}

func startTime(t time.Time) *metav1.Time {
	s := seconds(t)
	return &s
}

func (c *computation) addresses(s *corev1.PodStatus) {
	var ips []string
	switch {
	case c.current != nil && c.Pod.Spec.HostNetwork:
		ips = c.HostIPs
	case c.current != nil:
		ips = c.current.IPs
	case !c.decision.StoppingSince.IsZero() && c.Last != nil:
		for _, ip := range c.Last.PodIPs {
			ips = append(ips, ip.IP)
		}
	}
	for i, ip := range ips {
		if i == 0 {
			s.PodIP = ip
		}
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
	}
	for i, ip := range c.HostIPs {
		if i == 0 {
			s.HostIP = ip
		}
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: ip})
	}
}

// containerStatus describes one container of the spec.
func (c *computation) containerStatus(m *member) corev1.ContainerStatus {
	m = m.begun()
	cs := corev1.ContainerStatus{Name: m.spec.Name, Image: m.spec.Image}
	old := c.reported(m.spec.Name)
	if m.latest == nil {
		c.absent(m, &cs, old)
	} else {
		c.present(m, &cs, old)
	}
	started := c.started(m)
	cs.Started = &started
	switch {
	case m.kind == initOnce:
		cs.Ready = cs.State.Terminated != nil && cs.State.Terminated.ExitCode == 0
	case m.kind != ephemeral:
		cs.Ready = started && (m.spec.ReadinessProbe == nil || c.Probes[m.spec.Name].Readiness == Success)
	}
	return cs
}

// begun leaves out attempts whose process was never started: they are not
// reported, and may be removed and made again under the same number.
func (m *member) begun() *member {
	if m.latest == nil || m.latest.State != Created {
		return m
	}
	out := *m
	out.latest, out.previous = nil, nil
	for _, a := range m.attempts {
		switch {
		case a.State == Created:
		case out.latest == nil:
			out.latest = a
		case out.previous == nil:
			out.previous = a
		}
	}
	return &out
}

// absent describes a container of which the runtime has no record.
func (c *computation) absent(m *member, cs *corev1.ContainerStatus, old *corev1.ContainerStatus) {
	cs.State.Waiting = c.waiting(m)
	if old != nil && old.ContainerID != "" {
		cs.RestartCount = old.RestartCount
		cs.ImageID, cs.ContainerID = old.ImageID, old.ContainerID
		cs.LastTerminationState.Terminated = old.State.Terminated
		if old.State.Terminated == nil {
			cs.LastTerminationState = old.LastTerminationState
		}
		if old.State.Running != nil {
			cs.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{
				Reason: ReasonContainerStatusUnknown, Message: lostMessage, ExitCode: lostExitCode,
				StartedAt: old.State.Running.StartedAt, ContainerID: old.ContainerID,
			}
		}
		if m.kind == initOnce && c.began() || !c.decision.StoppingSince.IsZero() {
			if t := cs.LastTerminationState.Terminated; t != nil {
				cs.State = corev1.ContainerState{Terminated: t}
				cs.LastTerminationState = old.LastTerminationState
			}
		}
	}
	if c.over() && cs.State.Terminated == nil && c.lostCounts() {
		cs.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			Reason: ReasonContainerStatusUnknown, Message: lostMessage, ExitCode: lostExitCode,
		}}
	}
}

// lostCounts tells whether containers that never ran are reported as ended: in
// a pod that was stopped from outside, not in one that ended by itself, whose
// later containers keep waiting for an init container that failed.
func (c *computation) lostCounts() bool {
	return c.Verdict != nil || c.Pod.DeletionTimestamp != nil || c.Gone
}

// present describes a container from its latest attempt.
func (c *computation) present(m *member, cs *corev1.ContainerStatus, old *corev1.ContainerStatus) {
	a := m.latest
	cs.RestartCount = a.Attempt
	cs.ContainerID, cs.ImageID = c.fullID(a), a.ImageID
	if a.Image != "" && !strings.HasPrefix(a.Image, "sha256:") {
		cs.Image = a.Image
	}
	cs.User = a.User
	if m.kind != ephemeral {
		cs.AllocatedResources = maps.Clone(m.spec.Resources.Requests)
		cs.Resources = m.spec.Resources.DeepCopy()
		if m.running() && a.Resources != nil {
			cs.Resources = a.Resources.DeepCopy()
		}
	}
	cs.VolumeMounts = mountStatuses(m.spec)
	if m.previous != nil && m.previous.State == Exited {
		cs.LastTerminationState.Terminated = c.terminated(m.previous)
	} else if old != nil {
		cs.LastTerminationState = lastState(old, a)
	}
	starting := c.busy(StartContainer, a.Name)
	switch a.State {
	case Running:
		if starting { // reported as running once its postStart hook is through
			cs.State.Waiting = c.waiting(m)
			return
		}
		cs.State.Running = &corev1.ContainerStateRunning{StartedAt: seconds(a.StartedAt)}
	case Exited:
		if w := c.waitingAgain(m, starting); w != nil {
			cs.State.Waiting = w
			cs.LastTerminationState.Terminated = c.terminated(a)
			return
		}
		cs.State.Terminated = c.terminated(a)
	case Unknown:
		if old != nil && old.ContainerID == c.fullID(a) {
			cs.State = old.State
			return
		}
		cs.State.Waiting = c.waiting(m)
	default:
		cs.State.Waiting = c.waiting(m)
	}
}

// seconds cuts a time to what the API keeps of it.
func seconds(t time.Time) metav1.Time {
	if t.IsZero() {
		return metav1.Time{}
	}
	return metav1.NewTime(t.Truncate(time.Second))
}

// fullID is a container's id the way the API writes it.
func (c *computation) fullID(a *Container) string {
	if c.Runtime == "" {
		return a.ID
	}
	return c.Runtime + "://" + a.ID
}

// lastState recovers from the last report how the attempt before a ended.
func lastState(old *corev1.ContainerStatus, a *Container) corev1.ContainerState {
	if old.RestartCount < a.Attempt && old.State.Terminated != nil {
		return corev1.ContainerState{Terminated: old.State.Terminated}
	}
	return old.LastTerminationState
}

func mountStatuses(spec *corev1.Container) []corev1.VolumeMountStatus {
	var out []corev1.VolumeMountStatus
	for _, v := range spec.VolumeMounts {
		s := corev1.VolumeMountStatus{Name: v.Name, MountPath: v.MountPath, ReadOnly: v.ReadOnly}
		if v.ReadOnly {
			mode := corev1.RecursiveReadOnlyDisabled
			s.RecursiveReadOnly = &mode
		}
		out = append(out, s)
	}
	return out
}

func (c *computation) terminated(a *Container) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: a.ExitCode, Reason: a.Reason, Message: a.Message,
		StartedAt: seconds(a.StartedAt), FinishedAt: seconds(a.FinishedAt), ContainerID: c.fullID(a),
	}
	if t.Message == "" {
		t.Message = c.toldBefore(a.Name, t.ContainerID)
	}
	switch {
	case t.Reason == "" && a.ExitCode == 0:
		t.Reason = ReasonCompleted
	case t.Reason == "":
		t.Reason = ReasonError
	}
	return t
}

// toldBefore returns the message that was reported about the end of an attempt:
// the file it was read from goes with the pod's volumes, before the pod does.
func (c *computation) toldBefore(name, id string) string {
	for _, from := range []*corev1.PodStatus{c.Last, &c.Pod.Status} {
		if from == nil {
			continue
		}
		for _, list := range [][]corev1.ContainerStatus{from.ContainerStatuses, from.InitContainerStatuses, from.EphemeralContainerStatuses} {
			for i := range list {
				for _, t := range []*corev1.ContainerStateTerminated{list[i].State.Terminated, list[i].LastTerminationState.Terminated} {
					if list[i].Name == name && t != nil && t.ContainerID == id {
						return t.Message
					}
				}
			}
		}
	}
	return ""
}

// waiting says why a container that has not run yet does not run.
func (c *computation) waiting(m *member) *corev1.ContainerStateWaiting {
	if w := c.troubled(Key{StartContainer, m.spec.Name}); w != nil {
		return w
	}
	if len(c.Pod.Spec.InitContainers) > 0 && m.kind != ephemeral {
		return &corev1.ContainerStateWaiting{Reason: ReasonPodInitializing}
	}
	return &corev1.ContainerStateWaiting{Reason: ReasonContainerCreating}
}

// waitingAgain says what a container that ended waits for, or nil when its end
// is what there is to say.
func (c *computation) waitingAgain(m *member, starting bool) *corev1.ContainerStateWaiting {
	if !c.decision.StoppingSince.IsZero() || !c.again(m) {
		return nil
	}
	if m.kind == initOnce && c.succeeded(m) {
		return nil
	}
	t, failed := c.Trouble[Key{StartContainer, m.spec.Name}]
	// a failure that ended the attempt gives way to the wait for the next one
	ended := t.Reason == ReasonRunContainer || t.Reason == ReasonPostStartHook
	if failed && !t.At.Before(m.latest.CreatedAt) && (!ended || c.Now.Sub(t.At) < freshError) {
		if ended {
			c.wakeAt(t.At.Add(freshError))
		}
		return c.troubled(Key{StartContainer, m.spec.Name})
	}
	wait, _ := restartDelay(*m.latest)
	if m.latest.Replaced {
		wait = 0
	}
	if wait > 0 && (starting || c.Now.Before(m.latest.FinishedAt.Add(wait))) {
		return &corev1.ContainerStateWaiting{
			Reason: ReasonCrashLoopBackOff,
			Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
				wait, m.spec.Name, c.Pod.Name, c.Pod.Namespace, c.Pod.UID),
		}
	}
	return nil
}

// troubled turns the last failure of a start into a waiting state.
func (c *computation) troubled(k Key) *corev1.ContainerStateWaiting {
	t, ok := c.Trouble[k]
	if !ok {
		return nil
	}
	if t.Reason == ReasonErrImagePull {
		if fresh := t.At.Add(freshError); c.Now.Before(fresh) {
			c.wakeAt(fresh)
		} else {
			return &corev1.ContainerStateWaiting{
				Reason:  ReasonImagePullBackOff,
				Message: fmt.Sprintf("Back-off pulling image %q: %s: %s", t.Image, t.Reason, strings.TrimSpace(t.Message)),
			}
		}
	}
	return &corev1.ContainerStateWaiting{Reason: t.Reason, Message: t.Message}
}

// over tells whether the pod stops and nothing of it runs any more.
func (c *computation) over() bool {
	if c.decision.StoppingSince.IsZero() || c.starting() {
		return false
	}
	for i := range c.Containers {
		if c.Containers[i].live() {
			return false
		}
	}
	return true
}
