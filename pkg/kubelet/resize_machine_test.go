package kubelet

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/kubelet/crifake"
)

// change does what an API server does at a change of the pod's spec.
func (m *machine) change(name string, change func(*corev1.Pod)) {
	m.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		pod, err := m.client.CoreV1().Pods("ns").Get(m.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			m.t.Fatal(err)
		}
		change(pod)
		pod.Generation++
		if _, err = m.client.CoreV1().Pods("ns").Update(m.t.Context(), pod, metav1.UpdateOptions{}); err == nil {
			return
		}
		if time.Now().After(end) {
			m.t.Fatal(err)
		}
	}
}

// cgroup reads what limits the container c of a pod, as its own process sees
// it on a real machine: quota in microseconds per 100 ms, and memory in bytes.
func (m *machine) cgroup(pod *corev1.Pod) string {
	m.t.Helper()
	if simulated, ok := m.runtime.(*crifake.Runtime); ok {
		r := simulated.Resources(string(pod.UID), "c")
		return fmt.Sprint(r.GetCpuQuota(), " ", r.GetMemoryLimitInBytes())
	}
	_, id, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	const script = `cd /sys/fs/cgroup
if [ -f cpu.max ]; then echo $(cut -d' ' -f1 cpu.max) $(cat memory.max)
else echo $(cat cpu/cpu.cfs_quota_us) $(cat memory/memory.limit_in_bytes); fi`
	out, err := m.runtime.ExecSync(m.t.Context(), id, []string{"sh", "-c", script}, 10*time.Second)
	if err != nil || out.GetExitCode() != 0 {
		m.t.Fatalf("reading the cgroup: %v, %v", out, err)
	}
	return strings.TrimSpace(string(out.GetStdout()))
}

func TestMachineResizes(t *testing.T) {
	for kind, m := range machines(t) {
		t.Run(kind, func(t *testing.T) {
			m.start(t)
			p := machinePod("p", "sleep 1000", func(p *corev1.Pod) {
				p.Spec.RestartPolicy = corev1.RestartPolicyAlways
				p.Spec.Containers[0].Resources = amounts("100m - 32Mi -")
				p.Spec.Containers[0].ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: "cpu", RestartPolicy: corev1.NotRequired}}
				p.Spec.TerminationGracePeriodSeconds = new(int64)
			})
			m.create(p)
			m.wait("p", "running", isRunning)
			for i, tc := range []struct {
				to, cgroup string
				restarts   int32
				change     func(*corev1.Pod)
			}{
				{to: "100m 200m 32Mi 64Mi", cgroup: "20000 67108864"},
				{to: "200m 400m 64Mi 128Mi", cgroup: "40000 134217728"},
				{to: "100m 100m 32Mi 48Mi", cgroup: "10000 50331648"},
				{to: "100m 300m 32Mi 96Mi", cgroup: "30000 100663296", restarts: 1, change: func(p *corev1.Pod) {
					p.Spec.Containers[0].ResizePolicy[0].RestartPolicy = corev1.RestartContainer
				}},
			} {
				m.change("p", func(p *corev1.Pod) {
					p.Spec.Containers[0].Resources = amounts(tc.to)
					if tc.change != nil {
						tc.change(p)
					}
				})
				pod := m.wait("p", "resize to "+tc.to, func(pod *corev1.Pod) bool {
					s := pod.Status.ContainerStatuses[0]
					limits := amounts(tc.to).Limits
					return pod.Status.ObservedGeneration == int64(i+2) && s.State.Running != nil && s.RestartCount == tc.restarts &&
						s.Resources.Limits.Cpu().Cmp(*limits.Cpu()) == 0 && s.Resources.Limits.Memory().Cmp(*limits.Memory()) == 0 &&
						condition(&pod.Status, corev1.PodResizeInProgress) == nil && condition(&pod.Status, corev1.PodResizePending) == nil
				})
				if got := m.cgroup(pod); got != tc.cgroup {
					t.Errorf("resized to %s the container has %s, want %s", tc.to, got, tc.cgroup)
				}
			}
			m.remove("p", 0)
			m.empty()
			m.stop()
		})
	}
}
