package lifecycle

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// kind is the role a container plays in its pod.
type kind int

const (
	app kind = iota
	initOnce
	sidecar
	ephemeral
)

// member is one container of the spec with what is known about it.
type member struct {
	spec     *corev1.Container
	kind     kind
	latest   *Container // highest attempt, nil when there is none
	previous *Container // the attempt before, nil when unknown
	attempts []*Container
}

// computation is the working state of one call of Compute.
type computation struct {
	Input
	decision Decision
	members  []*member // init containers and sidecars in order, then apps, then ephemeral
	current  *Sandbox  // newest ready sandbox, nil when there is none
	// lane is true while a container other than an ephemeral one is being
	// started: the others wait, so that they start in the order of the spec.
	lane bool
}

// Compute decides what to do for one pod. See the package comment for what it
// guarantees.
func Compute(in Input) Decision {
	c := &computation{Input: in}
	c.decision.StoppingSince = in.StoppingSince
	c.gather()
	c.prune()
	c.run()
	c.decision.Status = c.status()
	return c.decision
}

func (c *computation) gather() {
	for i := range c.Pod.Spec.InitContainers {
		spec := &c.Pod.Spec.InitContainers[i]
		k := initOnce
		if spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			k = sidecar
		}
		c.add(spec, k)
	}
	for i := range c.Pod.Spec.Containers {
		c.add(&c.Pod.Spec.Containers[i], app)
	}
	for i := range c.Pod.Spec.EphemeralContainers {
		spec := corev1.Container(c.Pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		c.add(&spec, ephemeral)
	}
	for i := range c.Sandboxes {
		if s := &c.Sandboxes[i]; s.Ready && !s.Released && (c.current == nil || s.Attempt > c.current.Attempt) {
			c.current = s
		}
	}
	for _, m := range c.members {
		if m.kind != ephemeral && c.busy(StartContainer, m.spec.Name) {
			c.lane = true
		}
	}
}

func (c *computation) add(spec *corev1.Container, k kind) {
	m := &member{spec: spec, kind: k}
	for i := range c.Containers {
		if c.Containers[i].Name == spec.Name {
			m.attempts = append(m.attempts, &c.Containers[i])
		}
	}
	slices.SortFunc(m.attempts, newestFirst)
	if len(m.attempts) > 0 {
		m.latest = m.attempts[0]
	}
	if len(m.attempts) > 1 {
		m.previous = m.attempts[1]
	}
	c.members = append(c.members, m)
}

func newestFirst(a, b *Container) int {
	if a.Attempt != b.Attempt {
		return int(b.Attempt - a.Attempt)
	}
	return b.CreatedAt.Compare(a.CreatedAt)
}

// run decides between stopping the pod and bringing it up.
func (c *computation) run() {
	switch {
	case c.mustStop(), c.finished():
		c.stop()
	default:
		c.start()
	}
}

// mustStop tells whether something outside the containers ends the pod.
func (c *computation) mustStop() bool {
	return c.Gone || c.Verdict != nil || c.Pod.DeletionTimestamp != nil ||
		terminal(c.Pod.Status.Phase) || c.lastTerminal() || c.deadlineExceeded()
}

func (c *computation) lastTerminal() bool { return c.Last != nil && terminal(c.Last.Phase) }

func terminal(p corev1.PodPhase) bool {
	return p == corev1.PodSucceeded || p == corev1.PodFailed
}

// deadlineExceeded tells whether activeDeadlineSeconds has passed, and asks to
// be woken when it will.
func (c *computation) deadlineExceeded() bool {
	end := c.activeUntil()
	if end.IsZero() {
		return false
	}
	if !c.Now.Before(end) {
		return true
	}
	c.wakeAt(end)
	return false
}

// stoppedByDeadline tells whether the pod still ran when its time was up.
func (c *computation) stoppedByDeadline() bool {
	end := c.activeUntil()
	return !end.IsZero() && !c.decision.StoppingSince.Before(end)
}

// activeUntil is when activeDeadlineSeconds ends the pod; zero means never.
func (c *computation) activeUntil() time.Time {
	limit := c.Pod.Spec.ActiveDeadlineSeconds
	if limit == nil {
		return time.Time{}
	}
	return c.startTime().Add(time.Duration(*limit) * time.Second)
}

// startTime is when an agent first accepted the pod.
func (c *computation) startTime() time.Time {
	if t := c.Pod.Status.StartTime; t != nil {
		return t.Time
	}
	if c.Last != nil && c.Last.StartTime != nil {
		return c.Last.StartTime.Time
	}
	return c.Now.Truncate(time.Second)
}

// finished tells whether the containers have come to an end that no restart
// follows: an init container failed for good, or every app container ended.
func (c *computation) finished() bool {
	began := c.began()
	for _, m := range c.members {
		if m.kind == initOnce && !began && m.ended() && m.latest.ExitCode != 0 &&
			!restarts(c.Pod, m.spec, m.kind, m.latest.ExitCode) {
			return true
		}
	}
	for _, m := range c.members {
		if m.kind == app && (!m.ended() || c.again(m)) {
			return false
		}
	}
	return true
}

func (m *member) ended() bool   { return m.latest != nil && m.latest.State == Exited }
func (m *member) running() bool { return m.latest != nil && m.latest.State == Running }

// live tells whether the attempt may have a process.
func (c *Container) live() bool { return c.State == Running || c.State == Unknown }

// began tells whether an app container exists in the current set of
// containers: that proves the init containers are through, even when their
// records are gone.
func (c *computation) began() bool {
	for _, m := range c.members {
		if m.kind == app && m.latest != nil && (c.current == nil || m.latest.SandboxID == c.current.ID) {
			return true
		}
	}
	return false
}

// initialized tells whether every init container is through and every sidecar
// has started.
func (c *computation) initialized() bool {
	if c.began() {
		return true
	}
	for _, m := range c.members {
		if m.kind == initOnce && !c.succeeded(m) || m.kind == sidecar && !c.started(m) {
			return false
		}
	}
	return true
}

// succeeded tells whether an init container is done in the current sandbox.
func (c *computation) succeeded(m *member) bool {
	return m.ended() && m.latest.ExitCode == 0 && (c.current == nil || m.latest.SandboxID == c.current.ID)
}

func (c *computation) busy(kind ActionKind, name string) bool {
	_, ok := c.Ops[Key{kind, name}]
	return ok
}

// do asks for an action unless the same one is under way.
func (c *computation) do(a Action) {
	if _, ok := c.Ops[a.Key()]; !ok {
		c.decision.Actions = append(c.decision.Actions, a)
	}
}

// retryable tells whether the last failure of an operation is far enough back,
// and asks to be woken when it will be.
func (c *computation) retryable(k Key) bool {
	t, ok := c.Trouble[k]
	if !ok || !c.Now.Before(t.RetryAt) {
		return true
	}
	c.wakeAt(t.RetryAt)
	return false
}

func (c *computation) wakeAt(t time.Time) {
	if c.decision.Wake.IsZero() || t.Before(c.decision.Wake) {
		c.decision.Wake = t
	}
}

// prune removes what no status needs any more: all attempts of a container but
// the last two, containers that were created and never started, and stopped
// sandboxes that hold nothing.
func (c *computation) prune() {
	known := map[string]bool{}
	for _, m := range c.members {
		known[m.spec.Name] = true
		for i, a := range m.attempts {
			starting := c.busy(StartContainer, m.spec.Name)
			if i > 1 && !a.live() || a.State == Created && !starting {
				c.do(Action{Kind: RemoveContainer, ID: a.ID, Name: a.Name})
			}
		}
	}
	for _, a := range c.Containers {
		if !known[a.Name] && !a.live() {
			c.do(Action{Kind: RemoveContainer, ID: a.ID, Name: a.Name})
		}
	}
	for _, s := range c.Sandboxes {
		if s.Released && !c.holds(s.ID) {
			c.do(Action{Kind: RemoveSandbox, ID: s.ID})
		}
	}
}

func (c *computation) holds(sandboxID string) bool {
	return slices.ContainsFunc(c.Containers, func(a Container) bool { return a.SandboxID == sandboxID })
}
