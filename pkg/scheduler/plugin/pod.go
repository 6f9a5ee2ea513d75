package plugin

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// Pod is what the scheduler keeps of a pod. It is immutable: an update of the
// object makes a new one.
type Pod struct {
	UID  types.UID
	Name string
	// Shape and Group are shared by all pods that are alike; never nil.
	Shape *Shape
	Group *Group
	// Node is spec.nodeName.
	Node string
	// Pin is the one node that the pod's required node affinity names by
	// metadata.name, as the pods of DaemonSets do; "" when there is none. It is
	// not part of Shape.
	Pin string
	// Nominated is status.nominatedNodeName.
	Nominated string
	Priority  int32
	// NeverPreempts is preemptionPolicy Never.
	NeverPreempts bool
	// Created and Started are unix times in nanoseconds; Started is 0 before the
	// pod runs.
	Created, Started int64
	// Claims are the names of the PersistentVolumeClaims that the pod's volumes
	// use, those of generic ephemeral volumes included; nil for most pods.
	// Whether there are any is part of Shape.
	Claims []string
	// Devices are the pod's references to ResourceClaims; nil for most pods.
	// Whether there are any is part of Shape.
	Devices []DeviceRef
	// PodGroup is spec.schedulingGroup.podGroupName, "" for most pods.
	PodGroup string
}

// Namespace is the pod's namespace.
func (p *Pod) Namespace() string { return p.Group.Namespace }

// Key is namespace/name.
func (p *Pod) Key() string { return p.Group.Namespace + "/" + p.Name }

// Group is the labels and the namespace of pods. Shared and immutable.
type Group struct {
	Namespace string
	Labels    labels.Set
	// Terminating says that the pods are being deleted.
	Terminating bool

	known known // what the index found out, owned by it
}

// Shape is what a pod asks for. Shared and immutable.
type Shape struct {
	// Scheduler is spec.schedulerName.
	Scheduler string
	Requests  Resources
	// NonZero is Requests with a floor for the cpu and memory of each container
	// that asks for none, so that pods that ask for nothing are spread as well.
	NonZero     Resources
	Tolerations []corev1.Toleration
	Ports       []Port
	// Images are the images of containers and image volumes, normalised.
	Images []string
	// Required is the node selector and the required node affinity; only to be
	// used when HasRequired.
	Required    nodeaffinity.RequiredNodeAffinity
	HasRequired bool
	// Fields are, for each term of the required node affinity, the names of the
	// nodes that its field selector admits; nil when some term admits all.
	Fields []string
	// FieldsConflict says that no term admits any node.
	FieldsConflict bool
	// Preferred is nil when the pod prefers no nodes.
	Preferred *nodeaffinity.PreferredSchedulingTerms
	// The terms of inter-pod affinity.
	Affinity, AntiAffinity                   []*Term
	PreferredAffinity, PreferredAntiAffinity []Weighted
	hasTerms                                 bool // of any of these four
	// Spread are the pod's own topology spread constraints.
	Spread []Constraint
	// Owner is the controller of the pods.
	Owner Owner
	// Features are the declared features of nodes that the pod needs.
	Features []string
}

// Owner names a controller; the zero Owner is none.
type Owner struct{ APIVersion, Kind, Name string }

// Weighted is a preferred term.
type Weighted struct {
	*Term
	Weight int64
}

// Term is one term of inter-pod affinity. Shared and immutable: equal terms are
// the same pointer.
type Term struct {
	TopologyKey string
	Selector    labels.Selector
	// Namespaces are those named, or the pod's own when the term names none.
	Namespaces []string
	// NamespaceSelector selects further namespaces; nil selects none.
	NamespaceSelector labels.Selector
	key               string
}

// Constraint is one topology spread constraint, with the labels that
// matchLabelKeys name already in Selector.
type Constraint struct {
	TopologyKey string
	MaxSkew     int64
	MinDomains  int64 // at least 1
	Selector    labels.Selector
	// Hard is DoNotSchedule.
	Hard bool
	// HonorAffinity and HonorTaints are the node inclusion policies.
	HonorAffinity, HonorTaints bool
}

// Port is a port of the node that a pod takes.
type Port struct {
	IP       string // empty and 0.0.0.0 mean all
	Protocol corev1.Protocol
	Port     int32
}

// Started or created first, for the choice of victims: now stands for a pod
// that has not started.
func (p *Pod) StartTime(now time.Time) time.Time {
	if p.Started == 0 {
		return now
	}
	return time.Unix(0, p.Started)
}
