package plugin

// EventKind is what changed in the cluster.
type EventKind uint8

// The changes that may help a waiting pod. The pods meant by PodAdded to
// PodDeleted are on nodes; OwnPodUpdated is about the waiting pod itself.
const (
	PodAdded EventKind = iota
	PodRelabelled
	// PodScaledDown: a pod on a node asks for less of something.
	PodScaledDown
	PodDeleted
	OwnPodUpdated
	NodeAdded
	NodeUpdated
	NodeDeleted
	NamespaceChanged
	// ObjectChanged is about another kind of object: claims, volumes, classes,
	// slices. Those plugins that know the kind look at it.
	ObjectChanged
)

// Event is a change. Old and new records are immutable.
type Event struct {
	Kind EventKind
	// OldPod and Pod are set for the Pod kinds: OldPod for what was (updated,
	// deleted), Pod for what is (added, updated).
	OldPod, Pod *Pod
	// OldNode and Node likewise for the Node kinds.
	OldNode, Node *Facts
	// OldObject and Object are for ObjectChanged: what was (updated, deleted) and
	// what is (added, updated). When both are nil, anything may have changed.
	OldObject, Object any
}
