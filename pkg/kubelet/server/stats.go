package server

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The labels by which a runtime's container tells what it belongs to.
const (
	labelPodUID    = "io.kubernetes.pod.uid"
	labelContainer = "io.kubernetes.container.name"
)

// The answer of /stats/summary, by the names that its clients know.
type (
	summaryReply struct {
		Node nodeStats  `json:"node"`
		Pods []podStats `json:"pods"`
	}
	nodeStats struct {
		NodeName string       `json:"nodeName"`
		CPU      *cpuStats    `json:"cpu,omitempty"`
		Memory   *memoryStats `json:"memory,omitempty"`
	}
	podStats struct {
		PodRef     podRef           `json:"podRef"`
		StartTime  *time.Time       `json:"startTime,omitempty"`
		Containers []containerStats `json:"containers"`
		CPU        *cpuStats        `json:"cpu,omitempty"`
		Memory     *memoryStats     `json:"memory,omitempty"`
		Volumes    []VolumeStats    `json:"volume,omitempty"`
	}
	podRef struct {
		Name      string    `json:"name"`
		Namespace string    `json:"namespace"`
		UID       types.UID `json:"uid"`
	}
	containerStats struct {
		Name      string       `json:"name"`
		StartTime *time.Time   `json:"startTime,omitempty"`
		CPU       *cpuStats    `json:"cpu,omitempty"`
		Memory    *memoryStats `json:"memory,omitempty"`
		Rootfs    *fsStats     `json:"rootfs,omitempty"`
	}
	cpuStats struct {
		Time time.Time `json:"time"`
		// UsageNanoCores is the present rate, UsageCoreNanoSeconds the sum.
		UsageNanoCores       *uint64 `json:"usageNanoCores,omitempty"`
		UsageCoreNanoSeconds uint64  `json:"usageCoreNanoSeconds"`
	}
	memoryStats struct {
		Time            time.Time `json:"time"`
		UsageBytes      *uint64   `json:"usageBytes,omitempty"`
		WorkingSetBytes uint64    `json:"workingSetBytes"`
		RSSBytes        *uint64   `json:"rssBytes,omitempty"`
	}
	fsStats struct {
		Time      time.Time `json:"time"`
		UsedBytes *uint64   `json:"usedBytes,omitempty"`
	}
)

func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	reply, err := s.collect(r)
	if err != nil {
		fail(w, err)
		return
	}
	writeJSON(w, reply)
}

// collect joins the runtime's numbers with the pods they belong to.
func (s *Server) collect(r *http.Request) (*summaryReply, error) {
	stats, err := s.cfg.Runtime.ContainerStats(r.Context())
	if err != nil {
		return nil, fmt.Errorf("asking the container runtime for statistics: %w", err)
	}
	reply := &summaryReply{Node: nodeStats{NodeName: s.cfg.NodeName}, Pods: summarize(s.cfg.Pods.Pods(), stats)}
	s.addVolumes(reply.Pods)
	if s.cfg.NodeUsage != nil {
		used, err := s.cfg.NodeUsage()
		if err != nil {
			s.cfg.Log.Warn("what the node uses is unknown", "error", err)
			return reply, nil
		}
		now := time.Now().UTC()
		reply.Node.CPU = &cpuStats{Time: now, UsageCoreNanoSeconds: uint64(used.CPU)}
		reply.Node.Memory = &memoryStats{Time: now, WorkingSetBytes: used.Memory}
	}
	return reply, nil
}

func summarize(pods []*corev1.Pod, stats []*runtimeapi.ContainerStats) []podStats {
	byPod := make(map[string][]*runtimeapi.ContainerStats)
	for _, st := range stats {
		uid := st.GetAttributes().GetLabels()[labelPodUID]
		byPod[uid] = append(byPod[uid], st)
	}
	out := make([]podStats, 0, len(pods))
	for _, pod := range pods {
		ps := podStats{PodRef: podRef{Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID}, Containers: []containerStats{}}
		if pod.Status.StartTime != nil {
			ps.StartTime = &pod.Status.StartTime.Time
		}
		for _, st := range byPod[string(pod.UID)] {
			cs := containerOf(st)
			cs.StartTime = startedAt(pod, cs.Name)
			ps.Containers = append(ps.Containers, cs)
			ps.add(cs)
		}
		slices.SortFunc(ps.Containers, func(a, b containerStats) int { return cmp.Compare(a.Name, b.Name) })
		out = append(out, ps)
	}
	return out
}

func containerOf(st *runtimeapi.ContainerStats) containerStats {
	cs := containerStats{Name: st.GetAttributes().GetLabels()[labelContainer]}
	if cpu := st.GetCpu(); cpu.GetUsageCoreNanoSeconds() != nil {
		cs.CPU = &cpuStats{Time: nanos(cpu.GetTimestamp()), UsageNanoCores: value(cpu.GetUsageNanoCores()), UsageCoreNanoSeconds: cpu.GetUsageCoreNanoSeconds().GetValue()}
	}
	if memory := st.GetMemory(); memory.GetWorkingSetBytes() != nil {
		cs.Memory = &memoryStats{Time: nanos(memory.GetTimestamp()), WorkingSetBytes: memory.GetWorkingSetBytes().GetValue(),
			UsageBytes: value(memory.GetUsageBytes()), RSSBytes: value(memory.GetRssBytes())}
	}
	if layer := st.GetWritableLayer(); layer != nil {
		cs.Rootfs = &fsStats{Time: nanos(layer.GetTimestamp()), UsedBytes: value(layer.GetUsedBytes())}
	}
	return cs
}

// add counts a container towards its pod.
func (p *podStats) add(c containerStats) {
	if c.CPU != nil {
		if p.CPU == nil {
			p.CPU = &cpuStats{Time: c.CPU.Time}
		}
		p.CPU.UsageCoreNanoSeconds += c.CPU.UsageCoreNanoSeconds
		if c.CPU.UsageNanoCores != nil {
			sum := *c.CPU.UsageNanoCores
			if p.CPU.UsageNanoCores != nil {
				sum += *p.CPU.UsageNanoCores
			}
			p.CPU.UsageNanoCores = &sum
		}
	}
	if c.Memory != nil {
		if p.Memory == nil {
			p.Memory = &memoryStats{Time: c.Memory.Time}
		}
		p.Memory.WorkingSetBytes += c.Memory.WorkingSetBytes
	}
}

func startedAt(pod *corev1.Pod, container string) *time.Time {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for i := range list {
			if running := list[i].State.Running; running != nil && list[i].Name == container {
				return &running.StartedAt.Time
			}
		}
	}
	return nil
}

func nanos(n int64) time.Time { return time.Unix(0, n).UTC() }

func value(v *runtimeapi.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	n := v.GetValue()
	return &n
}

// resourceMetrics writes the numbers of the summary in the text format of
// Prometheus, under the names that metrics servers read.
func (s *Server) resourceMetrics(w http.ResponseWriter, r *http.Request) {
	reply, err := s.collect(r)
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(reply.metrics())
}

func (reply *summaryReply) metrics() []byte {
	families := []*family{
		{name: "node_cpu_usage_seconds_total", kind: "counter"}, {name: "node_memory_working_set_bytes", kind: "gauge"},
		{name: "pod_cpu_usage_seconds_total", kind: "counter"}, {name: "pod_memory_working_set_bytes", kind: "gauge"},
		{name: "container_cpu_usage_seconds_total", kind: "counter"}, {name: "container_memory_working_set_bytes", kind: "gauge"},
		{name: "container_start_time_seconds", kind: "gauge"}, {name: "resource_scrape_error", kind: "gauge"},
	}
	usage := func(first int, labels string, cpu *cpuStats, memory *memoryStats) {
		if cpu != nil {
			families[first].add(labels, float64(cpu.UsageCoreNanoSeconds)/1e9, cpu.Time)
		}
		if memory != nil {
			families[first+1].add(labels, float64(memory.WorkingSetBytes), memory.Time)
		}
	}
	usage(0, "", reply.Node.CPU, reply.Node.Memory)
	for _, pod := range reply.Pods {
		of := fmt.Sprintf("namespace=%q,pod=%q", pod.PodRef.Namespace, pod.PodRef.Name)
		usage(2, of, pod.CPU, pod.Memory)
		for _, c := range pod.Containers {
			labels := fmt.Sprintf("container=%q,", c.Name) + of
			usage(4, labels, c.CPU, c.Memory)
			if c.StartTime != nil {
				families[6].add(labels, float64(c.StartTime.UnixNano())/1e9, time.Time{})
			}
		}
	}
	families[7].add("", 0, time.Time{})
	var b bytes.Buffer
	for _, f := range families {
		if f.lines.Len() > 0 {
			fmt.Fprintf(&b, "# TYPE %s %s\n%s", f.name, f.kind, f.lines.String())
		}
	}
	return b.Bytes()
}

// family is one metric with its lines. Names of pods and containers need no
// escaping beyond quotes: the API allows no others.
type family struct {
	name, kind string
	lines      strings.Builder
}

func (f *family) add(labels string, v float64, at time.Time) {
	f.lines.WriteString(f.name)
	if labels != "" {
		f.lines.WriteString("{" + labels + "}")
	}
	f.lines.WriteString(" " + strconv.FormatFloat(v, 'g', -1, 64))
	if !at.IsZero() {
		f.lines.WriteString(" " + strconv.FormatInt(at.UnixMilli(), 10))
	}
	f.lines.WriteByte('\n')
}
