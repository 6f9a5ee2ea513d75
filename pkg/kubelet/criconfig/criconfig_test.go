package criconfig

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cri"
)

func p[T any](v T) *T { return &v }

func testPod(change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u", Labels: map[string]string{"a": "b"}}}
	pod.Spec.Containers = []corev1.Container{{Name: "c", Image: "img:1"}}
	for _, f := range change {
		f(pod)
	}
	return pod
}

func TestSandbox(t *testing.T) {
	pod := testPod(func(pod *corev1.Pod) {
		pod.Spec.ShareProcessNamespace = p(true)
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{
			RunAsUser: p(int64(7)), FSGroup: p(int64(9)), SupplementalGroups: []int64{8}, Sysctls: []corev1.Sysctl{{Name: "kernel/shm_rmid_forced", Value: "1"}},
		}
		pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080, Protocol: corev1.ProtocolUDP}, {ContainerPort: 81}}
	})
	got := Sandbox(SandboxInput{Pod: pod, Attempt: 2, Hostname: "h", LogRoot: "/logs", CgroupParent: "/k/podu"})
	want := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "ns", Uid: "u", Attempt: 2},
		Hostname: "h", LogDirectory: "/logs/ns_p_u",
		PortMappings: []*runtimeapi.PortMapping{{Protocol: runtimeapi.Protocol_UDP, ContainerPort: 80, HostPort: 8080}},
		Labels:       map[string]string{"a": "b", cri.LabelPodName: "p", cri.LabelPodNamespace: "ns", cri.LabelPodUID: "u"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: "/k/podu", Sysctls: map[string]string{"kernel.shm_rmid_forced": "1"},
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions:   &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_POD},
				RunAsUser:          &runtimeapi.Int64Value{Value: 7},
				SupplementalGroups: []int64{8, 9},
				Seccomp:            &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined},
			},
		},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if len(pod.Labels) != 1 {
		t.Errorf("the pod's own labels were changed: %v", pod.Labels)
	}
}

func TestHostNamespaces(t *testing.T) {
	pod := testPod(func(pod *corev1.Pod) {
		pod.Spec.HostNetwork, pod.Spec.HostIPC, pod.Spec.HostPID = true, true, true
		pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}}
	})
	got := Sandbox(SandboxInput{Pod: pod})
	ns := got.Linux.SecurityContext.NamespaceOptions
	if ns.Network != runtimeapi.NamespaceMode_NODE || ns.Ipc != runtimeapi.NamespaceMode_NODE || ns.Pid != runtimeapi.NamespaceMode_NODE || len(got.PortMappings) > 0 {
		t.Errorf("%v", got)
	}
}

func TestSandboxIsConfinedBesideConfinedContainers(t *testing.T) {
	pod := testPod(func(pod *corev1.Pod) {
		pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
	})
	if got := Sandbox(SandboxInput{Pod: pod}).Linux.SecurityContext.Seccomp.ProfileType; got != runtimeapi.SecurityProfile_RuntimeDefault {
		t.Errorf("profile %v", got)
	}
}

func input(pod *corev1.Pod) ContainerInput {
	return ContainerInput{Pod: pod, Spec: &pod.Spec.Containers[0], Attempt: 3, Delay: 10 * time.Second, Sandbox: "s",
		Image: &runtimeapi.Image{Id: "sha256:1"}, Env: []*runtimeapi.KeyValue{{Key: "X", Value: []byte("y")}}, SeccompRoot: "/seccomp",
		Node: NodeFacts{MemoryBytes: 16 << 30, OOMFloor: -1000}}
}

func TestContainer(t *testing.T) {
	pod := testPod(func(pod *corev1.Pod) {
		c := &pod.Spec.Containers[0]
		c.Command, c.Args, c.WorkingDir, c.TTY = []string{"run", "$(X)"}, []string{"$(Y)"}, "/w", true
		c.SecurityContext = &corev1.SecurityContext{
			RunAsGroup: p(int64(5)), AllowPrivilegeEscalation: p(false), ReadOnlyRootFilesystem: p(true),
			Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"CAP_NET_ADMIN"}, Drop: []corev1.Capability{"ALL"}},
		}
		c.Lifecycle = &corev1.Lifecycle{StopSignal: p(corev1.SIGRTMINPLUS1)}
	})
	got, err := Container(input(pod))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"run", "y", "$(Y)"}, append(got.Command, got.Args...)); diff != "" {
		t.Error(diff)
	}
	sc := got.Linux.SecurityContext
	if !sc.NoNewPrivs || !sc.ReadonlyRootfs || sc.RunAsGroup.Value != 5 || sc.RunAsUser.GetValue() != 0 || sc.RunAsUser == nil ||
		sc.Capabilities.AddCapabilities[0] != "NET_ADMIN" || len(sc.MaskedPaths) == 0 {
		t.Errorf("security %v", sc)
	}
	if got.LogPath != "c/3.log" || got.WorkingDir != "/w" || !got.Tty || got.StopSignal != runtimeapi.Signal_SIGNAL_SIGRTMINPLUS1 ||
		got.Image.Image != "sha256:1" || got.Image.UserSpecifiedImage != "img:1" {
		t.Errorf("config %v", got)
	}
	for key, want := range map[string]string{
		cri.AnnotationRestartCount: "3", cri.AnnotationDelay: "10s", cri.AnnotationSandbox: "s", cri.AnnotationMessagePath: "/dev/termination-log",
		cri.AnnotationMessagePolicy: "File",
	} {
		if got.Annotations[key] != want {
			t.Errorf("annotation %s is %q, want %q", key, got.Annotations[key], want)
		}
	}
}

func TestNonRoot(t *testing.T) {
	for _, tc := range []struct {
		name  string
		user  *int64
		image *runtimeapi.Image
		err   string
	}{
		{"user given", p(int64(5)), &runtimeapi.Image{}, ""},
		{"root given", p(int64(0)), &runtimeapi.Image{}, "breaks non-root policy"},
		{"image says nobody", nil, &runtimeapi.Image{}, "image will run as root"},
		{"image says root", nil, &runtimeapi.Image{Uid: &runtimeapi.Int64Value{}}, "image will run as root"},
		{"image says a number", nil, &runtimeapi.Image{Uid: &runtimeapi.Int64Value{Value: 5}}, ""},
		{"image says a name", nil, &runtimeapi.Image{Username: "www"}, "non-numeric user (www)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pod := testPod(func(pod *corev1.Pod) {
				pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: p(true), RunAsUser: tc.user}
			})
			in := input(pod)
			in.Image = tc.image
			_, err := Container(in)
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
		})
	}
}

func TestResources(t *testing.T) {
	q := resource.MustParse
	guaranteed := corev1.ResourceList{corev1.ResourceCPU: q("500m"), corev1.ResourceMemory: q("1Gi")}
	for _, tc := range []struct {
		name                 string
		r                    corev1.ResourceRequirements
		floor                int64
		shares, quota, score int64
	}{
		{"best effort", corev1.ResourceRequirements{}, -1000, 2, 0, 1000},
		{"guaranteed", corev1.ResourceRequirements{Requests: guaranteed, Limits: guaranteed}, -1000, 512, 50000, -997},
		{"guaranteed, without the capability", corev1.ResourceRequirements{Requests: guaranteed, Limits: guaranteed}, 0, 512, 50000, 0},
		{"burstable", corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceMemory: q("4Gi")}}, -1000, 2, 0, 750},
		{"burstable, nearly all", corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceMemory: q("16Gi")}}, -1000, 2, 0, 3},
		{"limit without request", corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceCPU: q("5m")}}, -1000, 5, 1000, 999},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pod := testPod(func(pod *corev1.Pod) { pod.Spec.Containers[0].Resources = tc.r })
			got := Resources(pod, &pod.Spec.Containers[0], NodeFacts{MemoryBytes: 16 << 30, OOMFloor: tc.floor})
			if got.CpuShares != tc.shares || got.CpuQuota != tc.quota || got.OomScoreAdj != tc.score {
				t.Errorf("%v", got)
			}
		})
	}
}

func FuzzMadeWith(f *testing.F) {
	f.Add(`{"requests":{"cpu":"100m"},"limits":{"memory":"1Gi"}}`)
	f.Add(`{"requests":{"cpu":"x"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		r := MadeWith(map[string]string{cri.AnnotationResources: text})
		if r == nil {
			return
		}
		spec := &corev1.Container{Resources: *r}
		again := MadeWith(containerAnnotations(ContainerInput{Pod: &corev1.Pod{}, Spec: spec}))
		if len(text) < maxResources/4 && (again == nil || !apiequality.Semantic.DeepEqual(r, again)) {
			t.Errorf("%+v becomes %+v", r, again)
		}
	})
}

func TestLocalhostSeccompStaysInItsFolder(t *testing.T) {
	for profile, ok := range map[string]bool{"a/b.json": true, "../x": false, "/etc/passwd": false, "": false} {
		pod := testPod(func(pod *corev1.Pod) {
			pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{
				Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &profile}}
		})
		got, err := Container(input(pod))
		if (err == nil) != ok || ok && got.Linux.SecurityContext.Seccomp.LocalhostRef != "/seccomp/"+profile {
			t.Errorf("%q: %v, %v", profile, got, err)
		}
	}
}
