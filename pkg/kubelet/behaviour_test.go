package kubelet

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/crifake"
	"coracle/pkg/kubelet/lifecycle"
)

func (n *simNode) containerStatus(name string) corev1.ContainerStatus {
	n.t.Helper()
	s := n.get(name).Status.ContainerStatuses
	if len(s) == 0 {
		n.t.Fatalf("pod %s has no container status", name)
	}
	return s[0]
}

// sawEvent drains the recorded events and looks for one.
func (n *simNode) sawEvent(part string) bool {
	seen := false
	for {
		select {
		case e := <-n.events.Events:
			seen = seen || strings.Contains(e, part)
		default:
			return seen
		}
	}
}

func TestAgentRestartAdopts(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		for i := range 5 {
			n.create(simplePod(fmt.Sprint("p", i)))
		}
		n.create(simplePod("gone"))
		n.after(2 * time.Second)
		n.stop()
		if err := n.client.CoreV1().Pods("ns").Delete(t.Context(), "gone", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		n.start()
		n.after(time.Minute)
		for i := range 5 {
			name := fmt.Sprint("p", i)
			if s := n.containerStatus(name); s.RestartCount != 0 || s.State.Running == nil {
				t.Errorf("%s: %+v", name, s)
			}
			if got := n.runtime.Starts("uid-"+name, "c"); got != 1 {
				t.Errorf("%s was started %d times", name, got)
			}
		}
		if n.runtime.Live("uid-gone", "c") != 0 {
			t.Error("the containers of a deleted pod still run")
		}
	})
}

func TestKilledWhileStartingLeavesNoTwin(t *testing.T) {
	for _, method := range []string{"RunPodSandbox", "CreateContainer", "StartContainer", "ContainerStatus", "PodSandboxStatus"} {
		t.Run(method, func(t *testing.T) {
			onNode(t, func(t *testing.T, n *simNode) {
				n.after(time.Second)
				var once sync.Once
				hit := make(chan struct{})
				n.runtime.Intercept(func(ctx context.Context, call crifake.Call) error {
					if call.Method != method || call.PodUID != "uid-p" {
						return nil
					}
					first := false
					once.Do(func() { first = true; close(hit) })
					if first {
						<-ctx.Done()
					}
					return nil
				})
				n.create(simplePod("p"))
				<-hit
				n.stop()
				n.runtime.Intercept(nil)
				n.start()
				n.after(time.Minute)
				s := n.containerStatus("p")
				if n.runtime.Live("uid-p", "c") != 1 || s.State.Running == nil || s.RestartCount != 0 {
					t.Errorf("%d live, status %+v", n.runtime.Live("uid-p", "c"), s)
				}
			})
		})
	}
}

func TestRuntimeDownIsNoFailure(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.create(simplePod("p"))
		n.after(2 * time.Second)
		n.runtime.SetDown(true)
		n.after(5 * time.Minute)
		if s := n.get("p").Status; s.Phase != corev1.PodRunning {
			t.Errorf("phase %s", s.Phase)
		}
		node, err := n.client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status != corev1.ConditionFalse {
				t.Errorf("node Ready %+v", c)
			}
		}
		n.runtime.SetDown(false)
		n.after(time.Minute)
		if s := n.containerStatus("p"); s.RestartCount != 0 || n.runtime.Starts("uid-p", "c") != 1 {
			t.Errorf("after the runtime is back: %+v", s)
		}
	})
}

func TestEndWhileRuntimeDownIsSeenAfterwards(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.create(simplePod("p", "sleep", "30"))
		n.after(2 * time.Second)
		n.runtime.SetDown(true)
		n.after(time.Minute)
		n.runtime.SetDown(false)
		n.after(20 * time.Second)
		if s := n.containerStatus("p"); s.RestartCount != 1 || s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestHungRuntimeCallHoldsUpOnlyItsPod(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.runtime.Intercept(func(ctx context.Context, call crifake.Call) error {
			if call.Method == "RunPodSandbox" && call.PodUID == "uid-stuck" {
				<-ctx.Done()
				return status.FromContextError(ctx.Err()).Err()
			}
			return nil
		})
		n.create(simplePod("stuck"))
		n.create(simplePod("p"))
		n.after(2 * time.Second)
		if got := n.get("p").Status.Phase; got != corev1.PodRunning {
			t.Errorf("phase of the other pod %s", got)
		}
	})
}

func TestLostRepliesMakeNoTwins(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.after(time.Second)
		lost := map[string]int{}
		var mu sync.Mutex
		n.runtime.Lie(nil)
		n.runtime.Intercept(func(_ context.Context, call crifake.Call) error {
			mu.Lock()
			defer mu.Unlock()
			// the runtime did it, but the agent hears that it does not answer
			if (call.Method == "PodSandboxStatus" || call.Method == "ContainerStatus") && lost[call.Method] < 3 {
				lost[call.Method]++
				return status.Error(codes.DeadlineExceeded, "no answer")
			}
			return nil
		})
		n.create(simplePod("p"))
		n.after(time.Minute)
		if s := n.containerStatus("p"); s.State.Running == nil || s.RestartCount != 0 || n.runtime.Starts("uid-p", "c") != 1 {
			t.Errorf("started %d times, status %+v", n.runtime.Starts("uid-p", "c"), s)
		}
	})
}

func TestImagePullFailure(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		p := simplePod("p")
		p.Spec.Containers[0].Image = "fake/unreachable:1"
		n.create(p)
		n.create(simplePod("q"))
		n.after(time.Second)
		w := n.containerStatus("p").State.Waiting
		if w == nil || w.Reason != lifecycle.ReasonErrImagePull || !strings.Contains(w.Message, "ctl image pull fake/unreachable:1") || !strings.Contains(w.Message, "--egress") {
			t.Errorf("waiting %+v", w)
		}
		n.after(5 * time.Second)
		if w := n.containerStatus("p").State.Waiting; w == nil || w.Reason != lifecycle.ReasonImagePullBackOff {
			t.Errorf("waiting %+v", w)
		}
		if n.get("q").Status.Phase != corev1.PodRunning {
			t.Error("the other pod is held up")
		}
		n.after(10 * time.Minute)
		if got := n.runtime.Calls("PullImage"); got < 6 || got > 9 {
			t.Errorf("%d pulls in ten minutes", got)
		}
		if !n.sawEvent("Failed to pull image") {
			t.Error("no event")
		}
		n.remove("p", 30)
		n.after(time.Second)
		if n.exists("p") {
			t.Error("pod is still there")
		}
	})
}

func TestDeleteWhilePulling(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.runtime.Intercept(func(ctx context.Context, call crifake.Call) error {
			if call.Method == "PullImage" {
				<-ctx.Done()
				return status.FromContextError(ctx.Err()).Err()
			}
			return nil
		})
		n.create(simplePod("p"))
		n.after(time.Second)
		n.remove("p", 30)
		n.after(time.Second)
		if n.exists("p") || !n.runtime.Empty() {
			t.Error("the pod waits for its image to the end")
		}
	})
}

func TestCrashLoop(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.create(simplePod("p", "sh", "-c", "exit 3"))
		n.after(25 * time.Second)
		s := n.containerStatus("p")
		if s.RestartCount != 2 || s.State.Waiting == nil || s.State.Waiting.Reason != lifecycle.ReasonCrashLoopBackOff {
			t.Errorf("status %+v", s)
		}
		if s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 3 {
			t.Errorf("last state %+v", s.LastTerminationState)
		}
		n.stop() // the back-off survives the agent
		n.start()
		n.after(5 * time.Second)
		if got := n.runtime.Starts("uid-p", "c"); got != 3 {
			t.Errorf("%d starts", got)
		}
		if !n.sawEvent("Back-off restarting failed container") {
			t.Error("no BackOff event")
		}
	})
}

func TestStartError(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		p := simplePod("p", "no-such-program")
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		n.create(p)
		n.after(5 * time.Second)
		s := n.get("p").Status
		if s.Phase != corev1.PodFailed || s.ContainerStatuses[0].State.Terminated == nil || s.ContainerStatuses[0].State.Terminated.ExitCode != 128 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestMissingConfigMapWaitsAndGoesOn(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		p := simplePod("p")
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Key: "k"}}}}
		n.create(p)
		n.after(time.Second)
		if w := n.containerStatus("p").State.Waiting; w == nil || w.Reason != lifecycle.ReasonCreateContainerConfig {
			t.Fatalf("waiting %+v", w)
		}
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "cm"}, Data: map[string]string{"k": "v"}}
		if _, err := n.client.CoreV1().ConfigMaps("ns").Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		n.after(15 * time.Second)
		if got := n.get("p").Status.Phase; got != corev1.PodRunning {
			t.Errorf("phase %s", got)
		}
	})
}

func TestLivenessRestarts(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		p := simplePod("p")
		p.Spec.TerminationGracePeriodSeconds = new(int64)
		p.Spec.Containers[0].LivenessProbe = &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"false"}}},
			PeriodSeconds: 5, FailureThreshold: 1, TimeoutSeconds: 1, SuccessThreshold: 1,
		}
		n.create(p)
		n.after(30 * time.Second)
		if s := n.containerStatus("p"); s.RestartCount < 1 {
			t.Errorf("status %+v", s)
		}
		if !n.sawEvent("failed liveness probe, will be restarted") {
			t.Error("no Killing event")
		}
	})
}

func TestNodeOutOfCPU(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		for _, name := range []string{"a", "b"} {
			p := simplePod(name)
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3")}
			n.create(p)
			n.after(time.Second)
		}
		s := n.get("b").Status
		if s.Phase != corev1.PodFailed || s.Reason != "OutOfcpu" || !strings.Contains(s.Message, "requested: 3000, used: 3000, capacity: 4000") {
			t.Errorf("status %+v", s)
		}
		if n.get("a").Status.Phase != corev1.PodRunning || n.runtime.Starts("uid-b", "c") != 0 {
			t.Error("the wrong pod runs")
		}
	})
}

// TestUnknownExtendedResource: the agent may not have heard yet of a resource
// that somebody wrote into its Node's status.
func TestUnknownExtendedResource(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		for name, dongles := range map[corev1.ResourceName]string{"example.com/dongle": "1", "hugepages-2Mi": "2Mi"} {
			p := simplePod(strings.ToLower(string(name[:4])))
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{name: resource.MustParse(dongles)}
			n.create(p)
			n.after(time.Second)
		}
		if s := n.get("exam").Status; s.Phase != corev1.PodRunning {
			t.Errorf("a pod with an extended resource: %+v", s)
		}
		if s := n.get("huge").Status; s.Reason != "OutOfhugepages-2Mi" {
			t.Errorf("a pod with huge pages: %+v", s)
		}
	})
}

func TestRebootBringsPodsBack(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.create(simplePod("p"))
		n.after(2 * time.Second)
		n.stop()
		n.runtime.Reboot()
		n.start()
		n.after(time.Minute)
		s := n.get("p").Status
		if s.Phase != corev1.PodRunning || s.ContainerStatuses[0].RestartCount != 1 || s.PodIP == "" {
			t.Errorf("status %+v", s)
		}
	})
}

func TestMissedEventIsFoundByRelist(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.create(simplePod("p"))
		n.after(2 * time.Second)
		lying := true
		n.runtime.Lie(func(s *runtimeapi.ContainerStatus) {
			if lying { // the event's look is told that nothing happened
				s.State, s.FinishedAt = runtimeapi.ContainerState_CONTAINER_RUNNING, 0
			}
		})
		n.runtime.Exit("uid-p", "c", 1)
		n.after(5 * time.Second)
		n.runtime.Lie(nil)
		n.after(11 * time.Second)
		if s := n.containerStatus("p"); s.RestartCount != 1 {
			t.Errorf("status %+v", s)
		}
	})
}
