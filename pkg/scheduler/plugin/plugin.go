// Package plugin holds the scheduler's filters and scores, one file each.
//
// Contract: plugins are pure. They see one pod and one node as compact records
// and return why the node cannot take the pod, or how well it would suit. They
// never change what they are given, and are called from several goroutines.
// A new plugin is one file and one line in Filters or Scores.
package plugin

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// Resources are amounts of what pods ask of nodes.
type Resources struct {
	MilliCPU, Memory, Ephemeral int64
	// Others are extended resources and huge pages; nil when there are none.
	Others map[corev1.ResourceName]int64
}

// Pod is what plugins need to know of a pod. It is made once.
type Pod struct {
	UID             types.UID
	Namespace, Name string
	Requests        Resources
	// Weight is Requests with a floor for cpu and memory, so that pods that
	// ask for nothing are spread as well.
	Weight      Resources
	NodeName    string // spec.nodeName
	Tolerations []corev1.Toleration
	Ports       []Port
	Required    nodeaffinity.RequiredNodeAffinity
	// Preferred is nil when the pod has no preferences.
	Preferred *nodeaffinity.PreferredSchedulingTerms
	// Owner is the UID of the controller, or of the pod itself.
	Owner    types.UID
	Images   []string
	Priority int32
}

// Port is a port of the node that a pod takes.
type Port struct {
	IP       string // empty and 0.0.0.0 mean all
	Protocol corev1.Protocol
	Port     int32
}

// Node is what plugins need to know of a node.
type Node struct {
	Name        string
	Object      *corev1.Node // shared, never changed
	Allocatable Resources
	MaxPods     int64
	// Used are the sums over the pods that are on the node or on their way.
	Used, Weight Resources
	Pods         int64
	Ports        map[Port]int
	Owners       map[types.UID]int // pods by owner
	Images       map[string]int64  // size by name
}

// Filter says which nodes cannot take a pod.
type Filter interface {
	// Name is upstream's name of the plugin.
	Name() string
	// Check returns "" when the node can take the pod, else the reason in the
	// words of FailedScheduling events.
	Check(p *Pod, n *Node) string
}

// Score says how well nodes suit a pod.
type Score interface {
	Name() string
	// Weight multiplies the score in the sum.
	Weight() int64
	// Score is between 0 and MaxScore, higher is better; raw scores of other
	// ranges are brought there by Normalize.
	Score(p *Pod, n *Node) int64
}

// Normalizer is a Score whose raw values are compared among the nodes before
// they count.
type Normalizer interface {
	// Normalize changes the raw scores of all feasible nodes in place.
	Normalize(scores []int64)
}

// MaxScore is the best score of one plugin.
const MaxScore = 100

// Filters returns all filters, cheap and selective ones first.
func Filters() []Filter {
	return []Filter{NodeName{}, NodeUnschedulable{}, TaintToleration{}, NodeAffinity{}, NodePorts{}, NodeResourcesFit{}}
}

// Scores returns all scores.
func Scores() []Score {
	return []Score{LeastAllocated{}, BalancedAllocation{}, OwnerSpread{}, PreferNoTaints{}, PreferredNodeAffinity{}, ImageLocality{}}
}

// scaleDown brings raw scores to 0..MaxScore with the largest raw value at 0.
func scaleDown(scores []int64) {
	var top int64
	for _, s := range scores {
		top = max(top, s)
	}
	for i, s := range scores {
		if top == 0 {
			scores[i] = MaxScore
		} else {
			scores[i] = MaxScore - s*MaxScore/top
		}
	}
}

// scaleUp brings raw scores to 0..MaxScore with the largest raw value at
// MaxScore.
func scaleUp(scores []int64) {
	var top int64
	for _, s := range scores {
		top = max(top, s)
	}
	if top == 0 {
		return
	}
	for i, s := range scores {
		scores[i] = s * MaxScore / top
	}
}
