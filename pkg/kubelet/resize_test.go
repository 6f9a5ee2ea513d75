package kubelet

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/crifake"
)

// amounts reads "cpu request, cpu limit, memory request, memory limit"; "-" is none.
func amounts(s string) corev1.ResourceRequirements {
	r := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	f := strings.Fields(s)
	for i, to := range []struct {
		list corev1.ResourceList
		name corev1.ResourceName
	}{{r.Requests, "cpu"}, {r.Limits, "cpu"}, {r.Requests, "memory"}, {r.Limits, "memory"}} {
		if f[i] != "-" {
			to.list[to.name] = resource.MustParse(f[i])
		}
	}
	return r
}

func sizedPod(name, size string) *corev1.Pod {
	p := simplePod(name)
	p.Spec.Containers[0].Resources = amounts(size)
	return p
}

// resize does what an API server does at a write to the resize subresource.
func (n *simNode) resize(name, size string) {
	n.t.Helper()
	pod := n.get(name)
	pod.Spec.Containers[0].Resources = amounts(size)
	pod.Generation++
	if _, err := n.client.CoreV1().Pods("ns").Update(n.t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

// seen describes the first container: its cgroup's cpu shares, quota and memory
// limit, what the status says of requests allocated and of resources, and the
// conditions of a resize.
func (n *simNode) seen(name string) string {
	n.t.Helper()
	pod := n.get(name)
	var out []string
	cs := pod.Status.ContainerStatuses[0]
	show := func(l corev1.ResourceList) {
		for _, r := range []corev1.ResourceName{"cpu", "memory"} {
			if q, ok := l[r]; ok {
				out = append(out, q.String())
			} else {
				out = append(out, "-")
			}
		}
	}
	show(cs.AllocatedResources)
	if cs.Resources != nil {
		out = append(out, "has")
		show(cs.Resources.Requests)
		show(cs.Resources.Limits)
	}
	for _, c := range pod.Status.Conditions {
		if strings.HasPrefix(string(c.Type), "PodResize") {
			out = append(out, string(c.Type)+"/"+c.Reason)
			if c.Status != corev1.ConditionTrue || c.LastTransitionTime.IsZero() {
				n.t.Errorf("condition %+v", c)
			}
		}
	}
	return strings.Join(out, " ")
}

// limits are the cpu shares, cpu quota and memory limit of the running container.
func (n *simNode) limits(name string) [3]int64 {
	r := n.runtime.Resources("uid-"+name, "c")
	return [3]int64{r.GetCpuShares(), r.GetCpuQuota(), r.GetMemoryLimitInBytes()}
}

func (n *simNode) expect(what, got, want string) {
	n.t.Helper()
	if got != want {
		n.t.Errorf("%s: %s\nwant %s", what, got, want)
	}
}

func TestResize(t *testing.T) {
	for _, tc := range []struct{ name, from, to, seen string }{
		{"increase", "1 1 64Mi 64Mi", "2 2 128Mi 128Mi", "2 128Mi has 2 128Mi 2 128Mi"},
		{"decrease", "1 1 64Mi 64Mi", "500m 500m 32Mi 32Mi", "500m 32Mi has 500m 32Mi 500m 32Mi"},
		{"both ways", "1 2 64Mi 128Mi", "500m 3 32Mi 256Mi", "500m 32Mi has 500m 32Mi 3 256Mi"},
		{"limits where there were none", "100m - 32Mi -", "100m 200m 32Mi 64Mi", "100m 32Mi has 100m 32Mi 200m 64Mi"},
		{"requests where there were none", "- 1 32Mi -", "500m 1 32Mi -", "500m 32Mi has 500m 32Mi 1 -"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			onNode(t, func(t *testing.T, n *simNode) {
				n.create(sizedPod("p", tc.from))
				n.after(time.Second)
				n.resize("p", tc.to)
				n.after(time.Second)
				n.expect("status", n.seen("p"), tc.seen)
				made := n.limits("p")
				n.create(sizedPod("q", tc.to)) // what a pod made so has
				n.after(time.Second)
				if like := n.limits("q"); made != like {
					t.Errorf("shares, quota, memory %v, want %v", made, like)
				}
				if pod := n.get("p"); pod.Status.ObservedGeneration != 2 || n.runtime.Starts("uid-p", "c") != 1 {
					t.Errorf("observed generation %d, starts %d", pod.Status.ObservedGeneration, n.runtime.Starts("uid-p", "c"))
				}
			})
		})
	}
}

// events waits for none: it takes those there are about a resize.
func (n *simNode) resizeEvents() []string {
	var out []string
	for {
		select {
		case e := <-n.events.Events:
			if f := strings.Fields(e); strings.HasPrefix(f[1], "Resize") {
				out = append(out, f[1])
			}
		default:
			return out
		}
	}
}

func TestResizeDeferredUntilThereIsRoom(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.create(sizedPod("p", "1 - 64Mi -"))
		n.create(sizedPod("other", "2 - 64Mi -"))
		n.after(time.Second)
		was := n.limits("p")
		n.resize("p", "3 - 64Mi -")
		n.after(time.Second)
		n.expect("while there is no room", n.seen("p"), "1 64Mi has 1 64Mi - - PodResizePending/Deferred")
		c := condition(&n.get("p").Status, corev1.PodResizePending)
		if c.ObservedGeneration != 2 || !strings.Contains(c.Message, "cpu, requested: 3000, used: 2000") || n.limits("p") != was {
			t.Errorf("condition %+v, limits %v", c, n.limits("p"))
		}
		n.remove("other", 0)
		n.after(time.Second)
		n.expect("when the other pod is gone", n.seen("p"), "3 64Mi has 3 64Mi - -")
		n.expect("events", strings.Join(n.resizeEvents(), " "), "ResizeDeferred ResizeStarted ResizeCompleted")
	})
}

// TestResizeTakesRoomOfWhatShrinks also shows who comes first.
func TestResizeTakesRoomOfWhatShrinks(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		important := int32(100)
		n.create(sizedPod("low", "500m - 64Mi -"))
		high := sizedPod("high", "500m - 64Mi -")
		high.Spec.Priority = &important
		n.create(high)
		n.create(sizedPod("big", "2500m - 64Mi -"))
		n.after(time.Second)
		n.resize("low", "2 - 64Mi -")
		n.after(time.Second)
		n.resize("high", "2 - 64Mi -")
		n.after(time.Second)
		n.resize("big", "1 - 64Mi -")
		n.after(time.Second)
		n.expect("the important pod", n.seen("high"), "2 64Mi has 2 64Mi - -")
		n.expect("the other", n.seen("low"), "500m 64Mi has 500m 64Mi - - PodResizePending/Deferred")
		// a new pod counts what is allocated, not what is asked for
		n.create(sizedPod("new", "500m - 64Mi -"))
		n.after(time.Second)
		if pod := n.get("new"); pod.Status.Phase != corev1.PodRunning {
			t.Errorf("status %+v", pod.Status)
		}
	})
}

func TestResizeInfeasibleAndTakenBack(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.create(sizedPod("p", "1 - 64Mi -"))
		n.after(time.Second)
		n.resize("p", "5 - 64Mi -")
		n.after(time.Second)
		n.expect("status", n.seen("p"), "1 64Mi has 1 64Mi - - PodResizePending/Infeasible")
		n.resize("p", "1 - 64Mi -")
		n.after(time.Second)
		n.expect("taken back", n.seen("p"), "1 64Mi has 1 64Mi - -")
		n.expect("events", strings.Join(n.resizeEvents(), " "), "ResizeInfeasible")
	})
}

func TestResizeByRestart(t *testing.T) {
	for _, policy := range []corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure} {
		t.Run(string(policy), func(t *testing.T) {
			onNode(t, func(t *testing.T, n *simNode) {
				p := sizedPod("p", "1 1 64Mi 64Mi")
				p.Spec.RestartPolicy = policy
				p.Spec.Containers[0].Command = []string{"sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"}
				p.Spec.Containers[0].ResizePolicy = []corev1.ContainerResizePolicy{
					{ResourceName: "cpu", RestartPolicy: corev1.NotRequired}, {ResourceName: "memory", RestartPolicy: corev1.RestartContainer},
				}
				n.create(p)
				n.after(time.Second)
				n.resize("p", "2 2 64Mi 64Mi")
				n.after(time.Second)
				if n.runtime.Starts("uid-p", "c") != 1 || n.limits("p")[1] != 200_000 {
					t.Errorf("cpu: %d starts, limits %v", n.runtime.Starts("uid-p", "c"), n.limits("p"))
				}
				n.resize("p", "2 2 128Mi 128Mi")
				n.after(time.Second)
				n.expect("status", n.seen("p"), "2 128Mi has 2 128Mi 2 128Mi")
				if s := n.containerStatus("p"); s.RestartCount != 1 || s.State.Running == nil || n.limits("p")[2] != 128<<20 {
					t.Errorf("memory: status %+v, limits %v", s, n.limits("p"))
				}
			})
		})
	}
}

func TestResizeOfSidecar(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		p := sizedPod("p", "1 - 64Mi -")
		always := corev1.ContainerRestartPolicyAlways
		p.Spec.InitContainers = []corev1.Container{{Name: "side", Image: "img:1", RestartPolicy: &always, Resources: amounts("1 1 64Mi 64Mi")}}
		n.create(p)
		n.after(time.Second)
		pod := n.get("p")
		pod.Spec.InitContainers[0].Resources = amounts("2 2 64Mi 64Mi")
		pod.Generation++
		if _, err := n.client.CoreV1().Pods("ns").Update(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		n.after(time.Second)
		if got := n.runtime.Resources("uid-p", "side").GetCpuQuota(); got != 200_000 {
			t.Errorf("quota %d", got)
		}
		if s := n.get("p").Status.InitContainerStatuses[0]; s.Resources.Limits.Cpu().Value() != 2 || s.RestartCount != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestResizeBelowUsedMemoryIsAnError(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.create(sizedPod("p", "1 1 64Mi 64Mi"))
		n.after(time.Second)
		use := func(bytes uint64) {
			id := n.containerStatus("p").ContainerID
			n.runtime.SetStats([]*runtimeapi.ContainerStats{{
				Attributes: &runtimeapi.ContainerAttributes{Id: id[strings.Index(id, "://")+3:]},
				Memory:     &runtimeapi.MemoryUsage{WorkingSetBytes: &runtimeapi.UInt64Value{Value: bytes}},
			}})
		}
		use(40 << 20)
		n.resize("p", "1 1 32Mi 32Mi")
		n.after(time.Second)
		n.expect("while much is used", n.seen("p"), "1 32Mi has 1 64Mi 1 64Mi PodResizeInProgress/Error")
		if c := condition(&n.get("p").Status, corev1.PodResizeInProgress); c.ObservedGeneration != 2 || !strings.Contains(c.Message, "in use") {
			t.Errorf("condition %+v", c)
		}
		use(10 << 20)
		n.after(time.Minute)
		n.expect("afterwards", n.seen("p"), "1 32Mi has 1 32Mi 1 32Mi")
		n.expect("events", strings.Join(n.resizeEvents(), " "), "ResizeStarted ResizeError ResizeCompleted")
	})
}

// TestResizeSurvivesTheAgent ends the agent before, in the midst of, and after
// a resize; with and without what it wrote down.
func TestResizeSurvivesTheAgent(t *testing.T) {
	for _, written := range []bool{true, false} {
		for _, when := range []string{"before", "midst", "after", "deferred"} {
			name := when + " without a file"
			if written {
				name = when
			}
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				onNode(t, func(t *testing.T, n *simNode) {
					n.stop()
					n.checkpoints = dir
					n.start()
					n.create(sizedPod("p", "1 1 64Mi 64Mi"))
					for _, name := range []string{"a", "y", "z"} { // the agent learns of pods in any order
						n.create(sizedPod(name, "300m - 64Mi -"))
					}
					n.after(time.Second)
					to, want := "2 2 64Mi 64Mi", "2 64Mi has 2 64Mi 2 64Mi"
					switch when {
					case "before":
						n.stop()
						n.resize("p", to)
					case "midst":
						n.runtime.Intercept(func(_ context.Context, c crifake.Call) error {
							if c.Method == "UpdateContainerResources" {
								return errors.New("the disk is slow")
							}
							return nil
						})
						n.resize("p", to)
						n.after(time.Second)
						n.expect("in the midst", n.seen("p"), "2 64Mi has 1 64Mi 1 64Mi PodResizeInProgress/Error")
						n.stop()
						n.runtime.Intercept(nil)
					case "after":
						n.resize("p", to)
						n.after(time.Second)
						n.stop()
					case "deferred":
						to, want = "3500m 3500m 64Mi 64Mi", "1 64Mi has 1 64Mi 1 64Mi PodResizePending/Deferred"
						n.resize("p", to)
						n.after(time.Second)
						n.stop()
					}
					if files, _ := filepath.Glob(filepath.Join(dir, "*"+grantSuffix)); !written {
						for _, f := range files {
							if err := os.Remove(f); err != nil {
								t.Fatal(err)
							}
						}
					}
					n.start()
					n.after(2 * time.Second)
					n.expect("status", n.seen("p"), want)
					if when != "deferred" && n.limits("p")[1] != 200_000 || n.runtime.Starts("uid-p", "c") != 1 {
						t.Errorf("limits %v after %d starts", n.limits("p"), n.runtime.Starts("uid-p", "c"))
					}
					n.remove("p", 0)
					n.after(time.Second)
					if files, _ := filepath.Glob(filepath.Join(dir, "uid-p*")); len(files) > 0 {
						t.Errorf("left over: %v", files)
					}
				})
			})
		}
	}
}

func FuzzGrantedResources(f *testing.F) {
	f.Add([]byte(`{"generation":2,"containers":{"c":{"requests":{"cpu":"1"}}},"applied":{"id":{}}}`))
	f.Add([]byte(`{"containers":{"c":{"requests":{"cpu":"x"}}}}`))
	m := grantMemory{f.TempDir()}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(m.file("u"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := m.load("u")
		if err != nil {
			return
		}
		if err := m.save("u", r); err != nil {
			t.Fatal(err)
		}
		if again, err := m.load("u"); err != nil || again.Generation != r.Generation || len(again.Containers) != len(r.Containers) {
			t.Errorf("%+v becomes %+v, %v", r, again, err)
		}
	})
}
