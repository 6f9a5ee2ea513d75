// Package plugin holds the records that the scheduler keeps of nodes and pods,
// and its filters and scores, one file each.
//
// Contract: plugins are pure. For each attempt to place a pod a plugin is asked
// once about the pod (PreFilter, PreScore) and answers with a plan: that it has
// nothing to say, that the pod is refused whatever the node, that only a few
// nodes can do, or how nodes are to be checked. Plans read the Cluster, they
// never change it; the caller holds the Cluster still while a plan is in use.
// Nothing here keeps a decoded pod: what plugins need is in Pod, whose Shape
// and Group are shared by all pods that are alike.
//
// The framework keeps, for all pods of one class, what it found about each node,
// and asks again only about nodes that changed, came or went. A class is pods of
// one Shape whose labels and namespaces mean the same to every plugin; a plugin
// whose plan depends on them is a Signer. So a Check must depend on nothing but
// the class, the node and the pods on it. What depends on more says so: a
// BandCheck or BandScore splits nodes into bands of equal answer and is asked per
// band at each decision; a plan that looks at the pod itself (its claims) sets
// PerPod and is never shared.
//
// A new plugin is one file and one line in Factories.
package plugin

import "fmt"

// Code says what became of a check.
type Code uint8

// The outcomes of a check.
const (
	// Fits: the node can take the pod.
	Fits Code = iota
	// Unschedulable: it cannot, but could if other pods went away.
	Unschedulable
	// Unresolvable: it cannot, whatever pods go away.
	Unresolvable
)

// Verdict is the answer of a filter about a node, or about a pod as a whole.
// The zero Verdict is Fits.
type Verdict struct {
	Code Code
	// Plugin is the name of the filter that refused; set by the framework.
	Plugin string
	// Reasons are in the words of FailedScheduling events; each counts by itself.
	// Shared, never changed.
	Reasons []string
	// Detail, when not nil, is the only reason at more length, for those who ask.
	Detail func() string
}

// OK says that the verdict is Fits.
func (v *Verdict) OK() bool { return v.Code == Fits }

// MaxScore is the best score of one plugin.
const MaxScore = 100

// Plugin has upstream's name, by which profiles enable, disable and weigh it.
type Plugin interface{ Name() string }

// Filter says which nodes cannot take a pod.
type Filter interface {
	Plugin
	PreFilter(c *Cluster, p *Pod) FilterPlan
}

// FilterPlan is what a filter will do about one pod. The zero plan has nothing
// to say about it.
type FilterPlan struct {
	// Check looks at one node; nil when there is nothing to check.
	Check Check
	// Changed, when not nil, is asked instead of Check about views that differ
	// from their node.
	Changed Check
	// Refuse, when not OK, refuses the pod whatever the node.
	Refuse Verdict
	// Nodes, when not nil, are the names of the only nodes that can do.
	Nodes []string
	// Among, when not nil, are indices of nodes in rising order: Check refuses all
	// others as they are now. Not to be kept.
	Among []int32
	// PerPod says that Check depends on more than the pod's class. Whether it is
	// set, and whether nodes are limited, depends on the class.
	PerPod bool
}

// Check looks at one node, possibly one with pods added and taken away. What
// it answers for an unchanged node depends on the pod's class, the node's
// facts and the pods on the node only, unless it is a BandCheck.
type Check interface{ Check(v *View) Verdict }

// QuickCheck is a Check that can say yes or no without saying why.
type QuickCheck interface {
	Check
	// Fits says whether Check admits the node as it is.
	Fits(n *Node) bool
}

// BandCheck is a Check that depends on the cluster as well. The band of a node
// depends on the class, the node and its pods; nodes of one band get one
// answer, which may change from decision to decision.
type BandCheck interface {
	Check
	Band(n *Node) int32
	// CheckBand equals Check for each unchanged node of the band.
	CheckBand(band int32) Code
}

// Score says how well nodes suit a pod.
type Score interface {
	Plugin
	PreScore(c *Cluster, p *Pod) ScorePlan
}

// ScorePlan is how a score will value nodes for one pod. With neither Node nor
// Band it has nothing to say.
type ScorePlan struct {
	Node NodeScore
	Band BandScore
	// PerPod says that scores depend on more than the pod's class.
	PerPod bool
	// CountsNodes says that Scores looks at Band.Nodes.
	CountsNodes bool
}

// NodeScore values a node by itself: between 0 and MaxScore, higher is better,
// from the class, the node and its pods.
type NodeScore interface{ Score(n *Node) int64 }

// BandScore values nodes in comparison with each other or by the state of the
// cluster. The band of a node depends on the class, the node and its pods; all
// nodes of one band are worth the same.
type BandScore interface {
	Band(n *Node) int32
	// Scores sets out[i], between 0 and MaxScore, for bands[i]. Bands may occur
	// more than once; each has at least one node that can take the pod.
	Scores(bands []Band, out []int64)
}

// Band is a band of nodes that can take the pod.
type Band struct {
	ID    int32
	Nodes int // how many nodes of it can take the pod
}

// Signer is a Filter or Score whose plans depend on the Group of the pod.
type Signer interface {
	// Sign appends what they depend on; pods of one Shape for which it appends
	// the same get the same plans.
	Sign(c *Cluster, p *Pod, key []byte) []byte
	// Version grows when Sign may append something else than before.
	Version(c *Cluster) uint64
}

// Hinter is a Filter that knows which events may help a pod it refused. A
// filter that is no Hinter is helped by any event.
type Hinter interface {
	// MayHelp says that the event may make a pod schedulable that this filter
	// refused. It errs on the side of true.
	MayHelp(p *Pod, e *Event) bool
}

// refuse is a verdict with one fixed reason.
func refuse(code Code, reasons []string) Verdict { return Verdict{Code: code, Reasons: reasons} }

// Args are the arguments of a plugin, one of the types in args.go; nil means
// the defaults.
type Args any

func wrongArgs(plugin string, args Args) error {
	return fmt.Errorf("plugin %s does not take arguments of type %T; give it %sArgs", plugin, args, plugin)
}
