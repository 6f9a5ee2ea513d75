package kubelet

import (
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cri"
	"coracle/pkg/kubelet/eviction"
)

// levels is a node whose resources the test sets.
type levels struct {
	mu  sync.Mutex
	now map[eviction.Signal]eviction.Level
}

func (l *levels) set(s eviction.Signal, available int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = map[eviction.Signal]eviction.Level{s: {Available: available, Capacity: 100 << 30}}
}

func (l *levels) read(string) map[eviction.Signal]eviction.Level {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

func (n *simNode) usage(t *testing.T, uid types.UID, memory uint64) {
	n.runtime.SetStats([]*runtimeapi.ContainerStats{{
		Attributes: &runtimeapi.ContainerAttributes{Labels: map[string]string{cri.LabelPodUID: string(uid)}},
		Memory:     &runtimeapi.MemoryUsage{WorkingSetBytes: &runtimeapi.UInt64Value{Value: memory}},
	}})
}

func TestMemoryPressureEvictsAndRefuses(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.stop()
		n.levels = &levels{}
		n.levels.set(eviction.Memory, 10<<30)
		n.start()
		n.create(simplePod("small"))
		n.create(simplePod("hog"))
		n.after(2 * time.Second)
		n.usage(t, "uid-hog", 5<<30)
		n.levels.set(eviction.Memory, 50<<20)
		n.after(11 * time.Second)
		s := n.get("hog").Status
		if s.Phase != corev1.PodFailed || s.Reason != "Evicted" || !strings.Contains(s.Message, "The node was low on resource: memory") {
			t.Errorf("the hog: %s %s %s", s.Phase, s.Reason, s.Message)
		}
		disrupted := false
		for _, c := range s.Conditions {
			disrupted = disrupted || c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == "TerminationByKubelet"
		}
		if !disrupted {
			t.Errorf("conditions %+v", s.Conditions)
		}
		if n.get("small").Status.Phase != corev1.PodRunning {
			t.Error("the wrong pod was evicted too")
		}
		n.levels.set(eviction.Memory, 10<<30)
		n.create(simplePod("late"))
		n.after(2 * time.Second)
		if s := n.get("late").Status; s.Phase != corev1.PodFailed || !strings.Contains(s.Message, "[MemoryPressure]") {
			t.Errorf("a pod that comes during the pressure: %s %s", s.Phase, s.Message)
		}
		n.after(6 * time.Minute)
		n.create(simplePod("later"))
		n.after(2 * time.Second)
		if s := n.get("later").Status; s.Phase != corev1.PodRunning {
			t.Errorf("a pod that comes after the pressure: %s %s", s.Phase, s.Message)
		}
	})
}

func TestDiskPressureRemovesUnusedImagesFirst(t *testing.T) {
	onNode(t, func(t *testing.T, n *simNode) {
		n.stop()
		n.levels = &levels{}
		n.levels.set(eviction.Disk, 50<<30)
		n.start()
		n.runtime.AddImage("unused:1")
		n.create(simplePod("p"))
		n.after(5 * time.Minute)
		n.levels.set(eviction.Disk, 1<<20)
		n.after(11 * time.Second)
		if i, err := n.runtime.ImageStatus(t.Context(), "unused:1"); i != nil || err != nil {
			t.Errorf("the unused image: %v, %v", i, err)
		}
		if i, err := n.runtime.ImageStatus(t.Context(), "img:1"); i == nil || err != nil {
			t.Errorf("the image in use: %v, %v", i, err)
		}
		if n.get("p").Status.Phase != corev1.PodRunning {
			t.Error("evicted although an image could go")
		}
	})
}

func TestNodeFilesAreRead(t *testing.T) {
	if total, available := memoryLevel("MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable: 50 kB\nx\n"); total != 100<<10 || available != 50<<10 {
		t.Errorf("memory %d of %d", available, total)
	}
	if n, ok := processes("0.5 0.4 0.3 2/345 678\n"); !ok || n != 345 {
		t.Errorf("processes %d, %v", n, ok)
	}
	if _, ok := processes("garbage"); ok {
		t.Error("garbage is read")
	}
	got := measureNode(t.TempDir())
	for _, s := range []eviction.Signal{eviction.Memory, eviction.Disk, eviction.PIDs} {
		if l := got[s]; l.Capacity <= 0 || l.Available <= 0 || l.Available > l.Capacity {
			t.Errorf("%s: %+v", s, l)
		}
	}
}
