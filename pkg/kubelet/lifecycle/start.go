package lifecycle

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// start brings the pod up, or keeps it up.
func (c *computation) start() {
	if !c.Prepared && c.retryable(Key{Kind: Prepare}) {
		c.do(Action{Kind: Prepare})
	}
	c.retireSandboxes()
	if c.current == nil {
		c.makeSandbox()
		return
	}
	c.stopStrays()
	if !c.Prepared {
		return
	}
	c.resize()
	for _, m := range c.members {
		if m.kind == ephemeral && m.latest == nil {
			c.launch(m)
		}
	}
	if !c.startInits() {
		return
	}
	for _, m := range c.members {
		if m.kind == app {
			c.keep(m)
		}
	}
}

// retireSandboxes stops every sandbox but the current one, once no container
// runs in it.
func (c *computation) retireSandboxes() {
	for i := range c.Sandboxes {
		s := &c.Sandboxes[i]
		if s == c.current || s.Released {
			continue
		}
		if !c.stopContainersOf(s.ID) {
			c.do(Action{Kind: StopSandbox, ID: s.ID})
		}
	}
}

// stopContainersOf stops what lives in a sandbox that is to go, and tells
// whether there is any.
func (c *computation) stopContainersOf(sandboxID string) bool {
	any := false
	for i := range c.Containers {
		if a := &c.Containers[i]; a.SandboxID == sandboxID && a.live() {
			any = true
			c.kill(a, Grace(c.Pod), "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
		}
	}
	return any
}

// stopStrays stops live attempts that the spec no longer accounts for: older
// attempts beside a newer one, and containers whose name is gone.
func (c *computation) stopStrays() {
	kept := map[string]bool{}
	for _, m := range c.members {
		if m.latest != nil {
			kept[m.latest.ID] = true
		}
	}
	for i := range c.Containers {
		if a := &c.Containers[i]; a.live() && !kept[a.ID] && a.SandboxID == c.current.ID {
			c.kill(a, Grace(c.Pod), "Stray", fmt.Sprintf("Container %s is not the current one of its name", a.Name))
		}
	}
}

// makeSandbox asks for a sandbox once nothing lives in the old ones.
func (c *computation) makeSandbox() {
	attempt := uint32(0)
	for i := range c.Sandboxes {
		s := &c.Sandboxes[i]
		attempt = max(attempt, s.Attempt+1)
		for j := range c.Containers {
			if a := &c.Containers[j]; a.SandboxID == s.ID && a.live() {
				return
			}
		}
	}
	if !c.starting() && c.retryable(Key{Kind: CreateSandbox}) {
		c.do(Action{Kind: CreateSandbox, Attempt: int32(attempt)})
	}
}

// startInits drives init containers and sidecars in their order, and tells
// whether the app containers may start.
func (c *computation) startInits() bool {
	began := c.began()
	for _, m := range c.members {
		switch {
		case m.kind == sidecar:
			c.keep(m)
			if !began && !c.started(m) {
				return false
			}
		case m.kind == initOnce && !began && !c.succeeded(m):
			if m.latest != nil && m.latest.SandboxID == c.current.ID && m.latest.live() {
				if m.latest.State == Unknown {
					c.keep(m)
				}
				return false
			}
			c.launch(m)
			return false
		}
	}
	return true
}

// keep keeps a container running that is meant to: it starts one that is not,
// restarts one that ended, and stops one that failed its probes or whose spec
// has changed.
func (c *computation) keep(m *member) {
	a := m.latest
	switch {
	case a == nil, a.State == Created:
		c.launch(m)
	case a.State == Exited:
		if c.again(m) {
			c.launch(m)
		}
	case a.State == Unknown:
		c.kill(a, 0, "Unknown", fmt.Sprintf("Container %s is in an unknown state, will be restarted", a.Name))
	case c.busy(StartContainer, a.Name):
		// its postStart hook runs
	case m.changed():
		c.kill(a, Grace(c.Pod), "Changed", fmt.Sprintf("Container %s definition changed, will be restarted", a.Name))
	case m.outdated() && m.resizeRestarts():
		if c.roomy() {
			c.kill(a, Grace(c.Pod), ReasonResize, fmt.Sprintf("Container %s resize requires restart", a.Name))
		}
	case c.Probes[a.Name].Startup == Failure && m.spec.StartupProbe != nil:
		c.kill(a, probeGrace(c.Pod, m.spec.StartupProbe), "Unhealthy", fmt.Sprintf("Container %s failed startup probe, will be restarted", a.Name))
	case c.Probes[a.Name].Liveness == Failure && m.spec.LivenessProbe != nil:
		c.kill(a, probeGrace(c.Pod, m.spec.LivenessProbe), "Unhealthy", fmt.Sprintf("Container %s failed liveness probe, will be restarted", a.Name))
	}
}

// again tells whether a container that ended is started once more: because its
// policy says so, or because it was stopped to take a changed spec.
func (c *computation) again(m *member) bool {
	return m.latest.Replaced || restarts(c.Pod, m.spec, m.kind, m.latest.ExitCode) || m.kind == app && m.changed()
}

func (m *member) changed() bool { return m.latest.Hash != "" && m.latest.Hash != Hash(m.spec) }

func probeGrace(pod *corev1.Pod, p *corev1.Probe) time.Duration {
	if p.TerminationGracePeriodSeconds != nil {
		return time.Duration(*p.TerminationGracePeriodSeconds) * time.Second
	}
	return Grace(pod)
}

// launch asks to start the next attempt of a container, when its back-off has
// passed and no other is being started.
func (c *computation) launch(m *member) {
	key := Key{StartContainer, m.spec.Name}
	if c.busy(key.Kind, key.Name) || m.kind != ephemeral && c.lane {
		return
	}
	if slices.ContainsFunc(m.attempts, (*Container).live) || !c.retryable(key) {
		return
	}
	if m.kind != ephemeral && !c.roomy() {
		return
	}
	a := Action{Kind: StartContainer, Name: m.spec.Name, SandboxID: c.current.ID, Attempt: c.nextAttempt(m)}
	if m.latest != nil && m.latest.State == Created {
		return // removed first
	}
	if m.latest != nil && !m.latest.Replaced && !m.rerun(c.current.ID) {
		wait, next := restartDelay(*m.latest)
		if at := m.latest.FinishedAt.Add(wait); c.Now.Before(at) {
			c.wakeAt(at)
			return
		}
		a.Delay = next
	}
	c.do(a)
	if m.kind != ephemeral {
		c.lane = true
	}
}

// rerun tells whether an init container that succeeded before runs again only
// because its sandbox was replaced: that is no crash and needs no back-off.
func (m *member) rerun(sandboxID string) bool {
	return m.kind == initOnce && m.latest.SandboxID != sandboxID && m.latest.ExitCode == 0
}

// nextAttempt goes on from what the runtime shows, or from the status when the
// runtime has lost the records.
func (c *computation) nextAttempt(m *member) int32 {
	if m.latest != nil {
		return m.latest.Attempt + 1
	}
	if s := c.reported(m.spec.Name); s != nil && s.ContainerID != "" {
		return s.RestartCount + 1
	}
	return 0
}

// reported finds what was last reported about a container.
func (c *computation) reported(name string) *corev1.ContainerStatus {
	for _, from := range []*corev1.PodStatus{c.Last, &c.Pod.Status} {
		if from == nil {
			continue
		}
		for _, list := range [][]corev1.ContainerStatus{from.ContainerStatuses, from.InitContainerStatuses, from.EphemeralContainerStatuses} {
			for i := range list {
				if list[i].Name == name {
					return &list[i]
				}
			}
		}
	}
	return nil
}

// started tells whether a running container has passed its startup probe.
func (c *computation) started(m *member) bool {
	if !m.running() || c.busy(StartContainer, m.spec.Name) || c.current == nil || m.latest.SandboxID != c.current.ID {
		return false
	}
	return m.spec.StartupProbe == nil || c.Probes[m.spec.Name].Startup == Success
}

// kill asks to stop a container within grace of now. A stop under way is
// repeated only when it would end noticeably later than that.
func (c *computation) kill(a *Container, grace time.Duration, reason, message string) {
	action := Action{Kind: StopContainer, ID: a.ID, Name: a.Name, Grace: grace, Reason: reason, Message: message}
	op, underWay := c.Ops[action.Key()]
	if underWay && !op.Deadline.After(c.Now.Add(grace+time.Second)) {
		return
	}
	c.decision.Actions = append(c.decision.Actions, action)
}
