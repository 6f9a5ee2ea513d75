package lifecycle

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// size makes requests and limits; "" is none.
func size(cpuRequest, cpuLimit, memoryRequest, memoryLimit string) corev1.ResourceRequirements {
	r := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	put := func(l corev1.ResourceList, name corev1.ResourceName, s string) {
		if s != "" {
			l[name] = resource.MustParse(s)
		}
	}
	put(r.Requests, "cpu", cpuRequest)
	put(r.Limits, "cpu", cpuLimit)
	put(r.Requests, "memory", memoryRequest)
	put(r.Limits, "memory", memoryLimit)
	return r
}

func TestWeigh(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList { return size(cpu, "", memory, "").Requests }
	for _, tc := range []struct {
		name                   string
		wanted, had, used, all corev1.ResourceList
		want                   *Pending
	}{
		{"fits exactly", list("2", "1Gi"), list("1", "1Gi"), list("2", "1Gi"), list("4", "2Gi"), nil},
		{"cpu is taken", list("3", "1Gi"), list("1", "1Gi"), list("2", "1Gi"), list("4", "2Gi"), &Pending{
			corev1.PodReasonDeferred, "Node didn't have enough resource: cpu, requested: 3000, used: 2000, capacity: 4000"}},
		{"memory is taken", list("1", "1025Mi"), list("1", "1Gi"), list("2", "1Gi"), list("4", "2Gi"), &Pending{
			corev1.PodReasonDeferred, "Node didn't have enough resource: memory, requested: 1074790400, used: 1073741824, capacity: 2147483648"}},
		{"more than the node", list("5", "1Gi"), list("1", "1Gi"), nil, list("4", "2Gi"), &Pending{
			corev1.PodReasonInfeasible, "Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000"}},
		{"infeasible beats deferred", list("3", "3Gi"), list("1", "1Gi"), list("2", "0"), list("4", "2Gi"), &Pending{
			corev1.PodReasonInfeasible, "Node didn't have enough capacity: memory, requested: 3221225472, capacity: 2147483648"}},
		{"less is always possible", list("1", "1Gi"), list("2", "1Gi"), list("9", "9Gi"), list("4", "2Gi"), nil},
		{"memory is not measured", list("1", "9Gi"), list("1", "1Gi"), nil, list("4", ""), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Weigh(tc.wanted, tc.had, tc.used, tc.all)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWidest(t *testing.T) {
	for _, tc := range []struct {
		name                     string
		has, allocated, expected corev1.ResourceRequirements
	}{
		{"grows", size("1", "1", "1Gi", "1Gi"), size("2", "2", "2Gi", "2Gi"), size("2", "2", "2Gi", "2Gi")},
		{"shrinks", size("2", "2", "2Gi", "2Gi"), size("1", "1", "1Gi", "1Gi"), size("2", "2", "2Gi", "2Gi")},
		{"both", size("1", "2", "1Gi", "2Gi"), size("2", "3", "1Mi", "1Gi"), size("2", "3", "1Gi", "2Gi")},
		{"is limited anew", size("1", "", "1Gi", ""), size("1", "1", "1Gi", "1Gi"), size("1", "", "1Gi", "")},
		{"has what it should", size("1", "1", "", ""), size("1", "1", "", ""), size("1", "1", "", "")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := pod(always, "a")
			p.Spec.Containers[0].Resources = tc.allocated
			has := tc.has
			got := Widest(p, []Container{{ID: "1", Name: "a", State: Running, Resources: &has}, {ID: "0", Name: "a", State: Exited}}, nil)
			if diff := cmp.Diff(tc.expected, got.Spec.Containers[0].Resources); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tc.allocated, p.Spec.Containers[0].Resources); diff != "" {
				t.Error("the pod was changed", diff)
			}
		})
	}
}

// room fails when a container has, or the pod is allocated, more than the
// cgroup leaves room for.
func room(s *sim) {
	if s.in.Cgroup == nil {
		return
	}
	for _, spec := range Containers(s.in.Cgroup) {
		for i := range s.in.Containers {
			a := &s.in.Containers[i]
			if a.Name != spec.Name || a.State != Running {
				continue
			}
			for _, name := range resizable() {
				wide, limited := spec.Resources.Limits[name]
				has, hasLimit := a.Resources.Limits[name]
				if limited && (!hasLimit || wide.Cmp(has) < 0) {
					s.t.Fatalf("container %s has %v %s, its cgroup room for %v", a.Name, has.String(), name, wide.String())
				}
			}
		}
	}
}

func (s *sim) allocate(change func(*corev1.Pod)) {
	p := s.in.Pod.DeepCopy()
	change(p)
	p.Generation++
	s.in.Pod, s.in.AllocatedGeneration = p, p.Generation
}

// TestResizeConverges resizes pods of several containers at random moments.
func TestResizeConverges(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := pod(always, "s", "a", "b")
		for _, c := range Containers(p) {
			c.ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: "memory", RestartPolicy: corev1.RestartContainer}}
			c.Resources = size("1", "1", "1Gi", "1Gi")
		}
		s := newSim(t, p)
		s.rand, s.check = r, room
		s.fails = func(a Action) *Trouble {
			if a.Kind == ResizePod && r.IntN(3) == 0 {
				return &Trouble{Message: "no", RetryAt: s.in.Now.Add(time.Second)}
			}
			return nil
		}
		for range 6 {
			s.run(time.Duration(r.IntN(8000)) * time.Millisecond)
			s.allocate(func(p *corev1.Pod) {
				c := Containers(p)[r.IntN(3)]
				cpu, memory := fmt.Sprint(1+r.IntN(3)), fmt.Sprint(1+r.IntN(2), "Gi")
				c.Resources = size(cpu, cpu, memory, memory)
			})
		}
		s.run(20 * time.Minute)
		for _, cs := range append(s.last.Status.InitContainerStatuses, s.last.Status.ContainerStatuses...) {
			for _, spec := range Containers(s.in.Pod) {
				if spec.Name == cs.Name && (cs.State.Running == nil || cmp.Diff(spec.Resources, *cs.Resources) != "") {
					t.Fatalf("seed %d: container %s is %+v", seed, cs.Name, cs)
				}
			}
		}
		if !SameResources(s.in.Cgroup, s.in.Pod) {
			t.Fatalf("seed %d: the cgroup is not narrowed", seed)
		}
		for _, c := range s.last.Status.Conditions {
			if c.Type == corev1.PodResizeInProgress {
				t.Fatalf("seed %d: condition %+v", seed, c)
			}
		}
	}
}

func TestResizeRestartNeedsNoPolicyAndNoBackOff(t *testing.T) {
	p := pod(corev1.RestartPolicyOnFailure, "a")
	p.Spec.Containers[0].Resources = size("1", "1", "1Gi", "1Gi")
	p.Spec.Containers[0].ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: "cpu", RestartPolicy: corev1.RestartContainer}}
	s := newSim(t, p)
	s.run(time.Second)
	s.in.Containers[0].Delay = time.Minute
	s.allocate(func(p *corev1.Pod) { p.Spec.Containers[0].Resources = size("2", "2", "1Gi", "1Gi") })
	s.run(time.Second)
	if cs := s.last.Status.ContainerStatuses[0]; cs.RestartCount != 1 || cs.State.Running == nil || cs.Resources.Limits.Cpu().Value() != 2 {
		t.Errorf("status %+v", cs)
	}
}

func TestResizeConditions(t *testing.T) {
	p := pod(always, "a")
	p.Spec.Containers[0].Resources = size("1", "", "", "")
	s := newSim(t, p)
	s.run(time.Second)
	s.fails = func(a Action) *Trouble { return &Trouble{Message: "no", RetryAt: s.in.Now.Add(time.Hour)} }
	s.allocate(func(p *corev1.Pod) { p.Spec.Containers[0].Resources = size("2", "", "", "") })
	later := s.in.Pod.DeepCopy()
	later.Generation++
	s.in.Pod = later // asks for still more, which is put off
	s.in.Pending = &Pending{corev1.PodReasonDeferred, "full"}
	s.run(time.Second)
	got := map[corev1.PodConditionType]string{}
	for _, c := range s.last.Status.Conditions {
		got[c.Type] = fmt.Sprint(c.Reason, " ", c.Message, " ", c.ObservedGeneration)
	}
	if got[corev1.PodResizePending] != "Deferred full 3" || got[corev1.PodResizeInProgress] != "Error no 2" {
		t.Errorf("%q", got)
	}
	s.in.Pod.Status = s.last.Status
	s.remove(30)
	s.run(0)
	for _, c := range s.last.Status.Conditions {
		if c.Type == corev1.PodResizePending || c.Type == corev1.PodResizeInProgress {
			t.Errorf("a pod that stops has %+v", c)
		}
	}
}
