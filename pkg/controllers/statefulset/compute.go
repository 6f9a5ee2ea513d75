package statefulset

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"coracle/pkg/controllers/podset"
)

// version is one revision of a set's template.
type version struct {
	name     string // of the ControllerRevision
	template *corev1.PodTemplateSpec
}

// observed is what one reconcile sees.
type observed struct {
	set  *appsv1.StatefulSet
	pods []*corev1.Pod // owned, each with an ordinal
	// claim returns the claim of a name in the set's namespace, or nil.
	claim func(name string) *corev1.PersistentVolumeClaim
	// current is what pods below the partition have, update what the others
	// get.
	current, update version
}

// plan is what one reconcile does, in the order of the fields.
type plan struct {
	// own are claims whose owner references change.
	own []*corev1.PersistentVolumeClaim
	// conflicts are claims that another controller manages.
	conflicts []string
	// claims are the missing ones, which their pods wait for.
	claims []missing
	create []*corev1.Pod
	repair []*corev1.Pod // pods that lost a part of their identity
	remove []*corev1.Pod
	// waits says why a pod cannot be made yet, by the pod's name.
	waits  map[string]string
	status appsv1.StatefulSetStatus
	wake   time.Duration // when to look again; 0 means on events
}

// missing is a claim to make for a pod.
type missing struct {
	pod   string
	claim *corev1.PersistentVolumeClaim
}

// slots is the set's pods by their place.
type slots struct {
	start    int
	replicas []*corev1.Pod // by ordinal from start; nil where there is none
	surplus  []*corev1.Pod // outside of the range, highest ordinal first
	// unwell is the first pod that is not available, in the order in which
	// pods are made; nil when all are.
	unwell *corev1.Pod
}

// compute decides what becomes of the set's pods. An ordered set changes one
// pod at a time: the missing one with the lowest ordinal is made when all
// below it are available; then what is too much goes, from above; then an
// update replaces pods, from above. A parallel set does not wait.
func compute(o observed, now time.Time) plan {
	p := plan{status: statusOf(o, now), wake: nextAvailable(o, now)}
	if o.set.DeletionTimestamp != nil {
		return p
	}
	s := slotsOf(o, now)
	ordered := o.set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement
	for i := range s.replicas {
		if settled := p.keep(o, s, i, now); !settled && ordered {
			return p
		}
	}
	for _, pod := range s.surplus {
		p.ownClaims(o, pod, true)
	}
	for _, pod := range s.surplus {
		// One that ended for good never gets well: it is not waited for.
		if ordered && (pod.DeletionTimestamp != nil || !available(o.set, pod, now) && !podset.Finished(pod) && pod != s.unwell) {
			return p
		}
		if pod.DeletionTimestamp == nil {
			p.remove = append(p.remove, pod)
		}
		if ordered {
			return p
		}
	}
	if o.set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType {
		p.roll(o, s, ordered, now)
	}
	return p
}

func slotsOf(o observed, now time.Time) slots {
	s := slots{start: start(o.set), replicas: make([]*corev1.Pod, *o.set.Spec.Replicas)}
	for _, pod := range o.pods {
		if i := ordinalOf(o.set, pod.Name) - s.start; i >= 0 && i < len(s.replicas) {
			s.replicas[i] = pod
		} else {
			s.surplus = append(s.surplus, pod)
		}
	}
	slices.SortFunc(s.surplus, func(a, b *corev1.Pod) int {
		return ordinalOf(o.set, b.Name) - ordinalOf(o.set, a.Name)
	})
	for _, pod := range s.replicas {
		if pod == nil {
			return s // nothing goes before it is made
		}
		if s.unwell == nil && unavailable(o.set, pod, now) {
			s.unwell = pod
		}
	}
	for _, pod := range slices.Backward(s.surplus) {
		if s.unwell == nil && unavailable(o.set, pod, now) {
			s.unwell = pod
		}
	}
	return s
}

// keep brings the pod of one place to what it should be and reports whether
// it is that, so that an ordered set may go on to the next.
func (p *plan) keep(o observed, s slots, i int, now time.Time) bool {
	pod, ordinal := s.replicas[i], s.start+i
	switch {
	case pod == nil:
		p.add(o, ordinal)
		return false
	case podset.Finished(pod):
		// Its node gave it up or its containers ended: another takes its name
		// when it is gone.
		if pod.DeletionTimestamp == nil {
			p.remove = append(p.remove, pod)
		}
		return false
	case pod.Status.Phase == corev1.PodPending && pod.DeletionTimestamp == nil:
		p.claimsFor(o, pod, ordinal)
	}
	p.ownClaims(o, pod, false)
	if unavailable(o.set, pod, now) {
		return false
	}
	if repaired := identified(o.set, pod, ordinal); repaired != nil {
		p.repair = append(p.repair, repaired)
	}
	return true
}

// add makes the pod of an ordinal, unless one of its claims is still going.
func (p *plan) add(o observed, ordinal int) {
	pod := podFor(o, ordinal)
	if why := p.claimsFor(o, pod, ordinal); why != "" {
		if p.waits == nil {
			p.waits = map[string]string{}
		}
		p.waits[pod.Name] = why
		return
	}
	p.create = append(p.create, pod)
}

// roll replaces pods that do not have the update's template, highest ordinal
// first, as long as no more than maxUnavailable pods are down.
func (p *plan) roll(o observed, s slots, ordered bool, now time.Time) {
	partition := 0
	if r := o.set.Spec.UpdateStrategy.RollingUpdate; r != nil && r.Partition != nil {
		partition = int(*r.Partition)
	}
	budget := maxUnavailable(o.set)
	for _, pod := range s.replicas {
		if pod == nil || unavailable(o.set, pod, now) {
			budget--
		}
	}
	for i := len(s.replicas) - 1; i >= partition; i-- {
		pod := s.replicas[i]
		if pod == nil || pod.DeletionTimestamp != nil || podset.Finished(pod) || pod.Labels[revisionLabel] == o.update.name {
			continue
		}
		switch {
		case !available(o.set, pod, now):
			// It is down anyway: replacing it costs nothing. An ordered set
			// gets here only when all of its pods are available.
			if !ordered {
				p.remove = append(p.remove, pod)
			}
		case budget > 0:
			budget--
			p.remove = append(p.remove, pod)
		}
	}
}

// maxUnavailable is how many pods an update may take down at once.
func maxUnavailable(set *appsv1.StatefulSet) int {
	r := set.Spec.UpdateStrategy.RollingUpdate
	if r == nil || r.MaxUnavailable == nil {
		return 1
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(r.MaxUnavailable, int(*set.Spec.Replicas), false)
	if err != nil {
		return 1 // validated on write
	}
	return max(n, 1)
}

func minReady(set *appsv1.StatefulSet) time.Duration {
	return time.Duration(set.Spec.MinReadySeconds) * time.Second
}

func ready(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodRunning && podset.Ready(pod)
}

func available(set *appsv1.StatefulSet, pod *corev1.Pod, now time.Time) bool {
	ok, _ := podset.Available(pod, minReady(set), now)
	return ok && pod.Status.Phase == corev1.PodRunning
}

func unavailable(set *appsv1.StatefulSet, pod *corev1.Pod, now time.Time) bool {
	return pod.DeletionTimestamp != nil || !available(set, pod, now)
}

func nextAvailable(o observed, now time.Time) time.Duration {
	var next time.Duration
	for _, pod := range o.pods {
		if _, wait := podset.Available(pod, minReady(o.set), now); wait > 0 && podset.Active(pod) && (next == 0 || wait < next) {
			next = wait
		}
	}
	return next
}

// statusOf counts the pods. An update is complete when every pod that is
// wanted, and no other, has its template and is ready.
func statusOf(o observed, now time.Time) appsv1.StatefulSetStatus {
	s := *o.set.Status.DeepCopy()
	s.ObservedGeneration = o.set.Generation
	s.CurrentRevision, s.UpdateRevision = o.current.name, o.update.name
	s.Replicas, s.ReadyReplicas, s.AvailableReplicas, s.CurrentReplicas, s.UpdatedReplicas = 0, 0, 0, 0, 0
	if s.CollisionCount == nil {
		s.CollisionCount = new(int32)
	}
	for _, pod := range o.pods {
		s.Replicas++
		if ready(pod) {
			s.ReadyReplicas++
		}
		if available(o.set, pod, now) {
			s.AvailableReplicas++
		}
		if pod.DeletionTimestamp != nil {
			continue
		}
		if pod.Labels[revisionLabel] == o.current.name {
			s.CurrentReplicas++
		}
		if pod.Labels[revisionLabel] == o.update.name {
			s.UpdatedReplicas++
		}
	}
	if n := *o.set.Spec.Replicas; s.Replicas == n && s.ReadyReplicas == n && s.UpdatedReplicas == n {
		s.CurrentReplicas, s.CurrentRevision = s.UpdatedReplicas, s.UpdateRevision
	}
	return s
}
