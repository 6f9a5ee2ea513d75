package scheduler

import (
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/scheduler/plugin"
)

// Verifier replays what happened in a cluster, in order, and says of each
// binding whether the filters of the default profile admit it on the state at
// that time. It is not safe for concurrent use.
type Verifier struct {
	decider  *decider
	records  *plugin.Cluster
	interner *plugin.Interner
	owners   *owners
}

// NewVerifier returns a Verifier of an empty cluster.
func NewVerifier() (*Verifier, error) {
	v := &Verifier{records: plugin.NewCluster(), interner: plugin.NewInterner(), owners: newOwners()}
	profile, err := plugin.NewProfile(defaultPlugins(), plugin.Handles{Owners: v.owners})
	if err != nil {
		return nil, err
	}
	v.decider = newDecider(profile, v.records, rand.New(rand.NewPCG(0, 0)))
	return v, nil
}

// SetNode takes over a node that is there.
func (v *Verifier) SetNode(node *corev1.Node) { v.records.SetNode(plugin.FactsOf(node)) }

// DeleteNode drops a node.
func (v *Verifier) DeleteNode(name string) { v.records.DeleteNode(name) }

// SetNamespace takes over the labels of a namespace; nil drops it.
func (v *Verifier) SetNamespace(name string, labels map[string]string) {
	v.records.SetNamespace(name, labels)
}

// SetOwner takes over a Service or a controller of pods, or with gone drops it.
func (v *Verifier) SetOwner(obj any, gone bool) { v.owners.see(obj, gone) }

// Bind puts a pod on a node and returns the verdict of the filters about it: a
// violation when it is not OK. A node that is not there is a violation.
func (v *Verifier) Bind(pod *corev1.Pod, node string) plugin.Verdict {
	p := v.interner.Pod(pod)
	waiting := *p
	waiting.Node = ""
	verdict := plugin.Verdict{Code: plugin.Unresolvable, Reasons: []string{"node " + node + " does not exist"}}
	if n := v.records.Node(node); n != nil {
		a := prepare(v.decider.profile, v.records, &waiting)
		verdict = a.refused
		if verdict.OK() {
			verdict = a.check(plugin.ViewOf(n))
		}
		if verdict.OK() && a.limited && !a.admits(node) {
			verdict = plugin.Verdict{Code: plugin.Unresolvable, Plugin: a.limiters[0], Reasons: []string{a.absent()}}
		}
	}
	v.records.Place(p, node)
	return verdict
}

// Spread is the highest and the lowest share of a resource that is requested on
// a node, of the nodes that have it.
func (v *Verifier) Spread(resource corev1.ResourceName) (least, most float64) {
	least = 1
	for _, n := range v.records.Nodes() {
		if n == nil || n.Allocatable.Get(resource) == 0 {
			continue
		}
		share := float64(n.Used.Get(resource)) / float64(n.Allocatable.Get(resource))
		least, most = min(least, share), max(most, share)
	}
	return least, most
}

// Update takes over a pod on a node that changed; no filter is asked.
func (v *Verifier) Update(pod *corev1.Pod) {
	if pod.Spec.NodeName != "" {
		v.records.Place(v.interner.Pod(pod), pod.Spec.NodeName)
	}
}

// Gone takes a pod that ended or was deleted off its node.
func (v *Verifier) Gone(uid types.UID) { v.records.Remove(uid) }
