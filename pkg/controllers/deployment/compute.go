package deployment

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"coracle/pkg/controllers/podset"
)

// observed is what a Deployment's reconcile sees. Nothing in it is changed.
type observed struct {
	deployment *appsv1.Deployment
	sets       []*appsv1.ReplicaSet // owned, in any order
	// podsOf returns the pods that a set controls. Only Recreate asks.
	podsOf func(*appsv1.ReplicaSet) []*corev1.Pod
}

// plan is what one reconcile does, in this order.
type plan struct {
	create *appsv1.ReplicaSet   // new set, or nil
	update []*appsv1.ReplicaSet // changed copies of observed sets
	remove []*appsv1.ReplicaSet // beyond the history limit
	// revision is the value for the Deployment's revision annotation, or empty
	// when it is right already.
	revision string
	status   appsv1.DeploymentStatus
	// wake, when positive, is when the progress deadline will have passed.
	wake time.Duration
}

// state is a computation in progress: sets are private copies that the steps
// change; what differs from the observed ones at the end becomes the plan.
type state struct {
	d       *appsv1.Deployment
	current *appsv1.ReplicaSet // carries d's template; nil if there is none yet
	old     []*appsv1.ReplicaSet
	fresh   bool // current is not created yet
	remove  []*appsv1.ReplicaSet
	now     time.Time
	status  appsv1.DeploymentStatus
}

// compute decides the next step of a rollout. It never plans more than
// replicas+maxSurge pods, and takes away available ones only while
// replicas-maxUnavailable remain.
func compute(o observed, now time.Time) plan {
	d := o.deployment
	st := &state{d: d, now: now, status: *d.Status.DeepCopy()}
	copies := make([]*appsv1.ReplicaSet, len(o.sets))
	for i, rs := range o.sets {
		copies[i] = rs.DeepCopy()
	}
	st.current, st.old = split(d, copies)
	if d.DeletionTimestamp != nil {
		st.count()
		return plan{status: st.status}
	}
	notePause(d, &st.status, now)
	st.syncRevision()
	switch {
	case d.Spec.Paused:
		rescale(d, st.current, st.old)
		st.count()
	case resized(d, copies):
		rescale(d, st.current, st.old)
		st.count()
	case d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		st.recreate(o.podsOf)
	default:
		st.roll()
	}
	if complete(d, &st.status) {
		st.trimHistory()
	}
	return st.plan(o)
}

// syncRevision makes the current set carry the highest revision and d's
// annotations.
func (st *state) syncRevision() {
	if st.current == nil {
		return
	}
	annotate(st.d, st.current, st.nextRevision())
	st.current.Spec.MinReadySeconds = st.d.Spec.MinReadySeconds
	if hasDeadline(st.d) && condition(&st.status, appsv1.DeploymentProgressing) == nil {
		setCondition(&st.status, progressing(corev1.ConditionTrue, reasonFound, "Found new replica set "+strconv.Quote(st.current.Name)), st.now)
	}
}

// nextRevision is one above all old sets'.
func (st *state) nextRevision() int64 {
	var highest int64
	for _, rs := range st.old {
		highest = max(highest, revisionOf(rs))
	}
	return highest + 1
}

// ensureCurrent plans the current set if there is none.
func (st *state) ensureCurrent() {
	if st.current != nil {
		return
	}
	st.current, st.fresh = newSet(st.d, st.nextRevision()), true
	scaleTo(st.d, st.current, targetOfNew(st.d, st.current, withCurrent(st.current, st.old)))
	if hasDeadline(st.d) {
		putCondition(&st.status, progressing(corev1.ConditionTrue, reasonCreated, "Created new replica set "+strconv.Quote(st.current.Name)), st.now)
	}
}

// recreate brings the old sets to zero, waits until their pods are gone, and
// only then lets the current set have pods.
func (st *state) recreate(podsOf func(*appsv1.ReplicaSet) []*corev1.Pod) {
	down := false
	for _, rs := range activeOf(st.old) {
		scaleTo(st.d, rs, 0)
		down = true
	}
	if !down && !anyRunning(st.old, podsOf) {
		st.ensureCurrent()
		st.grow()
	}
	st.count()
}

func anyRunning(sets []*appsv1.ReplicaSet, podsOf func(*appsv1.ReplicaSet) []*corev1.Pod) bool {
	return slices.ContainsFunc(sets, func(rs *appsv1.ReplicaSet) bool {
		return slices.ContainsFunc(podsOf(rs), func(p *corev1.Pod) bool { return !podset.Finished(p) })
	})
}

// roll grows the current set while there is room, and otherwise shrinks the
// old ones. A reconcile does one of the two.
func (st *state) roll() {
	st.ensureCurrent()
	if !st.fresh && !st.grow() {
		st.shrink()
	}
	st.count()
}

// grow scales the current set towards d's replicas and reports whether it
// changed.
func (st *state) grow() bool {
	was, want := replicas(st.current), *st.d.Spec.Replicas
	target := want
	if was < want {
		target = targetOfNew(st.d, st.current, withCurrent(st.current, st.old))
	}
	if target == was {
		if _, ok := sizeAnnotation(st.current, desiredAnnotation); !ok {
			setSize(st.d, st.current)
		}
		return false
	}
	scaleTo(st.d, st.current, target)
	return true
}

// shrink takes from the old sets first what is not available anyway, then
// what availability allows.
func (st *state) shrink() {
	all := withCurrent(st.current, st.old)
	_, unavailable := bounds(st.d)
	least := *st.d.Spec.Replicas - unavailable
	pending := replicas(st.current) - available(st.current)
	room := sum(all, replicas) - least - pending
	for _, rs := range activeOf(st.old) {
		broken := max(replicas(rs)-available(rs), 0)
		if n := min(broken, room); n > 0 {
			scaleTo(st.d, rs, replicas(rs)-n)
			room -= n
		}
	}
	// What was just taken was not available, so it does not change the sum.
	room = min(room, sum(all, available)-least)
	for _, rs := range activeOf(st.old) {
		if n := min(replicas(rs), room); n > 0 {
			scaleTo(st.d, rs, replicas(rs)-n)
			room -= n
		}
	}
}

// count fills the status from the sets and judges progress.
func (st *state) count() {
	s := &st.status
	all := withCurrent(st.current, st.old)
	s.ObservedGeneration = st.d.Generation
	s.Replicas = sum(all, func(rs *appsv1.ReplicaSet) int32 { return rs.Status.Replicas })
	s.UpdatedReplicas = 0
	if st.current != nil {
		s.UpdatedReplicas = st.current.Status.Replicas
	}
	s.ReadyReplicas = sum(all, func(rs *appsv1.ReplicaSet) int32 { return rs.Status.ReadyReplicas })
	s.AvailableReplicas = sum(all, available)
	s.UnavailableReplicas = max(sum(all, replicas)-s.AvailableReplicas, 0)
	terminating := sum(all, func(rs *appsv1.ReplicaSet) int32 {
		if rs.Status.TerminatingReplicas == nil {
			return 0
		}
		return *rs.Status.TerminatingReplicas
	})
	s.TerminatingReplicas = &terminating
	noteAvailability(st.d, s, st.now)
	noteFailure(s, st.current, st.old, st.now)
}

// trimHistory plans to delete the oldest revisions beyond the limit, if they
// are empty.
func (st *state) trimHistory() {
	if st.d.Spec.RevisionHistoryLimit == nil {
		return
	}
	keep := int(*st.d.Spec.RevisionHistoryLimit)
	var alive []*appsv1.ReplicaSet
	for _, rs := range st.old {
		if rs.DeletionTimestamp == nil {
			alive = append(alive, rs)
		}
	}
	slices.SortStableFunc(alive, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revisionOf(a), revisionOf(b)) })
	for i := 0; i < len(alive)-keep; i++ {
		rs := alive[i]
		if replicas(rs) == 0 && rs.Status.Replicas == 0 && rs.Generation <= rs.Status.ObservedGeneration {
			st.remove = append(st.remove, rs)
		}
	}
}

// plan collects what the steps changed.
func (st *state) plan(o observed) plan {
	p := plan{remove: st.remove}
	if !st.d.Spec.Paused {
		p.wake = noteProgress(st.d, &st.status, st.current, st.now)
	}
	p.status = st.status
	if st.current != nil {
		if r := st.current.Annotations[revisionAnnotation]; r != st.d.Annotations[revisionAnnotation] {
			p.revision = r
		}
	}
	if st.fresh {
		p.create = st.current
	}
	was := make(map[string]*appsv1.ReplicaSet, len(o.sets))
	for _, rs := range o.sets {
		was[rs.Name] = rs
	}
	for _, rs := range withCurrent(st.current, st.old) {
		if old := was[rs.Name]; old != nil && !slices.Contains(st.remove, rs) && differs(old, rs) {
			p.update = append(p.update, rs)
		}
	}
	return p
}

func differs(a, b *appsv1.ReplicaSet) bool {
	return !equality.Semantic.DeepEqual(a.Spec.Replicas, b.Spec.Replicas) ||
		a.Spec.MinReadySeconds != b.Spec.MinReadySeconds || !maps.Equal(a.Annotations, b.Annotations)
}
