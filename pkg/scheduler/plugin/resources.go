package plugin

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// NodeResourcesFit keeps pods off nodes that lack what they request.
type NodeResourcesFit struct{}

// Name implements Filter.
func (NodeResourcesFit) Name() string { return "NodeResourcesFit" }

// Check implements Filter; several lacks are joined by ", ", and count one by
// one in the sentence that the user sees.
func (NodeResourcesFit) Check(p *Pod, n *Node) string {
	if n.fits(p) {
		return ""
	}
	return strings.Join(n.lacks(p), ", ")
}

// fits is the hot path: no allocation.
func (n *Node) fits(p *Pod) bool {
	r, u, a := &p.Requests, &n.Used, &n.Allocatable
	if n.Pods+1 > n.MaxPods ||
		r.MilliCPU > 0 && r.MilliCPU > a.MilliCPU-u.MilliCPU ||
		r.Memory > 0 && r.Memory > a.Memory-u.Memory ||
		r.Ephemeral > 0 && r.Ephemeral > a.Ephemeral-u.Ephemeral {
		return false
	}
	for name, want := range r.Others {
		if want > 0 && want > a.Others[name]-u.Others[name] {
			return false
		}
	}
	return true
}

func (n *Node) lacks(p *Pod) []string {
	r, u, a := &p.Requests, &n.Used, &n.Allocatable
	var out []string
	if n.Pods+1 > n.MaxPods {
		out = append(out, "Too many pods")
	}
	if r.MilliCPU > 0 && r.MilliCPU > a.MilliCPU-u.MilliCPU {
		out = append(out, "Insufficient cpu")
	}
	if r.Memory > 0 && r.Memory > a.Memory-u.Memory {
		out = append(out, "Insufficient memory")
	}
	if r.Ephemeral > 0 && r.Ephemeral > a.Ephemeral-u.Ephemeral {
		out = append(out, "Insufficient ephemeral-storage")
	}
	for name, want := range r.Others {
		if want > 0 && want > a.Others[name]-u.Others[name] {
			out = append(out, "Insufficient "+string(name))
		}
	}
	return out
}

// ResourcesOf reads a resource list. Fractions of bytes and of extended
// resources are rounded up.
func ResourcesOf(list corev1.ResourceList) Resources {
	var r Resources
	for name, q := range list {
		switch name {
		case corev1.ResourceCPU:
			r.MilliCPU = q.MilliValue()
		case corev1.ResourceMemory:
			r.Memory = q.Value()
		case corev1.ResourceEphemeralStorage:
			r.Ephemeral = q.Value()
		case corev1.ResourcePods:
		default:
			if r.Others == nil {
				r.Others = map[corev1.ResourceName]int64{}
			}
			r.Others[name] = q.Value()
		}
	}
	return r
}

// Add adds o, or takes it away with sign -1.
func (r *Resources) Add(o *Resources, sign int64) {
	r.MilliCPU += sign * o.MilliCPU
	r.Memory += sign * o.Memory
	r.Ephemeral += sign * o.Ephemeral
	for name, v := range o.Others {
		if r.Others == nil {
			r.Others = map[corev1.ResourceName]int64{}
		}
		r.Others[name] += sign * v
	}
}

// LeastAllocated prefers nodes with more cpu and memory left.
type LeastAllocated struct{}

// Name implements Score.
func (LeastAllocated) Name() string { return "NodeResourcesFit" }

// Weight implements Score.
func (LeastAllocated) Weight() int64 { return 1 }

// Score implements Score.
func (LeastAllocated) Score(p *Pod, n *Node) int64 {
	cpu := left(n.Allocatable.MilliCPU, n.Weight.MilliCPU+p.Weight.MilliCPU)
	memory := left(n.Allocatable.Memory, n.Weight.Memory+p.Weight.Memory)
	return (cpu + memory) / 2
}

func left(capacity, used int64) int64 {
	if capacity <= 0 || used > capacity {
		return 0
	}
	return (capacity - used) * MaxScore / capacity
}

// BalancedAllocation prefers nodes on which cpu and memory would be used to
// the same degree.
type BalancedAllocation struct{}

// Name implements Score.
func (BalancedAllocation) Name() string { return "NodeResourcesBalancedAllocation" }

// Weight implements Score.
func (BalancedAllocation) Weight() int64 { return 1 }

// Score implements Score.
func (BalancedAllocation) Score(p *Pod, n *Node) int64 {
	cpu := fraction(n.Used.MilliCPU+p.Requests.MilliCPU, n.Allocatable.MilliCPU)
	memory := fraction(n.Used.Memory+p.Requests.Memory, n.Allocatable.Memory)
	difference := cpu - memory
	if difference < 0 {
		difference = -difference
	}
	// The standard deviation of two values is half their difference.
	return int64((1 - difference/2) * MaxScore)
}

func fraction(used, capacity int64) float64 {
	if capacity <= 0 {
		return 1
	}
	return min(float64(used)/float64(capacity), 1)
}
