package kubelet

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"

	"coracle/pkg/kubelet/crifake"
)

// TestMain takes the pause out of the client library's handling of errors: it
// remembers the real time of the last error, against which a bubble's virtual
// time lies decades in the past.
func TestMain(m *testing.M) {
	utilruntime.ErrorHandlers = utilruntime.ErrorHandlers[:1]
	os.Exit(m.Run())
}

// simNode is a simulated node inside a bubble of virtual time.
type simNode struct {
	t       *testing.T
	client  *fake.Clientset
	runtime *crifake.Runtime
	events  *record.FakeRecorder
	agent   *Kubelet
	cancel  context.CancelFunc
	done    sync.WaitGroup
	// faults of the API server, scripted by the test
	away, noPodLists, silentPodWatch atomic.Bool
	levels                           *levels // what is left of the node's resources; nil is not measured
	// checkpoints is where the agent remembers its pods, empty for nowhere.
	checkpoints string
	volumes     volumes // in place of the agent's own; nil leaves those
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// onNode runs a test against an agent over a fake API server and runtime.
func onNode(t *testing.T, test func(t *testing.T, n *simNode)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &simNode{t: t, client: fake.NewClientset(), runtime: crifake.New(crifake.Config{}), events: record.NewFakeRecorder(10000)}
		n.script()
		n.start()
		test(t, n)
		n.stop()
	})
}

// script puts the faults in place before anything runs: the fake server's list
// of reactions is not guarded.
func (n *simNode) script() {
	n.client.PrependReactor("*", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if n.away.Load() || n.noPodLists.Load() && a.Matches("list", "pods") {
			return true, nil, errors.New("connection refused")
		}
		return false, nil, nil
	})
	n.client.PrependWatchReactor("*", func(a clienttesting.Action) (bool, watch.Interface, error) {
		switch {
		case n.away.Load():
			return true, nil, errors.New("connection refused")
		case n.silentPodWatch.Load() && a.Matches("watch", "pods"):
			return true, watch.NewRaceFreeFake(), nil
		}
		return false, nil, nil
	})
}

func (n *simNode) start() {
	n.t.Helper()
	k, err := New(Config{
		NodeName: "n1", NodeIPs: []string{"192.0.2.1"}, Client: n.client, Runtime: n.runtime, Simulated: true, Events: n.events,
		Capacity: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110")},
		Log:      slog.New(slog.NewTextHandler(n.t.Output(), nil)),
	})
	if err != nil {
		n.t.Fatal(err)
	}
	k.remember(n.checkpoints)
	if n.volumes != nil {
		k.volumes = n.volumes
	}
	if n.levels != nil {
		k.measure = n.levels.read
	}
	ctx, cancel := context.WithCancel(n.t.Context())
	n.agent, n.cancel = k, cancel
	n.done.Go(func() {
		if err := k.Run(ctx); err != nil {
			n.t.Error(err)
		}
	})
}

func (n *simNode) stop() {
	n.cancel()
	n.done.Wait()
}

// after lets virtual time pass.
func (n *simNode) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (n *simNode) create(pod *corev1.Pod) {
	n.t.Helper()
	if _, err := n.client.CoreV1().Pods(pod.Namespace).Create(n.t.Context(), pod, metav1.CreateOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *simNode) get(name string) *corev1.Pod {
	n.t.Helper()
	pod, err := n.client.CoreV1().Pods("ns").Get(n.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	return pod
}

// remove does what an API server does at a delete request.
func (n *simNode) remove(name string, grace int64) {
	n.t.Helper()
	pod := n.get(name)
	now := metav1.Now()
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &now, &grace
	if _, err := n.client.CoreV1().Pods("ns").Update(n.t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *simNode) exists(name string) bool {
	_, err := n.client.CoreV1().Pods("ns").Get(n.t.Context(), name, metav1.GetOptions{})
	return err == nil
}

func simplePod(name string, command ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID("uid-" + name), Generation: 1}}
	p.Spec.NodeName = "n1"
	p.Spec.RestartPolicy = corev1.RestartPolicyAlways
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "img:1", Command: command}}
	return p
}

func TestPodRunsAndIsDeleted(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.after(time.Second)
		n.create(simplePod("p"))
		n.after(10 * time.Millisecond)
		pod := n.get("p")
		if pod.Status.Phase != corev1.PodRunning || pod.Status.PodIP == "" || !pod.Status.ContainerStatuses[0].Ready {
			t.Fatalf("status %+v", pod.Status)
		}
		n.remove("p", 30)
		n.after(time.Second)
		if n.exists("p") || !n.runtime.Empty() {
			t.Errorf("pod there: %v, runtime empty: %v", n.exists("p"), n.runtime.Empty())
		}
	})
}
