package plugin

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Resources are amounts of what pods ask of nodes.
type Resources struct {
	MilliCPU, Memory, Ephemeral int64
	// Others are extended resources and huge pages; nil when there are none.
	Others map[corev1.ResourceName]int64
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

// Get is the amount of one resource; cpu in thousandths.
func (r *Resources) Get(name corev1.ResourceName) int64 {
	switch name {
	case corev1.ResourceCPU:
		return r.MilliCPU
	case corev1.ResourceMemory:
		return r.Memory
	case corev1.ResourceEphemeralStorage:
		return r.Ephemeral
	}
	return r.Others[name]
}

// Less says that some resource that p asks for is smaller in r than in o.
func (r *Resources) Less(o, p *Resources) bool {
	if p.MilliCPU > 0 && r.MilliCPU < o.MilliCPU || p.Memory > 0 && r.Memory < o.Memory || p.Ephemeral > 0 && r.Ephemeral < o.Ephemeral {
		return true
	}
	for name, want := range p.Others {
		if want > 0 && r.Others[name] < o.Others[name] {
			return true
		}
	}
	return false
}

func sortedNames(m map[corev1.ResourceName]int64) []corev1.ResourceName {
	names := make([]corev1.ResourceName, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// extended says that a resource is not Kubernetes' own.
func extended(name corev1.ResourceName) bool {
	s := string(name)
	return strings.Contains(s, "/") && !strings.Contains(s, corev1.ResourceDefaultNamespacePrefix) &&
		!strings.HasPrefix(s, corev1.DefaultResourceRequestsPrefix)
}
