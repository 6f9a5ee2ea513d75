package plugin

import (
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
)

// StrategyType is how a node's score follows from how full it is.
type StrategyType string

// The strategies.
const (
	LeastAllocated           StrategyType = "LeastAllocated"
	MostAllocated            StrategyType = "MostAllocated"
	RequestedToCapacityRatio StrategyType = "RequestedToCapacityRatio"
)

// ResourceWeight is a resource that counts in a score.
type ResourceWeight struct {
	Name   corev1.ResourceName
	Weight int64 // at least 1
}

// Point is a point of a scoring function: at a utilisation of 0 to 100 a score
// of 0 to 10.
type Point struct{ Utilization, Score int64 }

// Strategy is how NodeResourcesFit scores nodes. The zero value prefers those
// with the most cpu and memory left.
type Strategy struct {
	Type StrategyType
	// Resources are cpu and memory when empty.
	Resources []ResourceWeight
	// Shape is the function of RequestedToCapacityRatio, by rising utilisation.
	Shape []Point
}

func cpuAndMemory() []ResourceWeight {
	return []ResourceWeight{{corev1.ResourceCPU, 1}, {corev1.ResourceMemory, 1}}
}

// scorer values a node by the amounts of each resource.
type scorer struct {
	resources []ResourceWeight
	// value is the score of one resource; counted says that it takes part.
	value func(requested, capacity int64) int64
	ratio bool // RequestedToCapacityRatio: only scores above 0 take part, rounded
}

func (s Strategy) scorer() (scorer, error) {
	r := s.Resources
	if len(r) == 0 {
		r = cpuAndMemory()
	}
	switch s.Type {
	case "", LeastAllocated:
		return scorer{resources: r, value: least}, nil
	case MostAllocated:
		return scorer{resources: r, value: most}, nil
	case RequestedToCapacityRatio:
		if len(s.Shape) == 0 {
			return scorer{}, fmt.Errorf("the scoring strategy %s of NodeResourcesFit needs a shape with at least one point", s.Type)
		}
		return scorer{resources: r, value: alongShape(s.Shape), ratio: true}, nil
	}
	return scorer{}, fmt.Errorf("NodeResourcesFit has no scoring strategy %q; choose LeastAllocated, MostAllocated or RequestedToCapacityRatio", s.Type)
}

func least(requested, capacity int64) int64 {
	if requested > capacity {
		return 0
	}
	return (capacity - requested) * MaxScore / capacity
}

func most(requested, capacity int64) int64 {
	return min(requested, capacity) * MaxScore / capacity
}

// alongShape is the piecewise linear function through the points.
func alongShape(points []Point) func(requested, capacity int64) int64 {
	const scale = MaxScore / 10
	return func(requested, capacity int64) int64 {
		at := int64(100)
		if requested <= capacity {
			at = requested * 100 / capacity
		}
		for i, p := range points {
			if at > p.Utilization {
				continue
			}
			if i == 0 {
				return p.Score * scale
			}
			q := points[i-1]
			return q.Score*scale + (p.Score-q.Score)*scale*(at-q.Utilization)/(p.Utilization-q.Utilization)
		}
		return points[len(points)-1].Score * scale
	}
}

// strategyScore scores nodes for pods of a shape.
type strategyScore struct {
	scorer
	shape *Shape
	// floored counts pods without requests as well, for cpu and memory.
	floored bool
}

// Score implements NodeScore.
func (s strategyScore) Score(n *Node) int64 {
	var sum, weights int64
	for _, r := range s.resources {
		asked, used := &s.shape.Requests, &n.Used
		if s.floored && (r.Name == corev1.ResourceCPU || r.Name == corev1.ResourceMemory) {
			asked, used = &s.shape.NonZero, &n.NonZero
		}
		want, capacity := asked.Get(r.Name), n.Allocatable.Get(r.Name)
		if capacity == 0 || want == 0 && scalarName(r.Name) {
			continue
		}
		v := s.value(used.Get(r.Name)+want, capacity)
		if s.ratio && v <= 0 {
			continue
		}
		sum += v * r.Weight
		weights += r.Weight
	}
	if weights == 0 {
		return 0
	}
	if s.ratio {
		return int64(math.Round(float64(sum) / float64(weights)))
	}
	return sum / weights
}

func scalarName(name corev1.ResourceName) bool {
	return name != corev1.ResourceCPU && name != corev1.ResourceMemory && name != corev1.ResourceEphemeralStorage
}

// BalancedAllocationArgs are the arguments of NodeResourcesBalancedAllocation.
type BalancedAllocationArgs struct {
	Resources []ResourceWeight // cpu and memory when empty; weights do not matter
}

// BalancedAllocation prefers nodes whose resources the pod makes used to a more
// equal degree.
type BalancedAllocation struct{ resources []ResourceWeight }

func newBalancedAllocation(args Args, _ Handles) (Plugin, error) {
	switch a := args.(type) {
	case nil:
		return &BalancedAllocation{cpuAndMemory()}, nil
	case BalancedAllocationArgs:
		if len(a.Resources) == 0 {
			a.Resources = cpuAndMemory()
		}
		return &BalancedAllocation{a.Resources}, nil
	}
	return nil, wrongArgs("NodeResourcesBalancedAllocation", args)
}

// Name implements Plugin.
func (*BalancedAllocation) Name() string { return "NodeResourcesBalancedAllocation" }

// PreScore implements Score. Pods that ask for nothing do not change the
// balance.
func (b *BalancedAllocation) PreScore(_ *Cluster, p *Pod) ScorePlan {
	for _, r := range b.resources {
		if p.Shape.Requests.Get(r.Name) != 0 {
			return ScorePlan{Node: balance{b.resources, &p.Shape.Requests}}
		}
	}
	return ScorePlan{}
}

type balance struct {
	resources []ResourceWeight
	r         *Resources
}

// Score implements NodeScore: 75 when the pod does not change the balance.
func (b balance) Score(n *Node) int64 {
	with, without := b.evenness(n, 1), b.evenness(n, 0)
	return MaxScore/2 + (MaxScore/2+with-without)/2
}

// evenness is MaxScore less the standard deviation of how full the resources
// are with the pod there times over.
func (b balance) evenness(n *Node, times int64) int64 {
	var few [4]float64
	fractions, total := few[:0], 0.0
	for _, r := range b.resources {
		want, capacity := b.r.Get(r.Name), n.Allocatable.Get(r.Name)
		if capacity == 0 || want == 0 && scalarName(r.Name) {
			continue
		}
		f := min(float64(n.Used.Get(r.Name)+times*want)/float64(capacity), 1)
		fractions = append(fractions, f)
		total += f
	}
	deviation := 0.0
	switch {
	case len(fractions) == 2:
		deviation = math.Abs((fractions[0] - fractions[1]) / 2)
	case len(fractions) > 2:
		mean, sum := total/float64(len(fractions)), 0.0
		for _, f := range fractions {
			sum += (f - mean) * (f - mean)
		}
		deviation = math.Sqrt(sum / float64(len(fractions)))
	}
	return int64((1 - deviation) * MaxScore)
}
