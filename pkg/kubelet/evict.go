package kubelet

import (
	"context"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/resource"

	"coracle/pkg/kubelet/cri"
	"coracle/pkg/kubelet/criconfig"
	"coracle/pkg/kubelet/eviction"
	"coracle/pkg/kubelet/lifecycle"
)

const (
	evictEvery = 10 * time.Second
	// imageAge is how long an image stays although nothing uses it.
	imageAge = 2 * time.Minute
	// maxWalked bounds the files counted for the disk usage of one pod.
	maxWalked = 100_000
)

// guard watches the node's resources until ctx ends: when one runs short it
// frees images, and if that does not help, evicts a pod.
func (k *Kubelet) guard(ctx context.Context) error {
	seen := map[string]time.Time{} // when each unused image was first seen so
	for {
		k.pause(ctx, evictEvery)
		if ctx.Err() != nil {
			return nil
		}
		levels := k.measure(k.cfg.RootDir)
		short := eviction.Short(levels, *k.cfg.Thresholds)
		before := k.pressure.Load()
		next := (*before).Next(short, k.cfg.Clock.Now())
		k.pressure.Store(&next)
		if len(next) != len(*before) {
			k.log.Warn("what the node is short of has changed", "short", short)
			k.node.CheckNow()
		}
		k.noteImages(ctx, seen)
		if len(short) == 0 {
			continue
		}
		signal := short[0]
		if signal == eviction.Disk && k.freeImages(ctx, seen, levels[signal].Capacity/20) {
			continue // look again before a pod has to go
		}
		k.evictOne(ctx, signal, levels[signal])
	}
}

// measureNode reads what is left of the node's memory, disk and processes.
func measureNode(rootDir string) map[eviction.Signal]eviction.Level {
	out := map[eviction.Signal]eviction.Level{}
	total, available := memoryLevel(string(readBounded("/proc/meminfo")))
	out[eviction.Memory] = eviction.Level{Available: available, Capacity: total}
	var s unix.Statfs_t
	if unix.Statfs(rootDir, &s) == nil {
		out[eviction.Disk] = eviction.Level{Available: int64(s.Bavail) * s.Bsize, Capacity: int64(s.Blocks) * s.Bsize}
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(string(readBounded("/proc/sys/kernel/pid_max"))), 10, 64)
	if used, ok := processes(string(readBounded("/proc/loadavg"))); ok && err == nil {
		out[eviction.PIDs] = eviction.Level{Available: limit - used, Capacity: limit}
	}
	return out
}

// memoryLevel reads /proc/meminfo.
func memoryLevel(meminfo string) (total, available int64) {
	for line := range strings.SplitSeq(meminfo, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		switch fields[0] {
		case "MemTotal:":
			total = kib << 10
		case "MemAvailable:":
			available = kib << 10
		}
	}
	return total, available
}

// processes reads how many there are out of /proc/loadavg: "1.0 1.0 1.0 2/345 67".
func processes(loadavg string) (int64, bool) {
	fields := strings.Fields(loadavg)
	if len(fields) < 4 {
		return 0, false
	}
	_, all, _ := strings.Cut(fields[3], "/")
	n, err := strconv.ParseInt(all, 10, 64)
	return n, err == nil
}

// noteImages remembers since when each image is unused.
func (k *Kubelet) noteImages(ctx context.Context, seen map[string]time.Time) {
	images, err := k.runtime.ListImages(ctx)
	if err != nil {
		return
	}
	there := map[string]bool{}
	for _, i := range images {
		there[i.GetId()] = true
		if _, ok := seen[i.GetId()]; !ok {
			seen[i.GetId()] = k.cfg.Clock.Now()
		}
	}
	for id := range seen {
		if !there[id] {
			delete(seen, id)
		}
	}
}

// freeImages removes unused images worth need bytes and tells whether it
// removed any.
func (k *Kubelet) freeImages(ctx context.Context, seen map[string]time.Time, need int64) bool {
	images, err := k.runtime.ListImages(ctx)
	if err != nil {
		return false
	}
	containers, err := k.runtime.ListContainers(ctx, nil)
	if err != nil {
		return false // what is in use is not known
	}
	used := map[string]bool{}
	for _, c := range containers {
		for _, ref := range []string{c.GetImage().GetImage(), c.GetImageRef(), c.GetImageId()} {
			used[ref] = true
		}
	}
	var candidates []eviction.Image
	for _, i := range images {
		c := eviction.Image{ID: i.GetId(), Bytes: int64(i.GetSize()), LastUsed: seen[i.GetId()], Pinned: i.GetPinned(), InUse: used[i.GetId()]}
		for _, name := range append(append([]string{}, i.GetRepoTags()...), i.GetRepoDigests()...) {
			c.InUse = c.InUse || used[name]
		}
		if c.InUse {
			seen[c.ID] = k.cfg.Clock.Now()
		}
		candidates = append(candidates, c)
	}
	removed := false
	for _, id := range eviction.Removable(candidates, need, imageAge, k.cfg.Clock.Now()) {
		if err := k.runtime.RemoveImage(ctx, id); err != nil {
			k.log.Warn("unused image not removed", "image", id, "error", cri.Reason(err))
			continue
		}
		k.log.Info("removed an unused image, since the disk is nearly full", "image", id)
		removed = true
	}
	return removed
}

// evictOne fails the pod that is most to blame for a shortage.
func (k *Kubelet) evictOne(ctx context.Context, signal eviction.Signal, level eviction.Level) {
	usage := k.usage(ctx, signal)
	var candidates []eviction.Pod
	for _, pod := range k.Pods() {
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || pod.DeletionTimestamp != nil {
			continue
		}
		c := eviction.Pod{UID: pod.UID, Usage: usage[pod.UID]}
		if pod.Spec.Priority != nil {
			c.Priority = *pod.Spec.Priority
		}
		request := resource.PodRequests(pod, resource.PodResourcesOptions{})[corev1.ResourceName(signal)]
		c.Request = request.Value()
		candidates = append(candidates, c)
	}
	uid, ok := eviction.Victim(candidates)
	w := k.loop(uid)
	if !ok || w == nil {
		k.log.Warn("the node is short of a resource and no pod can be evicted for it", "resource", signal)
		return
	}
	message := eviction.Message(signal, level, *k.cfg.Thresholds)
	w.post(func() {
		if w.in.Verdict != nil {
			return
		}
		w.in.Verdict = &lifecycle.Verdict{Reason: "Evicted", Message: message, Kill: true, Condition: &corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonTerminationByKubelet, Message: message,
		}}
		w.event("", corev1.EventTypeWarning, "Evicted", message)
	})
}

// usage measures what each pod uses of a signal.
func (k *Kubelet) usage(ctx context.Context, signal eviction.Signal) map[types.UID]int64 {
	out := map[types.UID]int64{}
	stats, err := k.runtime.ListContainerStats(ctx, nil)
	if err != nil {
		k.log.Warn("runtime gives no statistics", "error", err)
	}
	for _, s := range stats {
		uid := types.UID(s.GetAttributes().GetLabels()[cri.LabelPodUID])
		switch signal {
		case eviction.Disk:
			out[uid] += int64(s.GetWritableLayer().GetUsedBytes().GetValue())
		default: // who holds most memory is the best guess for processes, too
			out[uid] += int64(s.GetMemory().GetWorkingSetBytes().GetValue())
		}
	}
	if signal == eviction.Disk {
		for _, pod := range k.Pods() {
			out[pod.UID] += folderBytes(filepath.Join(k.volumes.PodDir(pod.UID), "volumes", "kubernetes.io~empty-dir")) +
				folderBytes(criconfig.LogDir(k.cfg.LogDir, pod))
		}
	}
	return out
}

// folderBytes sums what the files below dir take on disk.
func folderBytes(dir string) int64 {
	var sum int64
	walked := 0
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if walked++; walked > maxWalked {
			return fs.SkipAll
		}
		if err != nil {
			return nil // it may be gone by now
		}
		if info, err := e.Info(); err == nil {
			if s, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += s.Blocks * 512
			}
		}
		return nil
	})
	return sum
}
