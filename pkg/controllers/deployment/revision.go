package deployment

import (
	"encoding/json"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
)

// Annotations that the Deployment and its sets carry; clients read them.
const (
	revisionAnnotation = "deployment.kubernetes.io/revision"
	historyAnnotation  = "deployment.kubernetes.io/revision-history"
	desiredAnnotation  = "deployment.kubernetes.io/desired-replicas"
	maxAnnotation      = "deployment.kubernetes.io/max-replicas"
)

// notCopied are the Deployment's annotations that its sets do not get.
var notCopied = []string{
	corev1.LastAppliedConfigAnnotation, revisionAnnotation, historyAnnotation,
	desiredAnnotation, maxAnnotation, appsv1.DeprecatedRollbackTo,
}

// sameTemplate reports whether a and b make the same pods. The label that
// tells sets apart does not count.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	x, y := *a, *b
	x.Labels, y.Labels = withoutHash(a.Labels), withoutHash(b.Labels)
	return equality.Semantic.DeepEqual(x, y)
}

func withoutHash(labels map[string]string) map[string]string {
	out := maps.Clone(labels)
	delete(out, appsv1.DefaultDeploymentUniqueLabelKey)
	return out
}

// templateHash is the pod-template-hash of a template: short, fit for a label
// and a name, and different after each collision that was met.
func templateHash(t *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	data, err := json.Marshal(t)
	if err != nil {
		panic(err) // an API type: always marshals
	}
	h.Write(data)
	if collisions != nil {
		h.Write([]byte(strconv.Itoa(int(*collisions))))
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

// revisionOf reads the revision of a set or a Deployment; 0 when there is none.
func revisionOf(obj metav1.Object) int64 {
	n, err := strconv.ParseInt(obj.GetAnnotations()[revisionAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// split finds the set that carries d's current template, the oldest if there
// are several, and returns it (or nil) and all others, oldest first.
func split(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) (current *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) {
	sorted := slices.Clone(sets)
	slices.SortFunc(sorted, byAge)
	for _, rs := range sorted {
		if current == nil && sameTemplate(&rs.Spec.Template, &d.Spec.Template) {
			current = rs
		} else {
			old = append(old, rs)
		}
	}
	return current, old
}

func byAge(a, b *appsv1.ReplicaSet) int {
	if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

// newSet makes the ReplicaSet for d's current template, without replicas yet.
func newSet(d *appsv1.Deployment, revision int64) *appsv1.ReplicaSet {
	template := *d.Spec.Template.DeepCopy()
	hash := templateHash(&template, d.Status.CollisionCount)
	if template.Labels == nil {
		template.Labels = map[string]string{}
	}
	template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	selector := d.Spec.Selector.DeepCopy()
	if selector.MatchLabels == nil {
		selector.MatchLabels = map[string]string{}
	}
	selector.MatchLabels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name:            d.Name + "-" + hash,
			Namespace:       d.Namespace,
			Labels:          template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, kind)},
		},
		Spec: appsv1.ReplicaSetSpec{
			Replicas:        new(int32),
			MinReadySeconds: d.Spec.MinReadySeconds,
			Selector:        selector,
			Template:        template,
		},
	}
	annotate(d, rs, revision)
	return rs
}

// annotate brings rs's annotations up to date with d: copies d's own, and
// raises the revision, remembering the one it had.
func annotate(d *appsv1.Deployment, rs *appsv1.ReplicaSet, revision int64) {
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	for k, v := range d.Annotations {
		if !slices.Contains(notCopied, k) {
			rs.Annotations[k] = v
		}
	}
	had := revisionOf(rs)
	if had >= revision {
		return
	}
	rs.Annotations[revisionAnnotation] = strconv.FormatInt(revision, 10)
	if had > 0 {
		rs.Annotations[historyAnnotation] = appendHistory(rs.Annotations[historyAnnotation], had)
	}
}

// historyLimit bounds the revision-history annotation in bytes.
const historyLimit = 2000

// appendHistory adds a revision and drops the oldest beyond the limit.
func appendHistory(history string, revision int64) string {
	next := strconv.FormatInt(revision, 10)
	if history == "" {
		return next
	}
	history += "," + next
	for len(history) > historyLimit {
		_, rest, ok := strings.Cut(history, ",")
		if !ok {
			return next
		}
		history = rest
	}
	return history
}

// setSize records on rs what its Deployment asked for when rs was last scaled:
// proportional scaling starts from it.
func setSize(d *appsv1.Deployment, rs *appsv1.ReplicaSet) {
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	surge, _ := bounds(d)
	rs.Annotations[desiredAnnotation] = strconv.Itoa(int(*d.Spec.Replicas))
	rs.Annotations[maxAnnotation] = strconv.Itoa(int(*d.Spec.Replicas + surge))
}

// sizeAnnotation reads one of the two annotations of setSize.
func sizeAnnotation(rs *appsv1.ReplicaSet, name string) (int32, bool) {
	n, err := strconv.ParseInt(rs.Annotations[name], 10, 32)
	return int32(n), err == nil
}
