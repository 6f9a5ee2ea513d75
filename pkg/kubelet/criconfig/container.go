package criconfig

import (
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cri"
	"coracle/pkg/kubelet/lifecycle"
	"coracle/pkg/kubelet/podenv"
)

// ContainerInput is what the configuration of a container depends on.
type ContainerInput struct {
	Pod     *corev1.Pod
	Spec    *corev1.Container
	Attempt int32
	Delay   time.Duration // lifecycle.Action.Delay
	Sandbox string        // id of the sandbox it is made in

	Image       *runtimeapi.Image // as the runtime has it; its user is checked against runAsNonRoot
	Env         []*runtimeapi.KeyValue
	Mounts      []*runtimeapi.Mount
	Devices     []*runtimeapi.Device
	TargetID    string // for an ephemeral container: the container whose processes it sees
	SeccompRoot string // folder of localhost seccomp profiles

	Node NodeFacts
}

// NodeFacts is what a configuration needs to know of the node.
type NodeFacts struct {
	MemoryBytes int64 // of the machine; relates memory requests to oom scores
	OOMFloor    int64 // lowest oom_score_adj that the node may set
	CgroupV2    bool
}

// LogName returns the log of one attempt relative to the pod's log folder.
func LogName(container string, attempt int32) string {
	return filepath.Join(container, strconv.Itoa(int(attempt))+".log")
}

// MessagePath returns where a container expects its termination message.
func MessagePath(spec *corev1.Container) string {
	if spec.TerminationMessagePath == "" {
		return corev1.TerminationMessagePathDefault
	}
	return spec.TerminationMessagePath
}

// Container translates one container. It fails when the security context asks
// for what the image cannot give.
func Container(in ContainerInput) (*runtimeapi.ContainerConfig, error) {
	security, err := containerSecurity(in)
	if err != nil {
		return nil, err
	}
	spec := in.Spec
	config := &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: spec.Name, Attempt: uint32(in.Attempt)},
		Image:       &runtimeapi.ImageSpec{Image: in.Image.GetId(), UserSpecifiedImage: spec.Image},
		Command:     podenv.Expand(spec.Command, in.Env),
		Args:        podenv.Expand(spec.Args, in.Env),
		WorkingDir:  spec.WorkingDir,
		Envs:        in.Env,
		Mounts:      in.Mounts,
		Devices:     in.Devices,
		Labels:      containerLabels(in.Pod, spec),
		Annotations: containerAnnotations(in),
		LogPath:     LogName(spec.Name, in.Attempt),
		Stdin:       spec.Stdin,
		StdinOnce:   spec.StdinOnce,
		Tty:         spec.TTY,
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       Resources(in.Pod, spec, in.Node),
			SecurityContext: security,
		},
	}
	if spec.Lifecycle != nil && spec.Lifecycle.StopSignal != nil {
		config.StopSignal = signalOf(*spec.Lifecycle.StopSignal)
	}
	return config, nil
}

func containerLabels(pod *corev1.Pod, spec *corev1.Container) map[string]string {
	return map[string]string{
		cri.LabelPodName:       pod.Name,
		cri.LabelPodNamespace:  pod.Namespace,
		cri.LabelPodUID:        string(pod.UID),
		cri.LabelContainerName: spec.Name,
	}
}

func containerAnnotations(in ContainerInput) map[string]string {
	policy := in.Spec.TerminationMessagePolicy
	if policy == "" {
		policy = corev1.TerminationMessageReadFile
	}
	out := map[string]string{
		cri.AnnotationHash:          lifecycle.Hash(in.Spec),
		cri.AnnotationRestartCount:  strconv.Itoa(int(in.Attempt)),
		cri.AnnotationMessagePath:   MessagePath(in.Spec),
		cri.AnnotationMessagePolicy: string(policy),
		cri.AnnotationDelay:         in.Delay.String(),
		cri.AnnotationSandbox:       in.Sandbox,
	}
	if data, err := json.Marshal(in.Spec.Resources); err == nil {
		out[cri.AnnotationResources] = string(data)
	}
	if g := in.Pod.Spec.TerminationGracePeriodSeconds; g != nil {
		out[cri.AnnotationPodGrace] = strconv.FormatInt(*g, 10)
	}
	return out
}

// MadeWith reads from a container's annotations the requests and limits it was
// made with; nil when they do not tell.
func MadeWith(annotations map[string]string) *corev1.ResourceRequirements {
	text := annotations[cri.AnnotationResources]
	if text == "" || len(text) > maxResources {
		return nil
	}
	r := &corev1.ResourceRequirements{}
	if json.Unmarshal([]byte(text), r) != nil {
		return nil
	}
	return r
}

const (
	maxResources = 64 << 10 // bytes of the annotation

	cpuPeriod   = 100_000 // microseconds
	minQuota    = 1_000   // the kernel's lower bound
	minShares   = 2
	sharesOfCPU = 1024

	criticalPriority = 2_000_001_000 // of system-node-critical
	oomGuaranteed    = -997
	oomBestEffort    = 1000
)

// Resources translates requests and limits into what the kernel enforces.
func Resources(pod *corev1.Pod, spec *corev1.Container, node NodeFacts) *runtimeapi.LinuxContainerResources {
	request, limit := spec.Resources.Requests, spec.Resources.Limits
	out := &runtimeapi.LinuxContainerResources{
		CpuPeriod:          cpuPeriod,
		CpuShares:          CPUShares(request.Cpu().MilliValue()),
		MemoryLimitInBytes: limit.Memory().Value(),
		OomScoreAdj:        max(oomScore(pod, spec, node.MemoryBytes), node.OOMFloor),
	}
	if request.Cpu().IsZero() && !limit.Cpu().IsZero() {
		out.CpuShares = CPUShares(limit.Cpu().MilliValue())
	}
	if milli := limit.Cpu().MilliValue(); milli > 0 {
		out.CpuQuota = CPUQuota(milli)
	}
	if node.CgroupV2 && out.MemoryLimitInBytes > 0 {
		// a container that runs out of memory dies as a whole, not process by process
		out.Unified = map[string]string{"memory.oom.group": "1"}
	}
	return out
}

// CPUShares turns thousandths of a CPU into a cgroup's weight.
func CPUShares(milli int64) int64 {
	return min(max(milli*sharesOfCPU/1000, minShares), 262144)
}

// CPUQuota turns thousandths of a CPU into microseconds per period of 100 ms.
func CPUQuota(milli int64) int64 { return max(milli*cpuPeriod/1000, minQuota) }

// oomScore says how early the kernel may kill the container's processes.
func oomScore(pod *corev1.Pod, spec *corev1.Container, memory int64) int64 {
	if pod.Spec.Priority != nil && *pod.Spec.Priority >= criticalPriority {
		return oomGuaranteed
	}
	switch lifecycle.QOS(pod) {
	case corev1.PodQOSGuaranteed:
		return oomGuaranteed
	case corev1.PodQOSBestEffort:
		return oomBestEffort
	}
	if memory <= 0 {
		return oomBestEffort - 1
	}
	score := int64(oomBestEffort) - int64(float64(oomBestEffort)*float64(spec.Resources.Requests.Memory().Value())/float64(memory))
	// between the guaranteed and the best-effort, whatever the request
	return min(max(score, oomBestEffort+oomGuaranteed), oomBestEffort-1)
}

// signalOf translates a signal's name, "SIGRTMIN+1" for example, into the
// runtime's number for it; 0 leaves the choice to the image.
func signalOf(name corev1.Signal) runtimeapi.Signal {
	spelled := strings.NewReplacer("+", "PLUS", "-", "MINUS").Replace(string(name))
	return runtimeapi.Signal(runtimeapi.Signal_value["SIGNAL_"+spelled])
}
