package kubelet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cri"
)

// BenchmarkPodStart measures from the creation of a pod to Running as a watcher
// sees it, and in turn the same container made by bare calls to the runtime.
// The last figures are medians in milliseconds.
func BenchmarkPodStart(b *testing.B) {
	for kind, m := range benchMachines(b) {
		b.Run(kind, func(b *testing.B) {
			seen, err := m.client.CoreV1().Pods("ns").Watch(b.Context(), metav1.ListOptions{})
			if err != nil {
				b.Fatal(err)
			}
			defer seen.Stop()
			var agent, bare []time.Duration
			for i := 0; b.Loop(); i++ {
				name := fmt.Sprintf("p%d", i)
				begin := time.Now()
				m.create(machinePod(name, "sleep 1000"))
				waitRunning(seen, name)
				agent = append(agent, time.Since(begin))
				bare = append(bare, m.bareStart(b, i))
				m.remove(name, 0)
				m.quiet(b)
			}
			b.ReportMetric(float64(median(agent).Microseconds())/1000, "agent-ms")
			b.ReportMetric(float64(median(bare).Microseconds())/1000, "bare-ms")
		})
	}
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

func waitRunning(seen watch.Interface, name string) {
	for e := range seen.ResultChan() {
		if pod, ok := e.Object.(*corev1.Pod); ok && pod.Name == name && pod.Status.Phase == corev1.PodRunning {
			return
		}
	}
}

// quiet waits until the runtime has nothing left to do for earlier pods.
func (m *machine) quiet(b *testing.B) {
	for {
		left, err := m.runtime.ListPodSandbox(b.Context(), nil)
		if err != nil {
			b.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// bareStart makes and removes a sandbox with one container, and returns the
// time until it runs.
func (m *machine) bareStart(b *testing.B, i int) time.Duration {
	ctx := b.Context()
	pod := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: fmt.Sprint("bare", i), Namespace: "ns", Uid: fmt.Sprint("bare", i, time.Now().UnixNano())},
		Linux:    &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{}},
	}
	begin := time.Now()
	sandbox, err := m.runtime.RunPodSandbox(ctx, pod, "")
	if err != nil {
		b.Fatal(err)
	}
	id, err := m.runtime.CreateContainer(ctx, sandbox, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: machineImage},
		Command: []string{"sh", "-c", "sleep 1000"}, Linux: &runtimeapi.LinuxContainerConfig{},
		Labels: map[string]string{cri.LabelContainerName: "c"},
	}, pod)
	if err != nil {
		b.Fatal(err)
	}
	if err := m.runtime.StartContainer(ctx, id); err != nil {
		b.Fatal(err)
	}
	took := time.Since(begin)
	if err := m.runtime.StopPodSandbox(ctx, sandbox); err != nil {
		b.Fatal(err)
	}
	if err := m.runtime.RemovePodSandbox(ctx, sandbox); err != nil {
		b.Fatal(err)
	}
	return took
}

func benchMachines(b *testing.B) map[string]*machine {
	out := machines(b)
	for kind, m := range out {
		if strings.HasPrefix(kind, "fake") && len(out) > 1 {
			delete(out, kind)
			continue
		}
		m.start(b)
		b.Cleanup(m.stop)
	}
	return out
}
