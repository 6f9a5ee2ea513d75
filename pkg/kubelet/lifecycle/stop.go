package lifecycle

import (
	"fmt"
	"time"
)

// stop ends the pod: app containers first and all at once, then the sidecars
// in reverse order within what is left of the grace, then the sandbox, then
// volumes and cgroup; then the API server hears that the pod can go.
func (c *computation) stop() {
	if c.decision.StoppingSince.IsZero() {
		c.decision.StoppingSince = c.Now
	}
	for _, m := range c.members {
		if c.busy(StartContainer, m.spec.Name) {
			c.decision.Actions = append(c.decision.Actions, Action{Kind: CancelStart, Name: m.spec.Name})
		}
	}
	if c.stopContainers() || c.starting() {
		return
	}
	released := true
	for i := range c.Sandboxes {
		if s := &c.Sandboxes[i]; !s.Released {
			released = false
			c.do(Action{Kind: StopSandbox, ID: s.ID})
		}
	}
	if !released || c.busy(CreateSandbox, "") || c.busy(Prepare, "") {
		return
	}
	if !c.TornDown {
		if c.retryable(Key{Kind: Teardown}) {
			c.do(Action{Kind: Teardown})
		}
		return
	}
	switch {
	case c.Gone:
		c.forget()
	case c.Pod.DeletionTimestamp != nil:
		c.do(Action{Kind: Confirm})
	}
}

// starting tells whether a container is still being started: it must appear
// and be stopped before the sandbox goes.
func (c *computation) starting() bool {
	for _, m := range c.members {
		if c.busy(StartContainer, m.spec.Name) {
			return true
		}
	}
	return false
}

// stopContainers stops the next group of live containers and tells whether
// any lives.
func (c *computation) stopContainers() bool {
	sidecars := map[string]bool{}
	for _, m := range c.members {
		if m.kind == sidecar {
			sidecars[m.spec.Name] = true
		}
	}
	live := false
	for i := range c.Containers {
		if a := &c.Containers[i]; a.live() && !sidecars[a.Name] {
			live = true
			c.end(a, c.remaining(0))
		}
	}
	if live {
		return true
	}
	for i := len(c.members) - 1; i >= 0; i-- {
		m := c.members[i]
		if m.kind != sidecar {
			continue
		}
		for _, a := range m.attempts {
			if a.live() {
				c.end(a, c.remaining(minimumGrace))
				return true
			}
		}
	}
	return false
}

func (c *computation) end(a *Container, grace time.Duration) {
	c.kill(a, grace, "Killing", fmt.Sprintf("Stopping container %s", a.Name))
}

// remaining is what is left of the pod's grace, and at least floor unless the
// whole grace is shorter.
func (c *computation) remaining(floor time.Duration) time.Duration {
	if c.Verdict != nil && c.Verdict.Kill {
		return 0
	}
	grace := Grace(c.Pod)
	left := grace - c.Now.Sub(c.decision.StoppingSince)
	return max(left, min(floor, grace), 0)
}

// forget removes what the runtime still holds of a pod that no one asks about
// any more.
func (c *computation) forget() {
	for _, a := range c.Containers {
		c.do(Action{Kind: RemoveContainer, ID: a.ID, Name: a.Name})
	}
	if len(c.Containers) > 0 || len(c.Sandboxes) > 0 || len(c.Ops) > 0 {
		return
	}
	c.do(Action{Kind: Forget})
}
