package lifecycle

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestProperties runs random pods through random exits, failures, sandbox
// deaths, agent restarts and deletion, and checks after each decision what
// must never happen, and at the end what must have happened.
func TestProperties(t *testing.T) {
	for seed := range uint64(400) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			s := newSim(t, randomPod(r))
			s.rand = r
			s.exits = func(string, int32) (time.Duration, int32) {
				if r.IntN(3) == 0 {
					return -1, 0
				}
				return time.Duration(r.IntN(30_000)) * time.Millisecond, int32(r.IntN(2))
			}
			s.fails = func(a Action) *Trouble {
				if r.IntN(5) > 0 || a.Kind == StopContainer || a.Kind == RemoveContainer {
					return nil
				}
				return &Trouble{Reason: ReasonErrImagePull, Message: "no", RetryAt: s.in.Now.Add(time.Second)}
			}
			s.check = newChecker().check
			for range 4 {
				s.run(time.Duration(r.IntN(60)) * time.Second)
				disturb(s, r)
			}
			s.remove(int64(r.IntN(30)))
			s.run(10 * time.Minute)
			if !s.confirmed || !s.forgot || len(s.in.Containers)+len(s.in.Sandboxes) > 0 {
				t.Errorf("after deletion: confirmed %v, forgotten %v, left %v %v", s.confirmed, s.forgot, s.in.Containers, s.in.Sandboxes)
			}
		})
	}
}

func randomPod(r *rand.Rand) *corev1.Pod {
	all := []string{"i1", "s1", "i2", "s2", "a", "b"}
	names := []string{"c"}
	for _, n := range all {
		if r.IntN(2) == 0 {
			names = append(names, n)
		}
	}
	return pod([]corev1.RestartPolicy{always, onFailure, never}[r.IntN(3)], names...)
}

func disturb(s *sim, r *rand.Rand) {
	switch r.IntN(4) {
	case 0: // the sandbox dies
		for i := range s.in.Sandboxes {
			s.in.Sandboxes[i].Ready = false
		}
	case 1: // the agent restarts: it forgets everything but what the API server and the runtime hold
		p := s.in.Pod.DeepCopy()
		p.Status = s.last.Status
		s.in.Pod, s.in.Last = p, nil
		s.in.StoppingSince = time.Time{}
		clear(s.in.Trouble)
		clear(s.in.Probes)
		s.in.Prepared, s.in.TornDown = false, false
		clear(s.in.Ops)
		s.events = slices.DeleteFunc(s.events, func(event) bool { return true })
		s.in.Containers = slices.DeleteFunc(s.in.Containers, func(c Container) bool { return c.State == Created })
	}
}

// checker remembers what was seen, to notice what must not change.
type checker struct {
	phase    corev1.PodPhase
	restarts map[string]int32
}

func newChecker() *checker { return &checker{restarts: map[string]int32{}} }

func (k *checker) check(s *sim) {
	if s.in.Gone {
		return // nobody is told any more
	}
	st := s.last.Status
	live := map[string]int{}
	for _, c := range s.in.Containers {
		if c.live() {
			live[c.Name]++
		}
	}
	for name, n := range live {
		if n > 1 {
			s.t.Fatalf("%d live attempts of %s", n, name)
		}
	}
	if terminal(st.Phase) && len(live) > 0 {
		s.t.Fatalf("phase %s while %v run", st.Phase, live)
	}
	if terminal(k.phase) && st.Phase != k.phase {
		s.t.Fatalf("phase went from %s to %s", k.phase, st.Phase)
	}
	if k.phase == corev1.PodRunning && st.Phase == corev1.PodPending {
		s.t.Fatal("phase went from Running back to Pending")
	}
	k.phase = st.Phase
	for _, cs := range slices.Concat(st.ContainerStatuses, st.InitContainerStatuses) {
		if cs.RestartCount < k.restarts[cs.Name] {
			s.t.Fatalf("restart count of %s went from %d to %d", cs.Name, k.restarts[cs.Name], cs.RestartCount)
		}
		k.restarts[cs.Name] = cs.RestartCount
		states := 0
		for _, set := range []bool{cs.State.Waiting != nil, cs.State.Running != nil, cs.State.Terminated != nil} {
			if set {
				states++
			}
		}
		if states != 1 {
			s.t.Fatalf("%s has %d states: %+v", cs.Name, states, cs.State)
		}
	}
	k.checkActions(s, live)
}

func (k *checker) checkActions(s *sim, live map[string]int) {
	starts := 0
	for _, a := range s.last.Actions {
		switch a.Kind {
		case StartContainer:
			starts++
			if live[a.Name] > 0 {
				s.t.Fatalf("%s is started while it lives", a.Name)
			}
			if a.Name[0] >= 'a' && a.Name[0] <= 'c' {
				initsDone(s, a.SandboxID)
			}
			if !s.in.Prepared {
				s.t.Fatal("started before the volumes are there")
			}
		case Teardown, StopSandbox:
			if len(live) > 0 && a.Kind == Teardown {
				s.t.Fatalf("%s while %v run", a.Kind, live)
			}
			for _, c := range s.in.Containers {
				if c.live() && c.SandboxID == a.ID {
					s.t.Fatalf("sandbox %s is stopped while %s runs in it", a.ID, c.Name)
				}
			}
		}
	}
	if starts > 1 {
		s.t.Fatalf("%d containers started at once", starts)
	}
}

func initsDone(s *sim, sandbox string) {
	for i := range s.in.Pod.Spec.InitContainers {
		spec := &s.in.Pod.Spec.InitContainers[i]
		ok := slices.ContainsFunc(s.in.Containers, func(c Container) bool {
			return c.Name == spec.Name && c.SandboxID == sandbox && (spec.RestartPolicy != nil || c.State == Exited && c.ExitCode == 0)
		})
		if !ok {
			s.t.Fatalf("an app container starts before %s", spec.Name)
		}
	}
}
