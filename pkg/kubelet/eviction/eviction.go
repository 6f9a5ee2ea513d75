// Package eviction decides when a node is short of memory, disk or processes,
// and which pod has to go. It is pure: measurements and the time come in as
// arguments.
package eviction

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
)

// transition is how long a shortage must be over before it is called so, lest
// the scheduler sends the next pods into it.
const transition = 5 * time.Minute

// criticalPriority is that of system-cluster-critical: such pods are never
// evicted.
const criticalPriority = 2_000_000_000

// Signal is something the node can run short of.
type Signal string

// The signals.
const (
	Memory Signal = "memory"
	Disk   Signal = "ephemeral-storage"
	PIDs   Signal = "pids"
)

// Level is what is left of something. A Capacity of 0 means not measured.
type Level struct {
	Available, Capacity int64
}

// Thresholds say when too little is left. A shared machine may have a full
// disk that is nobody's fault and still holds much: disk counts as short only
// when it is below both its fraction and its bytes.
type Thresholds struct {
	MemoryBytes  int64
	DiskFraction float64
	DiskBytes    int64
	PIDFraction  float64
}

// Default returns the thresholds of a node that is told nothing else.
func Default() Thresholds {
	return Thresholds{MemoryBytes: 100 << 20, DiskFraction: 0.10, DiskBytes: 2 << 30, PIDFraction: 0.02}
}

// minimum returns below which a level counts as short.
func (t Thresholds) minimum(s Signal, l Level) int64 {
	switch s {
	case Memory:
		return t.MemoryBytes
	case Disk:
		return min(int64(float64(l.Capacity)*t.DiskFraction), t.DiskBytes)
	default:
		return int64(float64(l.Capacity) * t.PIDFraction)
	}
}

// Short lists the signals that are below their thresholds now, memory first.
func Short(levels map[Signal]Level, t Thresholds) []Signal {
	var out []Signal
	for _, s := range []Signal{Memory, Disk, PIDs} {
		if l := levels[s]; l.Capacity > 0 && l.Available < t.minimum(s, l) {
			out = append(out, s)
		}
	}
	return out
}

// Pressure remembers since when each signal was last short.
type Pressure map[Signal]time.Time

// Next returns the pressure after a measurement: it begins at once and ends
// only after a while without shortage.
func (p Pressure) Next(short []Signal, now time.Time) Pressure {
	next := Pressure{}
	for s, last := range p {
		if now.Sub(last) < transition {
			next[s] = last
		}
	}
	for _, s := range short {
		next[s] = now
	}
	return next
}

// Under tells whether the node is under pressure of a signal.
func (p Pressure) Under(s Signal) bool {
	_, ok := p[s]
	return ok
}

// Pod is what the choice of a victim needs to know of a pod.
type Pod struct {
	UID      types.UID
	Priority int32
	// Usage and Request are of the signal in question.
	Usage, Request int64
}

// Victim chooses the pod to evict: one that uses more than it asked for before
// one that does not, then the lower priority, then the larger excess. Critical
// pods, and pods that use nothing, are never chosen.
func Victim(pods []Pod) (types.UID, bool) {
	able := slices.DeleteFunc(slices.Clone(pods), func(p Pod) bool { return p.Priority >= criticalPriority || p.Usage <= 0 })
	if len(able) == 0 {
		return "", false
	}
	slices.SortFunc(able, func(a, b Pod) int {
		if over, other := a.Usage > a.Request, b.Usage > b.Request; over != other {
			if over {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(b.Usage-b.Request, a.Usage-a.Request), cmp.Compare(a.UID, b.UID))
	})
	return able[0].UID, true
}

// Message explains an eviction to the pod's owner.
func Message(s Signal, l Level, t Thresholds) string {
	if s == PIDs {
		return fmt.Sprintf("The node was low on resource: pids. Threshold quantity: %d, available: %d. ", t.minimum(s, l), l.Available)
	}
	return fmt.Sprintf("The node was low on resource: %s. Threshold quantity: %s, available: %s. ", s,
		resource.NewQuantity(t.minimum(s, l), resource.BinarySI), resource.NewQuantity(l.Available, resource.BinarySI))
}

// Refuses says why a node under pressure takes no new pod; nil means it takes
// it. Memory pressure keeps out those that ask for none, disk and process
// pressure everything but what the cluster cannot do without.
func (p Pressure) Refuses(pod *corev1.Pod, class corev1.PodQOSClass) error {
	if pod.Spec.Priority != nil && *pod.Spec.Priority >= criticalPriority {
		return nil
	}
	for _, c := range []struct {
		signal    Signal
		condition corev1.NodeConditionType
		everybody bool
	}{{Memory, corev1.NodeMemoryPressure, false}, {Disk, corev1.NodeDiskPressure, true}, {PIDs, corev1.NodePIDPressure, true}} {
		if p.Under(c.signal) && (c.everybody || class == corev1.PodQOSBestEffort) {
			return &Refusal{Condition: c.condition}
		}
	}
	return nil
}

// Refusal is the error of a node under pressure.
type Refusal struct{ Condition corev1.NodeConditionType }

func (r *Refusal) Error() string {
	return fmt.Sprintf("Pod was rejected: The node had condition: [%s]. ", r.Condition)
}

// Image is what the choice of images to remove needs to know.
type Image struct {
	ID       string
	Bytes    int64
	LastUsed time.Time // when a container last used it, or when it was first seen
	InUse    bool
	Pinned   bool
}

// Removable lists images to remove to free at least need bytes, those unused
// longest first. Images seen or used within minAge stay.
func Removable(images []Image, need int64, minAge time.Duration, now time.Time) []string {
	able := slices.DeleteFunc(slices.Clone(images), func(i Image) bool {
		return i.InUse || i.Pinned || now.Sub(i.LastUsed) < minAge
	})
	slices.SortFunc(able, func(a, b Image) int {
		return cmp.Or(a.LastUsed.Compare(b.LastUsed), cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.ID, b.ID))
	})
	var out []string
	for _, i := range able {
		if need <= 0 {
			break
		}
		out = append(out, i.ID)
		need -= i.Bytes
	}
	return out
}
