// Package placement is the API explain.coracle.dev/v1: why a pod is where it
// is, or nowhere.
//
// Contract: a scheduler puts its last verdict about each pod into a Book, which
// keeps as many as fit into its budget of bytes; Handler serves them. Verdicts
// are news and not state: they are in memory, of the scheduler that decided,
// and gone when it ends. The package is a leaf that schedulers, servers and
// tools share.
package placement

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Names of the API.
const (
	Group    = "explain.coracle.dev"
	Version  = "v1"
	Kind     = "PodPlacement"
	Resource = "podplacements"
)

// GroupVersion is explain.coracle.dev/v1.
func GroupVersion() schema.GroupVersion { return schema.GroupVersion{Group: Group, Version: Version} }

// PodPlacement is the last verdict of a scheduler about the pod of the same
// namespace and name.
type PodPlacement struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Status            Status `json:"status"`
}

// Result is what came of the last attempt to place a pod.
type Result string

// The results.
const (
	// Placed: a node was chosen and the binding sent.
	Placed Result = "Placed"
	// Unschedulable: no node can take the pod.
	Unschedulable Result = "Unschedulable"
	// Preempting: no node can take it yet; pods of lower priority make room.
	Preempting Result = "Preempting"
)

// Status is a verdict. All of it is the scheduler's.
type Status struct {
	Result Result `json:"result"`
	// NodeName is the chosen node, or the one on which room is made.
	NodeName      string      `json:"nodeName,omitempty"`
	SchedulerName string      `json:"schedulerName"`
	Time          metav1.Time `json:"time"`
	// Attempts is how often the pod has been tried.
	Attempts int `json:"attempts"`
	// Nodes is how many nodes there were.
	Nodes int `json:"nodes"`
	// Message is that of the pod's condition and Event.
	Message string `json:"message,omitempty"`
	// Refusals are the groups of nodes that refused the pod for one reason.
	Refusals []Refusal `json:"refusals,omitempty"`
	// Scores are those of the best nodes, best first. They are left out where
	// keeping them would have slowed the scheduler down.
	Scores []NodeScore `json:"scores,omitempty"`
	// Advice says what would have to change first: each line does away with
	// what one plugin said of some nodes. Plugins that come after it were not
	// asked about those.
	Advice []string `json:"advice,omitempty"`
}

// Refusal is nodes that one plugin refused for the same reasons.
type Refusal struct {
	Plugin  string   `json:"plugin"`
	Reasons []string `json:"reasons"`
	// Nodes is how many they are; 0 when the pod was refused whatever the node.
	Nodes int `json:"nodes"`
	// Examples are the names of the first of them.
	Examples []string `json:"examples,omitempty"`
	// Preemptible says that a node could take the pod if other pods left it.
	Preemptible bool `json:"preemptible"`
	// Lacks are, for each resource that is short, the least that is missing on
	// one of the nodes.
	Lacks []Lack `json:"lacks,omitempty"`
}

// Lack is a resource that is short.
type Lack struct {
	Resource string `json:"resource"`
	Amount   string `json:"amount"` // a quantity
}

// NodeScore is the sum of a node's weighted scores, and its parts.
type NodeScore struct {
	Node    string        `json:"node"`
	Total   int64         `json:"total"`
	Plugins []PluginScore `json:"plugins"`
}

// PluginScore is one plugin's score, from 0 to 100, and how much it counts.
type PluginScore struct {
	Plugin string `json:"plugin"`
	Score  int64  `json:"score"`
	Weight int64  `json:"weight"`
}
