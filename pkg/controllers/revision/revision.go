// Package revision keeps the ControllerRevisions of a DaemonSet or StatefulSet:
// one object per pod template it had, numbered, in the format that rollback
// tools read.
//
// The pure part, Plan, decides which revision is current and which are too
// old; Keeper executes.
package revision

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
)

// HashLabel is the label of pods that names their template, and of a
// DaemonSet's revisions.
const HashLabel = appsv1.ControllerRevisionHashLabelKey

// Data is what a revision stores: the strategic merge patch that puts the
// template back.
func Data(template *corev1.PodTemplateSpec) ([]byte, error) {
	raw, err := json.Marshal(template)
	if err != nil {
		return nil, fmt.Errorf("encode pod template: %w", err)
	}
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("encode pod template: %w", err)
	}
	fields["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": fields}})
}

// Template reads the pod template out of a revision.
func Template(r *appsv1.ControllerRevision) (*corev1.PodTemplateSpec, error) {
	var data struct {
		Spec struct {
			Template corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(r.Data.Raw, &data); err != nil {
		return nil, fmt.Errorf("revision %s holds no pod template: %w", r.Name, err)
	}
	return &data.Spec.Template, nil
}

// Owner is the object that revisions belong to.
type Owner struct {
	Object     metav1.Object
	Kind       schema.GroupVersionKind
	Selector   *metav1.LabelSelector
	Template   *corev1.PodTemplateSpec
	Limit      *int32 // of old revisions to keep; nil means 10
	Collisions *int32 // hash collisions met so far
	// HashLabel is the label of new revisions with the hash of their template.
	HashLabel string
}

// Plan is what to do with an owner's revisions.
type Plan struct {
	// Current carries the owner's template. It is new when Create is set, and
	// to be written when Renumber is set.
	Current          *appsv1.ControllerRevision
	Create, Renumber bool
	// Remove are the oldest beyond the limit that no pod uses.
	Remove []*appsv1.ControllerRevision
}

// Compute plans for the revisions that exist. used holds the names of those
// that must stay because pods have them.
func Compute(o Owner, have []*appsv1.ControllerRevision, used map[string]bool) (Plan, error) {
	data, err := Data(o.Template)
	if err != nil {
		return Plan{}, err
	}
	sorted := slices.Clone(have)
	slices.SortFunc(sorted, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	var p Plan
	var highest int64
	for _, r := range sorted {
		highest = max(highest, r.Revision)
		if same(r.Data.Raw, data) {
			p.Current = r
		}
	}
	switch {
	case p.Current == nil:
		p.Create, p.Current = true, newRevision(o, data, highest+1)
	case p.Current.Revision < highest:
		// A template put back to what it was: its revision becomes the newest.
		p.Renumber, p.Current = true, p.Current.DeepCopy()
		p.Current.Revision = highest + 1
	}
	p.Remove = surplus(o, sorted, p.Current.Name, used)
	return p, nil
}

func surplus(o Owner, sorted []*appsv1.ControllerRevision, current string, used map[string]bool) []*appsv1.ControllerRevision {
	limit := 10
	if o.Limit != nil {
		limit = int(*o.Limit)
	}
	var idle []*appsv1.ControllerRevision
	for _, r := range sorted {
		if r.Name != current && !used[r.Name] && r.DeletionTimestamp == nil {
			idle = append(idle, r)
		}
	}
	return idle[:max(len(idle)-limit, 0)]
}

// same compares patches by value: a server may have stored them with other
// spacing or order.
func same(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	// Marshalling sorts keys.
	p, err := json.Marshal(x)
	q, err2 := json.Marshal(y)
	return err == nil && err2 == nil && bytes.Equal(p, q)
}

func newRevision(o Owner, data []byte, number int64) *appsv1.ControllerRevision {
	h := fnv.New32a()
	h.Write(data)
	if o.Collisions != nil {
		h.Write([]byte(strconv.Itoa(int(*o.Collisions))))
	}
	hash := rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
	labels := map[string]string{}
	for k, v := range o.Template.Labels {
		labels[k] = v
	}
	labels[o.HashLabel] = hash
	return &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Name:            o.Object.GetName() + "-" + hash,
			Namespace:       o.Object.GetNamespace(),
			Labels:          labels,
			Annotations:     o.Object.GetAnnotations(),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(o.Object, o.Kind)},
		},
		Data:     runtime.RawExtension{Raw: data},
		Revision: number,
	}
}
