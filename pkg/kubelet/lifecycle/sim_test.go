package lifecycle

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// sim is a runtime and an executor in virtual time: it takes a decision's
// actions, ends them after a while, and lets containers exit by themselves.
type sim struct {
	t      *testing.T
	rand   *rand.Rand // nil: every action takes one millisecond
	in     Input
	last   Decision
	events []event
	serial int
	// exits says how an attempt ends by itself: after how long, with what code.
	// after < 0 means never.
	exits func(name string, attempt int32) (after time.Duration, code int32)
	// fails may fail an action; nil means all succeed.
	fails func(Action) *Trouble
	// check runs after every decision.
	check             func(s *sim)
	confirmed, forgot bool
	log               []string
}

type event struct {
	at time.Time
	do func()
}

func newSim(t *testing.T, pod *corev1.Pod) *sim {
	return &sim{t: t, in: Input{
		Pod: pod, Now: epoch, HostIPs: []string{"192.0.2.1"},
		Ops: map[Key]Op{}, Trouble: map[Key]Trouble{}, Probes: map[string]Probes{},
	}, exits: func(string, int32) (time.Duration, int32) { return -1, 0 }}
}

func (s *sim) at(d time.Duration, do func()) { s.events = append(s.events, event{s.in.Now.Add(d), do}) }

func (s *sim) latency() time.Duration {
	if s.rand == nil {
		return time.Millisecond
	}
	return time.Duration(s.rand.IntN(3000)) * time.Millisecond
}

// decide computes once and begins the actions.
func (s *sim) decide() {
	s.last = Compute(s.in)
	s.in.StoppingSince = s.last.StoppingSince
	status := s.last.Status
	s.in.Last = &status
	if s.check != nil {
		s.check(s)
	}
	for _, a := range s.last.Actions {
		s.begin(a)
	}
}

func (s *sim) begin(a Action) {
	s.log = append(s.log, fmt.Sprintf("%v %s %s%s", s.in.Now.Sub(epoch).Round(time.Millisecond), a.Kind, a.Name, a.ID))
	switch a.Kind {
	case CancelStart:
		return
	case Confirm:
		s.confirmed = true
		s.at(s.latency(), func() { s.in.Gone = true })
		return
	case Forget:
		s.forgot = true
		return
	}
	key := a.Key()
	_, again := s.in.Ops[key]
	if again && a.Kind != StopContainer {
		s.t.Fatalf("%v asked for twice", key)
	}
	op := Op{}
	if a.Kind == StopContainer {
		op.Deadline = s.in.Now.Add(a.Grace)
	}
	s.in.Ops[key] = op
	pod := s.in.Pod // an action is about the pod as it was when it began
	s.at(s.latency(), func() {
		delete(s.in.Ops, key)
		if s.fails != nil {
			if trouble := s.fails(a); trouble != nil {
				trouble.At = s.in.Now
				s.in.Trouble[key] = *trouble
				return
			}
		}
		delete(s.in.Trouble, key)
		s.end(a, pod)
	})
}

func (s *sim) end(a Action, pod *corev1.Pod) {
	switch a.Kind {
	case Prepare:
		s.in.Prepared, s.in.Cgroup = true, Widest(pod, s.in.Containers, nil)
	case Teardown:
		s.in.TornDown, s.in.Prepared, s.in.Cgroup = true, false, nil
	case ResizePod:
		s.resizePod(a, pod)
	case CreateSandbox:
		s.serial++
		s.in.Sandboxes = append(s.in.Sandboxes, Sandbox{ID: fmt.Sprint("s", s.serial), Attempt: uint32(a.Attempt), Ready: true, IPs: []string{"10.0.0.1"}, CreatedAt: s.in.Now})
	case StopSandbox:
		for i := range s.in.Sandboxes {
			if s.in.Sandboxes[i].ID == a.ID {
				s.in.Sandboxes[i].Ready, s.in.Sandboxes[i].Released = false, true
			}
		}
	case RemoveSandbox:
		s.in.Sandboxes = slices.DeleteFunc(s.in.Sandboxes, func(b Sandbox) bool { return b.ID == a.ID })
	case StartContainer:
		s.startContainer(a, pod)
	case StopContainer:
		for i := range s.in.Containers {
			if c := &s.in.Containers[i]; c.ID == a.ID && c.State == Running && a.Reason == ReasonResize {
				c.Replaced = true
			}
		}
		s.exit(a.ID, 143)
	case RemoveContainer:
		s.in.Containers = slices.DeleteFunc(s.in.Containers, func(b Container) bool { return b.ID == a.ID })
	}
}

func (s *sim) startContainer(a Action, pod *corev1.Pod) {
	s.serial++
	id := fmt.Sprint("c", s.serial)
	var hash string
	var resources *corev1.ResourceRequirements
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == a.Name {
				hash, resources = Hash(&list[i]), list[i].Resources.DeepCopy()
			}
		}
	}
	s.in.Containers = append(s.in.Containers, Container{
		ID: id, Name: a.Name, SandboxID: a.SandboxID, Attempt: a.Attempt, State: Running, Delay: a.Delay,
		Hash: hash, Resources: resources, CreatedAt: s.in.Now, StartedAt: s.in.Now,
	})
	if after, code := s.exits(a.Name, a.Attempt); after >= 0 {
		s.at(after, func() { s.exit(id, code) })
	}
}

// resizePod fits the cgroup and then gives the containers what they are to have.
func (s *sim) resizePod(a Action, pod *corev1.Pod) {
	s.in.Cgroup = a.Cgroup
	if s.check != nil {
		s.check(s)
	}
	for i := range s.in.Containers {
		c := &s.in.Containers[i]
		for _, spec := range Containers(pod) {
			if spec.Name == c.Name && slices.Contains(a.Containers, c.ID) {
				c.Resources = spec.Resources.DeepCopy()
			}
		}
	}
}

func (s *sim) exit(id string, code int32) {
	for i := range s.in.Containers {
		if c := &s.in.Containers[i]; c.ID == id && c.State == Running {
			c.State, c.ExitCode, c.FinishedAt = Exited, code, s.in.Now
		}
	}
}

// run advances virtual time until it has passed d or nothing is left to happen.
func (s *sim) run(d time.Duration) {
	end := s.in.Now.Add(d)
	s.decide()
	for range 20000 {
		next := end
		for _, e := range s.events {
			if e.at.Before(next) {
				next = e.at
			}
		}
		if w := s.last.Wake; w.After(s.in.Now) && w.Before(next) {
			next = w
		}
		if !next.Before(end) {
			s.in.Now = end
			return
		}
		s.in.Now = next
		var due []event
		s.events = slices.DeleteFunc(s.events, func(e event) bool {
			if e.at.After(next) {
				return false
			}
			due = append(due, e)
			return true
		})
		for _, e := range due {
			e.do()
		}
		s.decide()
		if s.forgot {
			return
		}
	}
	s.t.Fatalf("no end in sight; last actions %v", s.log[max(0, len(s.log)-20):])
}

func (s *sim) remove(grace int64) {
	pod := s.in.Pod.DeepCopy()
	now := metav1.NewTime(s.in.Now)
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &now, &grace
	s.in.Pod = pod
}

func (s *sim) attempts(name string) int {
	n := 0
	for _, l := range s.log {
		var at, kind, who string
		fmt.Sscan(l, &at, &kind, &who)
		if kind == string(StartContainer) && who == name {
			n++
		}
	}
	return n
}

func pod(policy corev1.RestartPolicy, names ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u", Generation: 1}}
	p.Spec.RestartPolicy = policy
	always := corev1.ContainerRestartPolicyAlways
	for _, n := range names {
		c := corev1.Container{Name: n, Image: "img"}
		switch n[0] {
		case 'i':
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		case 's':
			c.RestartPolicy = &always
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		default:
			p.Spec.Containers = append(p.Spec.Containers, c)
		}
	}
	return p
}
