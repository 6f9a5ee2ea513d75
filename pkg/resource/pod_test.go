package resource

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestPodCreate(t *testing.T) {
	c0 := "spec.containers[0]."
	testCreate(t, pods(), []change[*corev1.Pod]{
		{"no containers", func(p *corev1.Pod) { p.Spec.Containers = nil }, errs("Required spec.containers")},
		{"no name", func(p *corev1.Pod) { p.Spec.Containers[0].Name = "" }, errs("Required " + c0 + "name")},
		{"bad name", func(p *corev1.Pod) { p.Spec.Containers[0].Name = "A_b" }, errs("Invalid " + c0 + "name")},
		{"name twice", func(p *corev1.Pod) { p.Spec.InitContainers[0].Name = "web" }, errs("Duplicate spec.initContainers[0].name")},
		{"no image", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "" }, errs("Required " + c0 + "image")},
		{"padded image", func(p *corev1.Pod) { p.Spec.Containers[0].Image = " nginx" }, errs("Invalid " + c0 + "image")},
		{"pull policy", func(p *corev1.Pod) { p.Spec.Containers[0].ImagePullPolicy = "Often" }, errs("NotSupported " + c0 + "imagePullPolicy")},
		{"restart policy", func(p *corev1.Pod) { p.Spec.RestartPolicy = "Maybe" }, errs("NotSupported spec.restartPolicy")},
		{"port", func(p *corev1.Pod) { p.Spec.HostNetwork = false; p.Spec.Containers[0].Ports[0].ContainerPort = 70000 },
			errs("Invalid " + c0 + "ports[0].containerPort")},
		{"no port", func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].ContainerPort = 0 }, errs("Required " + c0 + "ports[0].containerPort")},
		{"host port", func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].HostPort = 81 }, errs("Invalid " + c0 + "ports[0].hostPort")},
		{"protocol", func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].Protocol = "ICMP" }, errs("NotSupported " + c0 + "ports[0].protocol")},
		{"env name", func(p *corev1.Pod) { p.Spec.Containers[0].Env[0].Name = "a=b" }, errs("Invalid " + c0 + "env[0].name")},
		{"env both", func(p *corev1.Pod) { p.Spec.Containers[0].Env[0].Value = "x" }, errs("Invalid " + c0 + "env[0].valueFrom")},
		{"env from nothing", func(p *corev1.Pod) { p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{}} }, errs("Invalid " + c0 + "envFrom")},
		{"field path", func(p *corev1.Pod) { p.Spec.Containers[0].Env[0].ValueFrom.FieldRef.FieldPath = "spec.nothing" },
			errs("Invalid " + c0 + "env[0].valueFrom.fieldRef.fieldPath")},
		{"label path", func(p *corev1.Pod) {
			p.Spec.Containers[0].Env[0].ValueFrom.FieldRef.FieldPath = "metadata.labels['app']"
		}, nil},
		{"mount of nothing", func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts[0].Name = "no" }, errs("NotFound " + c0 + "volumeMounts[0].name")},
		{"mount twice", func(p *corev1.Pod) {
			c := &p.Spec.Containers[0]
			c.VolumeMounts = append(c.VolumeMounts, c.VolumeMounts[0])
		}, errs("Invalid " + c0 + "volumeMounts[1].mountPath")},
		{"sub path", func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts[0].SubPath = "a/../b" }, errs("Invalid " + c0 + "volumeMounts.subPath")},
		{"request above limit", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("2")
		}, errs("Invalid " + c0 + "resources.requests")},
		{"negative", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("-1")
		}, errs("Invalid " + c0 + "resources.requests[cpu]")},
		{"unknown resource", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits["gold"] = resource.MustParse("1")
		}, errs("Invalid "+c0+"resources.limits[gold]", "Invalid "+c0+"resources.requests[gold]")},
		{"extended resource in parts", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits["example.com/gold"] = resource.MustParse("500m")
		}, errs("Invalid "+c0+"resources.limits[example.com/gold]", "Invalid "+c0+"resources.requests[example.com/gold]")},
		{"two handlers", func(p *corev1.Pod) {
			p.Spec.Containers[0].LivenessProbe.Exec = &corev1.ExecAction{Command: []string{"true"}}
		}, errs("Forbidden " + c0 + "livenessProbe.httpGet")},
		{"no handler", func(p *corev1.Pod) { p.Spec.Containers[0].LivenessProbe.HTTPGet = nil }, errs("Required " + c0 + "livenessProbe")},
		{"probe port", func(p *corev1.Pod) { p.Spec.Containers[0].LivenessProbe.HTTPGet.Port = intstr.FromString("-") },
			errs("Invalid " + c0 + "livenessProbe.httpGet.port")},
		{"success threshold", func(p *corev1.Pod) { p.Spec.Containers[0].LivenessProbe.SuccessThreshold = 2 },
			errs("Invalid " + c0 + "livenessProbe.successThreshold")},
		{"probe of an init container", func(p *corev1.Pod) { p.Spec.InitContainers[0].ReadinessProbe = &corev1.Probe{} },
			errs("Forbidden spec.initContainers[0].readinessProbe")},
		{"probe of a sidecar", func(p *corev1.Pod) {
			p.Spec.InitContainers[0].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
			p.Spec.InitContainers[0].ReadinessProbe = p.Spec.Containers[0].ReadinessProbe
		}, nil},
		{"two volume types", func(p *corev1.Pod) {
			p.Spec.Volumes[0].HostPath = p.Spec.Volumes[1].HostPath
			p.Spec.Volumes[0].EmptyDir = &corev1.EmptyDirVolumeSource{}
		},
			errs("Forbidden spec.volumes[0].emptyDir")},
		{"volume twice", func(p *corev1.Pod) { p.Spec.Volumes[1].Name = "scratch" }, errs("Duplicate spec.volumes[1].name")},
		{"no secret name", func(p *corev1.Pod) { p.Spec.Volumes[2].Secret.SecretName = "" }, errs("Required spec.volumes[2].secret.secretName")},
		{"mode", func(p *corev1.Pod) { p.Spec.Volumes[2].Secret.DefaultMode = new(int32(01000)) }, errs("Invalid spec.volumes[2].secret.defaultMode")},
		{"item path", func(p *corev1.Pod) {
			p.Spec.Volumes[3].ConfigMap.Items = []corev1.KeyToPath{{Key: "a", Path: "../a"}}
		}, errs("Invalid spec.volumes[3].configMap.items[0].path")},
		{"token time", func(p *corev1.Pod) {
			p.Spec.Volumes[5].Projected.Sources[0].ServiceAccountToken.ExpirationSeconds = new(int64(1))
		}, errs("Invalid spec.volumes[5].projected.sources[0].serviceAccountToken.expirationSeconds")},
		{"host path", func(p *corev1.Pod) { p.Spec.Volumes[1].HostPath.Path = "/a/../b" }, errs("Invalid spec.volumes[1].hostPath.path")},
		{"deadline", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = new(int64(0)) }, errs("Invalid spec.activeDeadlineSeconds")},
		{"dns policy", func(p *corev1.Pod) { p.Spec.DNSPolicy = "None" }, errs("Required spec.dnsConfig")},
		{"node selector", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a b": "c"} }, errs("Invalid spec.nodeSelector")},
		{"toleration", func(p *corev1.Pod) { p.Spec.Tolerations[0].Operator = "Like" }, errs("NotSupported spec.tolerations[0].operator")},
		{"toleration seconds", func(p *corev1.Pod) { p.Spec.Tolerations[0].TolerationSeconds = new(int64(1)) }, errs("Invalid spec.tolerations[0].effect")},
		{"spread", func(p *corev1.Pod) { p.Spec.TopologySpreadConstraints[0].MaxSkew = 0 }, errs("Invalid spec.topologySpreadConstraints[0].maxSkew")},
		{"affinity", func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{}}}
		}, errs("Required spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms")},
		{"sysctls", func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "foo-"}, {Name: "kernel.shmmax"}, {Name: "bar.."}}}
		}, errs("Invalid spec.securityContext.sysctls[0].name", "Invalid spec.securityContext.sysctls[2].name")},
		{"privilege", func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: new(true), AllowPrivilegeEscalation: new(false)}
		}, errs("Invalid " + c0 + "securityContext")},
		{"gated and bound", func(p *corev1.Pod) {
			p.Spec.NodeName = "n1"
			p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}}
		},
			errs("Forbidden spec.nodeName")},
		{"ephemeral", func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e", Image: "e"}}}
		}, errs("Forbidden spec.ephemeralContainers")},
		{"device claim", func(p *corev1.Pod) { p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}} }, errs("Invalid spec.resourceClaims[0]")},
		{"claim of a container", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "gpu"}}
		}, errs("NotFound " + c0 + "resources.claims[0]")},
		{"host alias", func(p *corev1.Pod) { p.Spec.HostAliases = []corev1.HostAlias{{IP: "x"}} }, errs("Invalid spec.hostAliases[0].ip")},
		{"priority class", func(p *corev1.Pod) { p.Spec.PriorityClassName = "A!" }, errs("Invalid spec.priorityClassName")},
	})
}

func TestPodUpdate(t *testing.T) {
	gated := func(p *corev1.Pod) {
		p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "a"}, {Name: "b"}}
		p.Spec.ActiveDeadlineSeconds = new(int64(100))
	}
	testUpdate(t, pods(), gated, []change[*corev1.Pod]{
		{"image", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "nginx:2" }, nil},
		{"label", func(p *corev1.Pod) { p.Labels["new"] = "label" }, nil},
		{"command", func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"x"} }, errs("Forbidden spec")},
		{"no image", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "" }, errs("Required spec.containers[0].image")},
		{"container added", func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "x", Image: "x"})
		}, errs("Forbidden spec.containers")},
		{"shorter deadline", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = new(int64(10)) }, nil},
		{"longer deadline", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = new(int64(1000)) }, errs("Invalid spec.activeDeadlineSeconds")},
		{"no deadline", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = nil }, errs("Invalid spec.activeDeadlineSeconds")},
		{"toleration added", func(p *corev1.Pod) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: "k", Operator: corev1.TolerationOpExists})
		}, nil},
		{"toleration gone", func(p *corev1.Pod) { p.Spec.Tolerations = nil }, errs("Forbidden spec.tolerations")},
		{"gate removed", func(p *corev1.Pod) { p.Spec.SchedulingGates = p.Spec.SchedulingGates[:1] }, nil},
		{"gate added", func(p *corev1.Pod) {
			p.Spec.SchedulingGates = append(p.Spec.SchedulingGates, corev1.PodSchedulingGate{Name: "c"})
		}, errs("Forbidden spec.schedulingGates[2].name")},
		{"node selector of a gated pod", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b"} }, nil},
		{"resources", func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse("200m") }, errs("Forbidden spec")},
		{"grace", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = new(int64(1)) }, errs("Forbidden spec")},
		{"account", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "other" }, errs("Forbidden spec")},
	})
	testUpdate(t, pods(), func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = new(int64(-1)) }, []change[*corev1.Pod]{
		{"negative grace to 1", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = new(int64(1)) }, nil},
		{"node selector", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b"} }, errs("Forbidden spec")},
	})
}

func TestPodUpdateMessage(t *testing.T) {
	old := created(t, pods()).(*corev1.Pod)
	pod := old.DeepCopy()
	pod.Spec.HostPID = true
	got := validatePodUpdate(pod, old).ToAggregate().Error()
	if !strings.Contains(got, "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,") {
		t.Errorf("message: %s", got)
	}
}

func TestPodStatus(t *testing.T) {
	ended := func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "web", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1}}}}
	}
	testStatus(t, pods(), ended, []change[*corev1.Pod]{
		{"phase", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, nil},
		{"back to life", func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State = corev1.ContainerState{} }, errs("Forbidden status.containerStatuses[0].state")},
		{"address", func(p *corev1.Pod) { p.Status.PodIP = "x" }, errs("Invalid status.podIPs[0]")},
		{"qos", func(p *corev1.Pod) { p.Status.QOSClass = corev1.PodQOSBestEffort }, errs("Invalid status.qosClass")},
		{"qos left out", func(p *corev1.Pod) { p.Status.QOSClass = "" }, nil},
		{"nominated", func(p *corev1.Pod) { p.Status.NominatedNodeName = "A!" }, errs("Invalid status.nominatedNodeName")},
	})
}

func TestPodSubresources(t *testing.T) {
	old := created(t, pods()).(*corev1.Pod)
	run := func(name string, make func(*corev1.Pod)) ([]string, *corev1.Pod) {
		s, _ := pods().Subresource(name)
		pod := old.DeepCopy()
		make(pod)
		defaultPod(pod)
		s.Prepare(pod, old)
		return errorTexts(s.Validate(pod, old)), pod
	}
	debug := corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "busybox"}}
	got, pod := run("ephemeralcontainers", func(p *corev1.Pod) {
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{debug}
		p.Spec.NodeName = "sneaky"
	})
	if len(got) > 0 || len(pod.Spec.EphemeralContainers) != 1 || pod.Spec.NodeName != "" {
		t.Errorf("ephemeral container: %v, node %q", got, pod.Spec.NodeName)
	}
	debug.Name = "web"
	if got, _ = run("ephemeralcontainers", func(p *corev1.Pod) { p.Spec.EphemeralContainers = []corev1.EphemeralContainer{debug} }); len(got) != 1 || got[0] != "Duplicate spec.ephemeralContainers[0].name" {
		t.Errorf("ephemeral container of a taken name: %v", got)
	}
	got, pod = run("resize", func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse("200m")
		p.Spec.Containers[0].Image = "sneaky"
	})
	if len(got) > 0 || pod.Spec.Containers[0].Image != "nginx" || pod.Spec.Containers[0].Resources.Requests.Cpu().String() != "200m" {
		t.Errorf("resize: %v, %v", got, pod.Spec.Containers[0])
	}
	got, _ = run("resize", func(p *corev1.Pod) { delete(p.Spec.Containers[0].Resources.Requests, "memory") })
	if len(got) != 0 {
		t.Errorf("a request that the limit defaults: %v", got)
	}
}

func TestPodGrace(t *testing.T) {
	pod := func(change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{Spec: corev1.PodSpec{NodeName: "n1", TerminationGracePeriodSeconds: new(int64(20))}}
		change(p)
		return p
	}
	for _, c := range []struct {
		name      string
		pod       *corev1.Pod
		requested *int64
		want      int64
	}{
		{"own", pod(func(*corev1.Pod) {}), nil, 20},
		{"requested", pod(func(*corev1.Pod) {}), new(int64(5)), 5},
		{"longer than own", pod(func(*corev1.Pod) {}), new(int64(50)), 50},
		{"at once", pod(func(*corev1.Pod) {}), new(int64(0)), 0},
		{"negative", pod(func(*corev1.Pod) {}), new(int64(-7)), 1},
		{"unset", pod(func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = nil }), nil, 30},
		{"unbound", pod(func(p *corev1.Pod) { p.Spec.NodeName = "" }), new(int64(5)), 0},
		{"done", pod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), nil, 0},
		{"failed", pod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), new(int64(9)), 0},
	} {
		if got := podGrace(c.pod, c.requested); got.Seconds != c.want || got.Graceful != (c.want > 0) {
			t.Errorf("%s: %+v, want %d", c.name, got, c.want)
		}
	}
}

func TestQOSClass(t *testing.T) {
	list := func(pairs ...string) corev1.ResourceList {
		l := corev1.ResourceList{}
		for i := 0; i < len(pairs); i += 2 {
			l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
		}
		return l
	}
	full := corev1.ResourceRequirements{Limits: list("cpu", "1", "memory", "1Gi"), Requests: list("cpu", "1", "memory", "1Gi")}
	for _, c := range []struct {
		name string
		spec corev1.PodSpec
		want corev1.PodQOSClass
	}{
		{"nothing", corev1.PodSpec{Containers: []corev1.Container{{}}}, corev1.PodQOSBestEffort},
		{"zero", corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: list("cpu", "0")}}}}, corev1.PodQOSBestEffort},
		{"only disk", corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: list("ephemeral-storage", "1Gi")}}}}, corev1.PodQOSBestEffort},
		{"all", corev1.PodSpec{Containers: []corev1.Container{{Resources: full}}}, corev1.PodQOSGuaranteed},
		{"one of two", corev1.PodSpec{Containers: []corev1.Container{{Resources: full}, {}}}, corev1.PodQOSBurstable},
		{"init counts", corev1.PodSpec{InitContainers: []corev1.Container{{}}, Containers: []corev1.Container{{Resources: full}}}, corev1.PodQOSBurstable},
		{"below limit", corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{
			Limits: list("cpu", "1", "memory", "1Gi"), Requests: list("cpu", "1", "memory", "1Mi")}}}}, corev1.PodQOSBurstable},
		{"pod level", corev1.PodSpec{Resources: &full, Containers: []corev1.Container{{}}}, corev1.PodQOSGuaranteed},
	} {
		if got := QOSClass(&c.spec); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestImageTag(t *testing.T) {
	for image, want := range map[string]string{
		"nginx": "latest", "nginx:1": "1", "host:5000/nginx": "latest", "host:5000/a/nginx:2": "2", "": "",
		"nginx@sha256:ab": "", "nginx:latest@sha256:ab": "latest", "nginx:": "",
	} {
		if got := imageTag(image); got != want {
			t.Errorf("tag of %q is %q, want %q", image, got, want)
		}
	}
}

func TestPodStatusText(t *testing.T) {
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	waiting := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	}
	ended := func(reason string, code, signal int32) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code, Signal: signal}}
	}
	ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue}
	always := new(corev1.ContainerRestartPolicyAlways)
	two := corev1.PodSpec{Containers: []corev1.Container{{Name: "a"}, {Name: "b"}}}
	withInit := func(policy *corev1.ContainerRestartPolicy) corev1.PodSpec {
		s := two
		s.InitContainers = []corev1.Container{{Name: "i", RestartPolicy: policy}, {Name: "j"}}
		return s
	}
	for _, c := range []struct {
		name   string
		spec   corev1.PodSpec
		status corev1.PodStatus
		want   string // status ready restarts
	}{
		{"pending", two, corev1.PodStatus{Phase: "Pending"}, "Pending 0/2 0"},
		{"reason", two, corev1.PodStatus{Phase: "Failed", Reason: "Evicted"}, "Evicted 0/2 0"},
		{"gated", two, corev1.PodStatus{Phase: "Pending", Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Reason: corev1.PodReasonSchedulingGated}}}, "SchedulingGated 0/2 0"},
		{"running", two, corev1.PodStatus{Phase: "Running", ContainerStatuses: []corev1.ContainerStatus{{Name: "a", Ready: true, State: running}, {Name: "b", Ready: true, State: running, RestartCount: 3}}}, "Running 2/2 3"},
		{"crash loop", two, corev1.PodStatus{Phase: "Running", ContainerStatuses: []corev1.ContainerStatus{{Name: "a", State: waiting("CrashLoopBackOff"), RestartCount: 5,
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(testNow.Add(-3 * time.Minute))}}}, {Name: "b", Ready: true, State: running}}}, "CrashLoopBackOff 1/2 5 (3m ago)"},
		{"exit code", two, corev1.PodStatus{Phase: "Failed", ContainerStatuses: []corev1.ContainerStatus{{Name: "a", State: ended("", 3, 0)}}}, "ExitCode:3 0/2 0"},
		{"signal", two, corev1.PodStatus{Phase: "Failed", ContainerStatuses: []corev1.ContainerStatus{{Name: "a", State: ended("", 0, 9)}}}, "Signal:9 0/2 0"},
		{"one completed", two, corev1.PodStatus{Phase: "Running", Conditions: []corev1.PodCondition{ready}, ContainerStatuses: []corev1.ContainerStatus{{Name: "a", State: ended("Completed", 0, 0)}, {Name: "b", Ready: true, State: running}}}, "Running 1/2 0"},
		{"one completed, not ready", two, corev1.PodStatus{Phase: "Running", ContainerStatuses: []corev1.ContainerStatus{{Name: "a", State: ended("Completed", 0, 0)}, {Name: "b", Ready: true, State: running}}}, "NotReady 1/2 0"},
		{"init waits", withInit(nil), corev1.PodStatus{Phase: "Pending", InitContainerStatuses: []corev1.ContainerStatus{{Name: "i", State: ended("Completed", 0, 0)}, {Name: "j", State: running}}}, "Init:1/2 0/2 0"},
		{"init crashes", withInit(nil), corev1.PodStatus{Phase: "Pending", InitContainerStatuses: []corev1.ContainerStatus{{Name: "i", RestartCount: 2, State: waiting("CrashLoopBackOff")}}}, "Init:CrashLoopBackOff 0/2 2"},
		{"init failed", withInit(nil), corev1.PodStatus{Phase: "Failed", InitContainerStatuses: []corev1.ContainerStatus{{Name: "i", State: ended("", 4, 0)}}}, "Init:ExitCode:4 0/2 0"},
		{"init starts", withInit(nil), corev1.PodStatus{Phase: "Pending", InitContainerStatuses: []corev1.ContainerStatus{{Name: "i", State: waiting("PodInitializing")}}}, "Init:0/2 0/2 0"},
		{"sidecar", withInit(always), corev1.PodStatus{Phase: "Running", InitContainerStatuses: []corev1.ContainerStatus{{Name: "i", Started: new(true), Ready: true, RestartCount: 2, State: running}, {Name: "j", RestartCount: 7, State: ended("Completed", 0, 0)}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "a", Ready: true, State: running}, {Name: "b", Ready: true, State: running, RestartCount: 1}}}, "Running 3/3 3"},
	} {
		row := podRow(&corev1.Pod{Spec: c.spec, Status: c.status}, testNow)
		if got := strings.Join([]string{row[2].(string), row[1].(string), row[3].(string)}, " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	gone := &corev1.Pod{Spec: two, Status: corev1.PodStatus{Phase: "Running"}}
	gone.DeletionTimestamp = new(metav1.NewTime(testNow))
	if got := summarize(gone).status; got != "Terminating" {
		t.Errorf("deleted: %q", got)
	}
	gone.Status.Reason = reasonNodeLost
	if got := summarize(gone).status; got != "Unknown" {
		t.Errorf("deleted on a lost node: %q", got)
	}
}

// TestGracelessPod: where the selectable fields say that a pod goes at once, it
// does.
func TestGracelessPod(t *testing.T) {
	const graceful, graceless = 30, 0
	at := map[bool]int{}
	for _, node := range []string{"", "n"} {
		for _, phase := range []corev1.PodPhase{"", corev1.PodPending, corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed, corev1.PodUnknown} {
			for _, own := range []*int64{nil, new(int64(graceful)), new(int64(graceless)), new(int64(-1))} {
				for _, requested := range []*int64{nil, new(int64(graceful)), new(int64(graceless)), new(int64(-1))} {
					pod := &corev1.Pod{Spec: corev1.PodSpec{NodeName: node, TerminationGracePeriodSeconds: own}, Status: corev1.PodStatus{Phase: phase}}
					says := gracelessPod(podFields(pod), requested)
					at[says]++
					if says && podGrace(pod, requested).Graceful {
						t.Errorf("a pod on %q in phase %q goes at once and is given time", node, phase)
					}
				}
			}
		}
	}
	if at[true] == 0 || at[false] == 0 {
		t.Errorf("verdicts: %v", at)
	}
	if gracelessPod(nil, nil) {
		t.Error("a pod of which nothing is known goes at once")
	}
}
