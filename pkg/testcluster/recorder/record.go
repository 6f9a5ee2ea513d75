package recorder

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/testcluster/history"
)

// The kinds of the workload.
const (
	configMaps = "configmaps"
	nodes      = "nodes"
)

const unschedulable = "spec.unschedulable"

// record collects what the clients see. Every method may be called from any
// goroutine.
type record struct {
	seq atomic.Int64
	ops atomic.Int64 // requests sent, which paces restarts and compactions

	mu          sync.Mutex // guards all below
	requests    []*history.Request
	lists       []*history.List
	watches     []*history.Watch
	compactions []history.Compaction
}

// tick is a moment in the order of time.
func (r *record) tick() int64 { return r.seq.Add(1) }

func (r *record) request(q *history.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, q)
}

func (r *record) list(l *history.List) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lists = append(r.lists, l)
}

func (r *record) watch(w *history.Watch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watches = append(r.watches, w)
}

func (r *record) compaction(rev int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.compactions = append(r.compactions, history.Compaction{Seq: r.tick(), Revision: rev})
}

func (r *record) history(changes []history.Change, final int64) *history.History {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &history.History{
		Changes: changes, Final: final, Compactions: slices.Clone(r.compactions),
		Requests: slices.Clone(r.requests), Lists: slices.Clone(r.lists), Watches: slices.Clone(r.watches),
	}
}

// protoObject is an object of k8s.io/api.
type protoObject interface {
	runtime.Object
	metav1.Object
	Marshal() ([]byte, error)
}

// stateOf is an object as the checks see it.
func stateOf(obj runtime.Object) (*history.State, error) {
	o, ok := obj.(protoObject)
	if !ok {
		return nil, fmt.Errorf("an object of type %T is not of the workload's kinds", obj)
	}
	rev, err := strconv.ParseInt(o.GetResourceVersion(), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%s has the resourceVersion %q", o.GetName(), o.GetResourceVersion())
	}
	s := &history.State{
		UID: string(o.GetUID()),
		Content: history.Content{
			Annotations: o.GetAnnotations(), Labels: o.GetLabels(),
			Finalizers: o.GetFinalizers(), Deleting: o.GetDeletionTimestamp() != nil,
		},
	}
	s.Key = history.Key{Resource: configMaps, Namespace: o.GetNamespace(), Name: o.GetName()}
	if n, ok := obj.(*corev1.Node); ok {
		s.Key.Resource = nodes
		s.Content.Fields = map[string]string{unschedulable: strconv.FormatBool(n.Spec.Unschedulable)}
	}
	s.Revision = rev
	s.Digest, err = digest(o)
	return s, err
}

// digest is of all of an object but its resourceVersion.
func digest(o protoObject) (uint64, error) {
	rv := o.GetResourceVersion()
	o.SetResourceVersion("")
	b, err := o.Marshal()
	o.SetResourceVersion(rv)
	if err != nil {
		return 0, fmt.Errorf("encode %s: %w", o.GetName(), err)
	}
	h := fnv.New64a()
	_, _ = h.Write(b) // never fails
	return h.Sum64(), nil
}
