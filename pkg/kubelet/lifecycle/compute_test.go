package lifecycle

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	always    = corev1.RestartPolicyAlways
	onFailure = corev1.RestartPolicyOnFailure
	never     = corev1.RestartPolicyNever
)

func exitsWith(codes map[string]int32) func(string, int32) (time.Duration, int32) {
	return func(name string, _ int32) (time.Duration, int32) {
		if code, ok := codes[name]; ok {
			return time.Second, code
		}
		return -1, 0
	}
}

func condition(s corev1.PodStatus, t corev1.PodConditionType) corev1.PodCondition {
	for _, c := range s.Conditions {
		if c.Type == t {
			return c
		}
	}
	return corev1.PodCondition{}
}

func TestPolicies(t *testing.T) {
	for _, tc := range []struct {
		name     string
		policy   corev1.RestartPolicy
		members  []string
		codes    map[string]int32
		phase    corev1.PodPhase
		attempts map[string]int // in the first 25 seconds
	}{
		{"runs", always, []string{"a"}, nil, corev1.PodRunning, map[string]int{"a": 1}},
		{"always restarts success", always, []string{"a"}, map[string]int32{"a": 0}, corev1.PodRunning, map[string]int{"a": 3}},
		{"always restarts failure", always, []string{"a"}, map[string]int32{"a": 1}, corev1.PodRunning, map[string]int{"a": 3}},
		{"on failure ends with success", onFailure, []string{"a"}, map[string]int32{"a": 0}, corev1.PodSucceeded, map[string]int{"a": 1}},
		{"on failure restarts", onFailure, []string{"a"}, map[string]int32{"a": 2}, corev1.PodRunning, map[string]int{"a": 3}},
		{"never, failed", never, []string{"a"}, map[string]int32{"a": 2}, corev1.PodFailed, map[string]int{"a": 1}},
		{"never, succeeded", never, []string{"a"}, map[string]int32{"a": 0}, corev1.PodSucceeded, map[string]int{"a": 1}},
		{"never, one still runs", never, []string{"a", "b"}, map[string]int32{"a": 1}, corev1.PodRunning, map[string]int{"a": 1, "b": 1}},
		{"init in order", always, []string{"i1", "i2", "a"}, map[string]int32{"i1": 0, "i2": 0}, corev1.PodRunning, map[string]int{"i1": 1, "i2": 1, "a": 1}},
		{"init fails, never", never, []string{"i1", "i2", "a"}, map[string]int32{"i1": 1}, corev1.PodFailed, map[string]int{"i1": 1, "i2": 0, "a": 0}},
		{"init fails, always", always, []string{"i1", "a"}, map[string]int32{"i1": 1}, corev1.PodPending, map[string]int{"i1": 3, "a": 0}},
		{"sidecar ends with the pod", never, []string{"s1", "a"}, map[string]int32{"a": 0}, corev1.PodSucceeded, map[string]int{"s1": 1, "a": 1}},
		{"sidecar restarts", never, []string{"s1", "a"}, map[string]int32{"s1": 1}, corev1.PodRunning, map[string]int{"s1": 3, "a": 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSim(t, pod(tc.policy, tc.members...))
			s.exits = exitsWith(tc.codes)
			s.run(25 * time.Second)
			if got := s.last.Status.Phase; got != tc.phase {
				t.Errorf("phase %s, want %s\n%s", got, tc.phase, strings.Join(s.log, "\n"))
			}
			for name, want := range tc.attempts {
				if got := s.attempts(name); got != want {
					t.Errorf("%s started %d times, want %d\n%s", name, got, want, strings.Join(s.log, "\n"))
				}
			}
		})
	}
}

func TestFailedInitLeavesOthersWaiting(t *testing.T) {
	s := newSim(t, pod(never, "i1", "i2", "a"))
	s.exits = exitsWith(map[string]int32{"i1": 1})
	s.run(10 * time.Second)
	st := s.last.Status
	if w := st.ContainerStatuses[0].State.Waiting; w == nil || w.Reason != ReasonPodInitializing {
		t.Errorf("app container state %+v, want waiting PodInitializing", st.ContainerStatuses[0].State)
	}
	if w := st.InitContainerStatuses[1].State.Waiting; w == nil || w.Reason != ReasonPodInitializing {
		t.Errorf("second init container state %+v, want waiting PodInitializing", st.InitContainerStatuses[1].State)
	}
	if c := condition(st, corev1.PodInitialized); c.Status != corev1.ConditionFalse || c.Reason != "ContainersNotInitialized" ||
		c.Message != "containers with incomplete status: [i1 i2]" {
		t.Errorf("Initialized %+v", c)
	}
}

func TestRunningStatus(t *testing.T) {
	s := newSim(t, pod(always, "a"))
	s.run(time.Second)
	st := s.last.Status
	if st.PodIP != "10.0.0.1" || st.HostIP != "192.0.2.1" || st.StartTime == nil || st.QOSClass != corev1.PodQOSBestEffort {
		t.Errorf("status %+v", st)
	}
	for _, c := range []corev1.PodConditionType{corev1.PodReady, corev1.ContainersReady, corev1.PodInitialized, corev1.PodScheduled, corev1.PodReadyToStartContainers} {
		if got := condition(st, c); got.Status != corev1.ConditionTrue || got.ObservedGeneration != 1 {
			t.Errorf("%s is %+v", c, got)
		}
	}
	cs := st.ContainerStatuses[0]
	if cs.State.Running == nil || !cs.Ready || !*cs.Started || cs.RestartCount != 0 {
		t.Errorf("container status %+v", cs)
	}
	before := len(s.log)
	s.run(time.Hour)
	if len(s.log) != before {
		t.Errorf("a pod that runs needs nothing, yet %v", s.log[before:])
	}
}

func TestCrashLoopBackOff(t *testing.T) {
	s := newSim(t, pod(always, "a"))
	var starts []time.Duration
	s.exits = func(_ string, _ int32) (time.Duration, int32) {
		starts = append(starts, s.in.Now.Sub(epoch))
		return time.Second, 3
	}
	s.run(1500 * time.Second)
	var gaps []time.Duration
	for i := 1; i < len(starts); i++ {
		gaps = append(gaps, (starts[i] - starts[i-1] - time.Second).Round(time.Second))
	}
	want := []time.Duration{0, 10e9, 20e9, 40e9, 80e9, 160e9, 300e9, 300e9, 300e9}
	if !slices.Equal(gaps[:len(want)], want) {
		t.Errorf("delays %v, want %v", gaps, want)
	}
	cs := s.last.Status.ContainerStatuses[0]
	if w := cs.State.Waiting; w == nil || w.Reason != ReasonCrashLoopBackOff || w.Message != "back-off 5m0s restarting failed container=a pod=p_ns(u)" {
		t.Errorf("state %+v", cs.State)
	}
	if l := cs.LastTerminationState.Terminated; l == nil || l.ExitCode != 3 || l.Reason != ReasonError {
		t.Errorf("last state %+v", cs.LastTerminationState)
	}
	if int(cs.RestartCount) != len(starts)-1 {
		t.Errorf("restart count %d after %d starts", cs.RestartCount, len(starts))
	}
}

func TestBackOffForgetsAfterCalm(t *testing.T) {
	c := Container{Delay: 160 * time.Second, StartedAt: epoch, FinishedAt: epoch.Add(11 * time.Minute)}
	if wait, next := restartDelay(c); wait != 0 || next != firstDelay {
		t.Errorf("after a calm run: wait %v, next %v", wait, next)
	}
}

func TestDeletion(t *testing.T) {
	s := newSim(t, pod(always, "s1", "s2", "a", "b"))
	s.run(time.Second)
	s.remove(30)
	mark := len(s.log)
	s.run(time.Minute)
	if !s.confirmed || !s.forgot {
		t.Fatalf("confirmed %v, forgotten %v\n%s", s.confirmed, s.forgot, strings.Join(s.log, "\n"))
	}
	var order []string
	for _, l := range s.log[mark:] {
		order = append(order, strings.Join(strings.Fields(l)[1:2], " ")+" "+strings.TrimRight(strings.Fields(l + " -")[2], "0123456789"))
	}
	want := []string{"StopContainer ac", "StopContainer bc", "StopContainer s2c", "StopContainer s1c", "StopSandbox s", "Teardown -", "Confirm -"}
	if len(order) < len(want) || !slices.Equal(strip(order[:len(want)]), strip(want)) {
		t.Errorf("order %v, want %v", order, want)
	}
}

func strip(in []string) []string {
	var out []string
	for _, s := range in {
		f := strings.Fields(s)
		name := f[1]
		if f[0] == "StopContainer" {
			name = strings.TrimSuffix(name, "c")
			name = strings.TrimRight(name, "c0123456789")
		}
		out = append(out, f[0]+" "+name)
	}
	return out
}

func TestForcedStopShortensGrace(t *testing.T) {
	s := newSim(t, pod(always, "a"))
	s.run(time.Second)
	s.remove(30)
	first := Compute(s.in)
	if len(first.Actions) != 1 || first.Actions[0].Grace != 30*time.Second {
		t.Fatalf("actions %+v", first.Actions)
	}
	s.in.StoppingSince = first.StoppingSince
	s.in.Ops[first.Actions[0].Key()] = Op{Deadline: s.in.Now.Add(30 * time.Second)}
	s.in.Now = s.in.Now.Add(time.Second)
	if again := Compute(s.in); len(again.Actions) != 0 {
		t.Errorf("repeated %+v", again.Actions)
	}
	s.remove(1)
	if again := Compute(s.in); len(again.Actions) != 1 || again.Actions[0].Grace > time.Second {
		t.Errorf("after a shorter grace: %+v", again.Actions)
	}
}

func TestActiveDeadline(t *testing.T) {
	for _, policy := range []corev1.RestartPolicy{always, never} {
		p := pod(policy, "a")
		p.Spec.ActiveDeadlineSeconds = new(int64)
		*p.Spec.ActiveDeadlineSeconds = 5
		s := newSim(t, p)
		s.check = func(s *sim) {
			if s.in.Now.Before(epoch.Add(5*time.Second)) && terminal(s.last.Status.Phase) {
				t.Fatal("failed before its deadline")
			}
		}
		s.run(10 * time.Second)
		st := s.last.Status
		if st.Phase != corev1.PodFailed || st.Reason != ReasonDeadlineExceeded {
			t.Errorf("%s: phase %s, reason %q", policy, st.Phase, st.Reason)
		}
		if c := condition(st, corev1.PodReady); c.Status != corev1.ConditionFalse || c.Reason != "PodFailed" {
			t.Errorf("Ready %+v", c)
		}
	}
}

func TestImagePullTrouble(t *testing.T) {
	s := newSim(t, pod(always, "a", "b"))
	s.fails = func(a Action) *Trouble {
		if a.Kind == StartContainer && a.Name == "a" && s.in.Now.Before(epoch.Add(60*time.Second)) {
			return &Trouble{Reason: ReasonErrImagePull, Message: "no such image", Image: "img", RetryAt: s.in.Now.Add(10 * time.Second)}
		}
		return nil
	}
	s.run(time.Second)
	if w := s.last.Status.ContainerStatuses[0].State.Waiting; w == nil || w.Reason != ReasonErrImagePull {
		t.Errorf("at once: %+v", s.last.Status.ContainerStatuses[0].State)
	}
	if s.last.Status.ContainerStatuses[1].State.Running == nil {
		t.Error("the other container does not run")
	}
	s.run(4 * time.Second)
	w := s.last.Status.ContainerStatuses[0].State.Waiting
	if w == nil || w.Reason != ReasonImagePullBackOff || w.Message != `Back-off pulling image "img": ErrImagePull: no such image` {
		t.Errorf("later: %+v", w)
	}
	if s.last.Status.Phase != corev1.PodPending {
		t.Errorf("phase %s", s.last.Status.Phase)
	}
	s.run(70 * time.Second)
	if s.last.Status.Phase != corev1.PodRunning || s.last.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("in the end: %+v", s.last.Status)
	}
}

func TestProbes(t *testing.T) {
	p := pod(always, "a")
	p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{}
	p.Spec.Containers[0].LivenessProbe = &corev1.Probe{}
	p.Spec.Containers[0].StartupProbe = &corev1.Probe{}
	s := newSim(t, p)
	s.run(time.Second)
	cs := s.last.Status.ContainerStatuses[0]
	if *cs.Started || cs.Ready {
		t.Errorf("before the startup probe: %+v", cs)
	}
	s.in.Probes["a"] = Probes{Startup: Success}
	s.run(time.Second)
	if cs = s.last.Status.ContainerStatuses[0]; !*cs.Started || cs.Ready {
		t.Errorf("before the readiness probe: %+v", cs)
	}
	s.in.Probes["a"] = Probes{Startup: Success, Readiness: Success}
	s.run(time.Second)
	if cs = s.last.Status.ContainerStatuses[0]; !cs.Ready {
		t.Errorf("ready: %+v", cs)
	}
	s.in.Probes["a"] = Probes{Startup: Success, Readiness: Success, Liveness: Failure}
	s.decide()
	s.in.Probes["a"] = Probes{}
	s.run(time.Second)
	if cs = s.last.Status.ContainerStatuses[0]; cs.RestartCount != 1 {
		t.Errorf("after a liveness failure: %+v", cs)
	}
}

func TestReadinessGate(t *testing.T) {
	p := pod(always, "a")
	p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/x"}}
	s := newSim(t, p)
	s.run(time.Second)
	if c := condition(s.last.Status, corev1.PodReady); c.Status != corev1.ConditionFalse || c.Reason != "ReadinessGatesNotReady" {
		t.Errorf("Ready %+v", c)
	}
	p = p.DeepCopy()
	p.Status.Conditions = []corev1.PodCondition{{Type: "example.com/x", Status: corev1.ConditionTrue}}
	s.in.Pod = p
	s.run(time.Second)
	if c := condition(s.last.Status, corev1.PodReady); c.Status != corev1.ConditionTrue {
		t.Errorf("Ready %+v", c)
	}
	if c := condition(s.last.Status, "example.com/x"); c.Status != corev1.ConditionTrue {
		t.Error("the gate's condition is lost")
	}
}

func TestSandboxDies(t *testing.T) {
	s := newSim(t, pod(always, "i1", "a"))
	s.exits = exitsWith(map[string]int32{"i1": 0})
	s.run(5 * time.Second)
	s.in.Sandboxes[0].Ready = false
	s.run(30 * time.Second)
	if n := len(s.in.Sandboxes); n != 1 && !s.in.Sandboxes[n-1].Ready {
		t.Errorf("sandboxes %+v", s.in.Sandboxes)
	}
	if s.attempts("i1") != 2 || s.attempts("a") != 2 || s.last.Status.Phase != corev1.PodRunning {
		t.Errorf("phase %s\n%s", s.last.Status.Phase, strings.Join(s.log, "\n"))
	}
}

func TestLostRecordsCountAsRestart(t *testing.T) {
	p := pod(always, "a")
	s := newSim(t, p)
	s.run(time.Second)
	fresh := newSim(t, p.DeepCopy())
	fresh.in.Pod.Status = s.last.Status
	fresh.run(time.Second)
	cs := fresh.last.Status.ContainerStatuses[0]
	if cs.RestartCount != 1 || cs.LastTerminationState.Terminated == nil || cs.LastTerminationState.Terminated.Reason != ReasonContainerStatusUnknown {
		t.Errorf("status %+v", cs)
	}
}
