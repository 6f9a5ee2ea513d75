package gc

import (
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// node is what the graph knows of one object. It is replaced, never changed.
type node struct {
	resource   schema.GroupVersionResource
	kind       schema.GroupKind
	namespace  string
	name       string
	uid        types.UID
	version    string // the resourceVersion
	finalizers []string
	owners     []metav1.OwnerReference
	deleting   bool
	foreground bool // has the foreground deletion finalizer
	orphan     bool // has the orphaning finalizer
}

// metadata is what the graph knows of n in the form that the server sends.
func (n *node) metadata() *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: n.namespace, Name: n.name, UID: n.uid, ResourceVersion: n.version,
		OwnerReferences: n.owners, Finalizers: n.finalizers,
	}}
}

// awaits reports whether n is being deleted and waits for its dependents.
func (n *node) awaits() bool { return n.deleting && n.foreground }

// is reports whether ref, found on an object in namespace, means n: not only
// the UID must agree but also kind, name and namespace.
func (n *node) is(ref metav1.OwnerReference, namespace string) bool {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	return err == nil && n.uid == ref.UID && n.name == ref.Name &&
		n.kind == schema.GroupKind{Group: gv.Group, Kind: ref.Kind} &&
		(n.namespace == "" || n.namespace == namespace)
}

// graph is who owns whom, as the informers show it.
type graph struct {
	mu         sync.Mutex
	nodes      map[types.UID]*node                  // guarded by mu
	dependents map[types.UID]map[types.UID]struct{} // owner -> dependents; guarded by mu
}

func newGraph() *graph {
	return &graph{nodes: map[types.UID]*node{}, dependents: map[types.UID]map[types.UID]struct{}{}}
}

// put takes in an object's new state and returns the UIDs that have to be
// looked at because of it.
func (g *graph) put(n *node) []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	was := g.nodes[n.uid]
	g.nodes[n.uid] = n
	if was != nil {
		g.unlink(was)
	}
	for _, ref := range n.owners {
		deps := g.dependents[ref.UID]
		if deps == nil {
			deps = map[types.UID]struct{}{}
			g.dependents[ref.UID] = deps
		}
		deps[n.uid] = struct{}{}
	}
	var dirty []types.UID
	if n.deleting && (n.foreground || n.orphan) {
		dirty = append(dirty, n.uid)
	}
	if n.awaits() && (was == nil || !was.awaits()) {
		dirty = append(dirty, g.dependentsOf(n.uid)...)
	}
	if g.questionable(n) {
		dirty = append(dirty, n.uid)
	}
	// An owner in foreground deletion waits for references to go away.
	if was != nil {
		dirty = append(dirty, g.waiting(was.owners)...)
	}
	return append(dirty, g.waiting(n.owners)...)
}

// questionable reports whether an owner of n is not there, is not what n says,
// or is being deleted: then the server must be asked.
func (g *graph) questionable(n *node) bool {
	return slices.ContainsFunc(n.owners, func(ref metav1.OwnerReference) bool {
		owner := g.nodes[ref.UID]
		return owner == nil || !owner.is(ref, n.namespace) || owner.awaits()
	})
}

// waiting returns those of the owners that wait for their dependents.
func (g *graph) waiting(owners []metav1.OwnerReference) []types.UID {
	var out []types.UID
	for _, ref := range owners {
		if o := g.nodes[ref.UID]; o != nil && o.awaits() {
			out = append(out, o.uid)
		}
	}
	return out
}

// drop removes the object with this UID, unless the graph holds it under
// another name, and returns the UIDs that have to be looked at.
func (g *graph) drop(uid types.UID) []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	was := g.nodes[uid]
	if was == nil {
		return nil
	}
	delete(g.nodes, uid)
	g.unlink(was)
	return append(g.dependentsOf(uid), g.waiting(was.owners)...)
}

// unlink removes n from its owners' dependents.
func (g *graph) unlink(n *node) {
	for _, ref := range n.owners {
		deps := g.dependents[ref.UID]
		delete(deps, n.uid)
		if len(deps) == 0 {
			delete(g.dependents, ref.UID)
		}
	}
}

func (g *graph) dependentsOf(uid types.UID) []types.UID {
	out := make([]types.UID, 0, len(g.dependents[uid]))
	for d := range g.dependents[uid] {
		out = append(out, d)
	}
	return out
}

// get returns the node and its dependents, or nil.
func (g *graph) get(uid types.UID) (*node, []*node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil {
		return nil, nil
	}
	var deps []*node
	for d := range g.dependents[uid] {
		if dn := g.nodes[d]; dn != nil {
			deps = append(deps, dn)
		}
	}
	return n, deps
}

// unsettled returns all nodes that have to be looked at.
func (g *graph) unsettled() []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []types.UID
	for uid, n := range g.nodes {
		if g.questionable(n) || (n.deleting && (n.foreground || n.orphan)) {
			out = append(out, uid)
		}
	}
	return out
}
