package kubelet

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"

	"coracle/pkg/kubelet/cri"
	"coracle/pkg/kubelet/crifake"
)

// machineImage must be on the real runtime, with sh and friends of busybox.
const machineImage = "docker.io/library/busybox:1"

// machine is an agent in real time, over the fake runtime or a real one.
type machine struct {
	t       testing.TB
	client  *fake.Clientset
	runtime cri.Runtime
	root    string
	real    bool
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// machines are those the cases run on: always the fake one, and the real one
// whose socket CORACLE_TEST_CRI names (it needs root and a namespace of its own).
func machines(t testing.TB) map[string]*machine {
	simulated := crifake.New(crifake.Config{})
	simulated.AddImage(machineImage)
	out := map[string]*machine{"fake": {runtime: simulated}}
	if endpoint := os.Getenv("CORACLE_TEST_CRI"); endpoint != "" {
		client, err := cri.Dial(cri.Config{Endpoint: endpoint})
		if err != nil {
			t.Fatal(err)
		}
		out["real"] = &machine{runtime: client, real: true}
	}
	for _, m := range out {
		m.client = fake.NewClientset(
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "cm"}, Data: map[string]string{"k": "from-configmap"}},
			&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "sec"}, Data: map[string][]byte{"k": []byte("from-secret")}},
			&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"},
				Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Name: "https", Port: 443}}}},
		)
		m.root = t.TempDir()
	}
	return out
}

func (m *machine) start(t testing.TB) {
	m.t = t
	var capacity corev1.ResourceList // a real machine is measured
	if !m.real {
		capacity = amounts("4 - 8Gi -").Requests
		capacity[corev1.ResourcePods] = resource.MustParse("110")
	}
	k, err := New(Config{
		NodeName: "n1", NodeIPs: []string{"10.88.0.1"}, Client: m.client, Runtime: m.runtime, Simulated: !m.real, Capacity: capacity,
		RootDir: filepath.Join(m.root, "kubelet"), LogDir: filepath.Join(m.root, "logs"), CgroupRoot: "/coracle-test",
		ClusterDNS: []string{"10.96.0.10"}, Events: record.NewFakeRecorder(100000), RelistEvery: time.Second,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	m.cancel = cancel
	m.done.Go(func() {
		if err := k.Run(ctx); err != nil {
			t.Error(err)
		}
	})
}

func (m *machine) stop() {
	m.cancel()
	m.done.Wait()
}

// wait waits until ok holds for the pod.
func (m *machine) wait(name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	m.t.Helper()
	var pod *corev1.Pod
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		var err error
		if pod, err = m.client.CoreV1().Pods("ns").Get(m.t.Context(), name, metav1.GetOptions{}); err == nil && ok(pod) {
			return pod
		}
	}
	m.t.Fatalf("%s: waiting for %s in vain; status %+v", name, what, pod.Status)
	return nil
}

func (m *machine) create(pod *corev1.Pod) {
	m.t.Helper()
	if _, err := m.client.CoreV1().Pods("ns").Create(m.t.Context(), pod, metav1.CreateOptions{}); err != nil {
		m.t.Fatal(err)
	}
}

// remove deletes a pod with a grace, as an API server does, and waits until it
// is gone. It returns how long that took.
func (m *machine) remove(name string, grace int64) time.Duration {
	m.t.Helper()
	begin := time.Now()
	for {
		pod, err := m.client.CoreV1().Pods("ns").Get(m.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			break
		}
		now := metav1.Now()
		pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &now, &grace
		if _, err := m.client.CoreV1().Pods("ns").Update(m.t.Context(), pod, metav1.UpdateOptions{}); err == nil {
			break
		}
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, err := m.client.CoreV1().Pods("ns").Get(m.t.Context(), name, metav1.GetOptions{}); err != nil {
			return time.Since(begin)
		}
	}
	m.t.Fatalf("pod %s does not go", name)
	return 0
}

func machinePod(name, script string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", Generation: 1,
		UID: types.UID(fmt.Sprintf("%s-%d", name, time.Now().UnixNano()))}}
	p.Spec.NodeName = "n1"
	p.Spec.RestartPolicy = corev1.RestartPolicyNever
	p.Spec.DNSPolicy = corev1.DNSClusterFirst
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: machineImage, Command: []string{"sh", "-c", script}}}
	for _, f := range change {
		f(p)
	}
	return p
}

func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func isRunning(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodRunning }

// machineCase is a pod that runs to its end, and what it must leave.
type machineCase struct {
	name    string
	script  string
	change  func(*corev1.Pod)
	phase   corev1.PodPhase
	exit    int32
	reason  string
	message string // termination message, on real machines only
	real    bool   // needs real containers
}

func machineCases() []machineCase {
	i64 := func(n int64) *int64 { return &n }
	no, yes := false, true
	security := func(sc corev1.SecurityContext) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext = &sc }
	}
	mount := func(source corev1.VolumeSource, m corev1.VolumeMount) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			m.Name = "v"
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: source}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{m}
		}
	}
	const tell = " > /dev/termination-log"
	return []machineCase{
		{name: "success", script: "exit 0", phase: corev1.PodSucceeded, reason: "Completed"},
		{name: "failure", script: "exit 3", phase: corev1.PodFailed, exit: 3, reason: "Error"},
		{name: "message", script: "echo bye" + tell, phase: corev1.PodSucceeded, message: "bye\n"},
		{name: "message-from-log", script: "echo out; sleep 0.2; echo err 1>&2; exit 1", phase: corev1.PodFailed, exit: 1, message: "out\nerr\n", real: true,
			change: func(p *corev1.Pod) {
				p.Spec.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
			}},
		{name: "message-path", script: "echo hi > /tmp/m", phase: corev1.PodSucceeded, message: "hi\n", real: true, change: func(p *corev1.Pod) {
			p.Spec.Containers[0].TerminationMessagePath = "/tmp/m"
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: i64(1000)}
		}},
		{name: "run-as-user", script: "echo $(id -u) $(id -g)" + tell, phase: corev1.PodSucceeded, message: "1001 2002\n", real: true,
			change: security(corev1.SecurityContext{RunAsUser: i64(1001), RunAsGroup: i64(2002)})},
		{name: "pod-groups", script: "id -G" + tell, phase: corev1.PodSucceeded, message: "2002 3003\n", real: true, change: func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: i64(1001), RunAsGroup: i64(2002), FSGroup: i64(3003)}
		}},
		{name: "non-root-refused", script: "true", real: true, phase: corev1.PodPending, change: security(corev1.SecurityContext{RunAsNonRoot: &yes})},
		{name: "read-only-root", script: "touch /x && exit 9; exit 0", phase: corev1.PodSucceeded, real: true,
			change: security(corev1.SecurityContext{ReadOnlyRootFilesystem: &yes})},
		{name: "writable-root", script: "touch /x || exit 9", phase: corev1.PodSucceeded, real: true,
			change: security(corev1.SecurityContext{ReadOnlyRootFilesystem: &no})},
		{name: "no-new-privileges", script: "grep NoNewPrivs /proc/self/status | tail -c 2" + tell, phase: corev1.PodSucceeded, message: "1\n", real: true,
			change: security(corev1.SecurityContext{AllowPrivilegeEscalation: &no})},
		{name: "unprivileged", script: "mount -t tmpfs x /tmp && exit 9; exit 0", phase: corev1.PodSucceeded, real: true,
			change: security(corev1.SecurityContext{Privileged: &no})},
		{name: "dropped-capabilities", script: "grep CapEff /proc/self/status" + tell, phase: corev1.PodSucceeded, message: "CapEff:\t0000000000000400\n", real: true,
			change: security(corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_BIND_SERVICE"}, Drop: []corev1.Capability{"ALL"}}})},
		{name: "sysctl", script: "cat /proc/sys/kernel/shm_rmid_forced" + tell, phase: corev1.PodSucceeded, message: "1\n", real: true, change: func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.shm_rmid_forced", Value: "1"}}}
		}},
		{name: "environment", script: "echo $A $B $C $KUBERNETES_SERVICE_HOST" + tell, phase: corev1.PodSucceeded, message: "from-configmap from-secret a-a-environment 10.96.0.1\n", real: true,
			change: func(p *corev1.Pod) {
				p.Spec.Containers[0].Env = []corev1.EnvVar{
					{Name: "A", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Key: "k"}}},
					{Name: "B", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}, Key: "k"}}},
					{Name: "N", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.name"}}},
					{Name: "C", Value: "a-$(N)"},
				}
			}},
		{name: "configmap-volume", script: "cat /v/k" + tell, phase: corev1.PodSucceeded, message: "from-configmap", real: true,
			change: mount(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}, corev1.VolumeMount{MountPath: "/v"})},
		{name: "secret-volume", script: "cat /v/k" + tell, phase: corev1.PodSucceeded, message: "from-secret", real: true,
			change: mount(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "sec"}}, corev1.VolumeMount{MountPath: "/v"})},
		{name: "empty-dir", script: "echo x > /v/f && cat /v/f" + tell, phase: corev1.PodSucceeded, message: "x\n", real: true,
			change: mount(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}, corev1.VolumeMount{MountPath: "/v", SubPath: "deep/er"})},
		{name: "hosts", script: "head -1 /etc/hosts" + tell, phase: corev1.PodSucceeded, message: "# Kubernetes-managed hosts file.\n", real: true},
		{name: "resolver", script: "grep nameserver /etc/resolv.conf" + tell, phase: corev1.PodSucceeded, message: "nameserver 10.96.0.10\n", real: true},
		{name: "hostname", script: "hostname" + tell, phase: corev1.PodSucceeded, message: "a-hostname\n", real: true},
		{name: "arguments", phase: corev1.PodSucceeded, message: "one-two\n", real: true, change: func(p *corev1.Pod) {
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "X", Value: "one"}}
			p.Spec.Containers[0].Command, p.Spec.Containers[0].Args = []string{"sh", "-c"}, []string{"echo $(X)-two" + tell}
		}},
		{name: "init", script: "cat /v/f" + tell, phase: corev1.PodSucceeded, message: "made\n", real: true, change: func(p *corev1.Pod) {
			mount(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}, corev1.VolumeMount{MountPath: "/v"})(p)
			p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: machineImage, Command: []string{"sh", "-c", "echo made > /v/f"},
				VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}}}
		}},
		{name: "post-start", script: "sleep 0.5; cat /tmp/hooked" + tell, phase: corev1.PodSucceeded, message: "yes\n", real: true, change: func(p *corev1.Pod) {
			p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "echo yes > /tmp/hooked"}}}}
		}},
		{name: "out-of-memory", script: "tail /dev/zero", phase: corev1.PodFailed, exit: 137, reason: "OOMKilled", real: true, change: func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("32Mi")}
			p.Spec.Containers[0].Resources.Requests = p.Spec.Containers[0].Resources.Limits
		}},
		{name: "shared-processes", script: "ps | grep -c ' [/]pause'" + tell, phase: corev1.PodSucceeded, message: "1\n", real: true,
			change: func(p *corev1.Pod) { p.Spec.ShareProcessNamespace = &yes }},
		{name: "host-network", script: "ls /sys/class/net | grep -c cni0" + tell, phase: corev1.PodSucceeded, message: "1\n", real: true,
			change: func(p *corev1.Pod) { p.Spec.HostNetwork = true }},
	}
}

func TestMachineRunsPodsToTheirEnd(t *testing.T) {
	for kind, m := range machines(t) {
		t.Run(kind, func(t *testing.T) {
			m.start(t)
			defer m.stop()
			for _, tc := range machineCases() {
				if tc.real && !m.real {
					continue
				}
				t.Run(tc.name, func(t *testing.T) {
					m.t = t
					p := machinePod("a-"+tc.name, tc.script)
					if tc.change != nil {
						tc.change(p)
					}
					m.create(p)
					if tc.phase == corev1.PodPending {
						m.wait(p.Name, "a configuration error", func(pod *corev1.Pod) bool {
							s := pod.Status.ContainerStatuses
							return len(s) > 0 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CreateContainerConfigError"
						})
						m.remove(p.Name, 0)
						return
					}
					pod := m.wait(p.Name, "its end", ended)
					end := pod.Status.ContainerStatuses[0].State.Terminated
					if pod.Status.Phase != tc.phase || end == nil || end.ExitCode != tc.exit || tc.reason != "" && end.Reason != tc.reason {
						t.Fatalf("phase %s, state %+v", pod.Status.Phase, pod.Status.ContainerStatuses[0].State)
					}
					if m.real && tc.message != "" && end.Message != tc.message {
						t.Errorf("message %q, want %q", end.Message, tc.message)
					}
					m.remove(p.Name, 0)
				})
			}
			m.t = t
			m.empty()
		})
	}
}

// empty checks that nothing of any pod is left.
func (m *machine) empty() {
	m.t.Helper()
	end := time.Now().Add(10 * time.Second)
	for {
		sandboxes, err := m.runtime.ListPodSandbox(m.t.Context(), nil)
		if err == nil && len(sandboxes) == 0 {
			break
		}
		if time.Now().After(end) {
			m.t.Errorf("sandboxes left: %v, %v", sandboxes, err)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !m.real {
		return
	}
	for _, pattern := range []string{
		filepath.Join(m.root, "kubelet/pods/*"), filepath.Join(m.root, "logs/*"), filepath.Join(m.root, "kubelet/desired/*"),
		"/sys/fs/cgroup/*/coracle-test/*/pod*", "/sys/fs/cgroup/*/coracle-test/pod*",
	} {
		for time.Now().Before(end) {
			if left, _ := filepath.Glob(pattern); len(left) == 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			m.t.Errorf("left over: %v", left)
		}
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), filepath.Join(m.root, "kubelet/pods")) {
		m.t.Errorf("mounts are left, or unreadable: %v", err)
	}
}

func TestMachineStopsGracefully(t *testing.T) {
	for kind, m := range machines(t) {
		t.Run(kind, func(t *testing.T) {
			m.start(t)
			defer m.stop()
			m.create(machinePod("polite", "trap 'exit 0' TERM; sleep 1000 & wait"))
			m.wait("polite", "running", isRunning)
			if took := m.remove("polite", 30); took > 5*time.Second {
				t.Errorf("a polite container took %v", took)
			}
			m.create(machinePod("stubborn", "trap '' TERM; sleep 1000"))
			m.wait("stubborn", "running", isRunning)
			if took := m.remove("stubborn", 2); took < 2*time.Second || took > 5*time.Second {
				t.Errorf("a stubborn container with two seconds' grace took %v", took)
			}
			m.empty()
		})
	}
}

func TestMachineAdoptsAndRestarts(t *testing.T) {
	for kind, m := range machines(t) {
		t.Run(kind, func(t *testing.T) {
			m.start(t)
			p := machinePod("p", "sleep 1000", func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyAlways })
			m.create(p)
			before := m.wait("p", "running", isRunning).Status.ContainerStatuses[0]
			m.stop()
			m.start(t)
			m.create(machinePod("q", "sleep 0.2"))
			m.wait("q", "its end", ended)
			if now := m.wait("p", "running", isRunning).Status.ContainerStatuses[0]; now.ContainerID != before.ContainerID || now.RestartCount != 0 {
				t.Errorf("before %+v, now %+v", before, now)
			}
			id := strings.TrimPrefix(before.ContainerID[strings.Index(before.ContainerID, "://"):], "://")
			if err := m.runtime.StopContainer(t.Context(), id, 0); err != nil {
				t.Fatal(err)
			}
			m.wait("p", "a restart", func(pod *corev1.Pod) bool {
				s := pod.Status.ContainerStatuses[0]
				return s.RestartCount == 1 && s.State.Running != nil && s.LastTerminationState.Terminated != nil
			})
			m.remove("p", 0)
			m.remove("q", 0)
			m.empty()
			m.stop()
		})
	}
}
