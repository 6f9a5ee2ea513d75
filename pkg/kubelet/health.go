package kubelet

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cri"
	"coracle/pkg/kubelet/criconfig"
	"coracle/pkg/kubelet/eviction"
	"coracle/pkg/kubelet/node"
)

// Version is the Kubernetes version whose behaviour the agent shows.
const Version = "v1.37.0"

const (
	// imagesEvery is how old the list of images in the node's status may get.
	imagesEvery = time.Minute
	// capSysResource is the number of the capability that lets a process lower
	// oom scores.
	capSysResource = 24
)

// imageList remembers the images of the node for a while.
type imageList struct {
	mu   sync.Mutex
	at   time.Time               // guarded by mu
	list []corev1.ContainerImage // guarded by mu
}

// check tells the node's health.
func (k *Kubelet) check(ctx context.Context) node.Health {
	p := *k.pressure.Load()
	h := node.Health{MemoryPressure: p.Under(eviction.Memory), DiskPressure: p.Under(eviction.Disk), PIDPressure: p.Under(eviction.PIDs)}
	v, err := k.runtime.Version(ctx)
	if err != nil {
		h.Err = fmt.Errorf("container runtime is down: %s", cri.Reason(err))
		return h
	}
	h.Runtime = v.GetRuntimeName() + "://" + strings.TrimPrefix(v.GetRuntimeVersion(), "v")
	s, err := k.runtime.Status(ctx)
	if err != nil {
		h.Err = fmt.Errorf("container runtime is down: %s", cri.Reason(err))
		return h
	}
	h.Err = unready(s.GetStatus().GetConditions())
	h.Handlers = handlersOf(s)
	k.handlers.Store(&h.Handlers)
	h.Images = k.nodeImages(ctx)
	return h
}

// handlersOf lists the runtime's handlers and what each can do.
func handlersOf(s *runtimeapi.StatusResponse) []corev1.NodeRuntimeHandler {
	var out []corev1.NodeRuntimeHandler
	for _, h := range s.GetRuntimeHandlers() {
		recursive, users := h.GetFeatures().GetRecursiveReadOnlyMounts(), h.GetFeatures().GetUserNamespaces()
		out = append(out, corev1.NodeRuntimeHandler{Name: h.GetName(), Features: &corev1.NodeRuntimeHandlerFeatures{
			RecursiveReadOnlyMounts: &recursive, UserNamespaces: &users,
		}})
	}
	slices.SortFunc(out, func(a, b corev1.NodeRuntimeHandler) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// recursiveReadOnly tells whether a handler can make mounts read-only with
// everything below them.
func (k *Kubelet) recursiveReadOnly(handler string) bool {
	known := k.handlers.Load()
	if known == nil {
		return false
	}
	for _, h := range *known {
		if h.Name == handler {
			return h.Features != nil && h.Features.RecursiveReadOnlyMounts != nil && *h.Features.RecursiveReadOnlyMounts
		}
	}
	return false
}

// unready says which condition of the runtime keeps pods from running.
func unready(conditions []*runtimeapi.RuntimeCondition) error {
	var problems []string
	for _, c := range conditions {
		if c.GetStatus() {
			continue
		}
		switch c.GetType() {
		case "RuntimeReady":
			problems = append(problems, fmt.Sprintf("container runtime not ready: %s: %s", c.GetReason(), c.GetMessage()))
		case "NetworkReady":
			problems = append(problems, fmt.Sprintf("container runtime network not ready: NetworkReady=false reason:%s message:%s", c.GetReason(), c.GetMessage()))
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(problems, ", "))
}

// nodeImages lists the images of the node, largest first.
func (k *Kubelet) nodeImages(ctx context.Context) []corev1.ContainerImage {
	l := &k.imageList
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := k.cfg.Clock.Now(); l.at.IsZero() || now.Sub(l.at) >= imagesEvery {
		images, err := k.runtime.ListImages(ctx)
		if err != nil {
			return l.list
		}
		l.at, l.list = now, nil
		for _, i := range images {
			l.list = append(l.list, corev1.ContainerImage{
				Names: append(slices.Clone(i.GetRepoDigests()), i.GetRepoTags()...), SizeBytes: int64(i.GetSize()),
			})
		}
		slices.SortFunc(l.list, func(a, b corev1.ContainerImage) int {
			if c := cmp.Compare(b.SizeBytes, a.SizeBytes); c != 0 {
				return c
			}
			return slices.Compare(a.Names, b.Names)
		})
	}
	return l.list
}

// nodeFacts measures what container configurations depend on.
func (k *Kubelet) nodeFacts() criconfig.NodeFacts {
	f := criconfig.NodeFacts{OOMFloor: -1000, CgroupV2: k.cgroupV2}
	if q, ok := k.node.Capacity()[corev1.ResourceMemory]; ok {
		f.MemoryBytes = q.Value()
	}
	if k.cfg.Simulated {
		return f
	}
	if !hasCapability(readBounded("/proc/self/status"), capSysResource) {
		// the kernel lets nobody below get less than this process has
		f.OOMFloor = 0
		if n, err := strconv.ParseInt(strings.TrimSpace(string(readBounded("/proc/self/oom_score_adj"))), 10, 64); err == nil {
			f.OOMFloor = n
		}
	}
	return f
}

// hasCapability reads the effective capabilities out of /proc/self/status.
func hasCapability(status []byte, number uint) bool {
	for line := range bytes.Lines(status) {
		if hex, ok := bytes.CutPrefix(line, []byte("CapEff:")); ok {
			set, err := strconv.ParseUint(string(bytes.TrimSpace(hex)), 16, 64)
			return err == nil && set>>number&1 == 1
		}
	}
	return false
}
