package daemonset

import (
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"coracle/pkg/controllers/podset"
	"coracle/pkg/controllers/revision"
)

// observed is what one reconcile sees.
type observed struct {
	set   *appsv1.DaemonSet
	nodes []*corev1.Node
	pods  []*corev1.Pod // owned
	hash  string        // of the current template
	// patience returns how long a failed pod of a node stays before it is
	// replaced, so that one that always fails does not spin.
	patience func(node string) time.Duration
}

// plan is what one reconcile does.
type plan struct {
	create []string // nodes that get a pod
	remove []*corev1.Pod
	status appsv1.DaemonSetStatus
	wake   time.Duration // when to look again; 0 means on events
}

// place is one node with its pods.
type place struct {
	node      string
	run, stay bool
	pods      []*corev1.Pod // all of the set's, oldest first
}

// compute decides which nodes get a pod and which pods go. Pods are replaced
// by a rolling update only when nothing else is to be done.
func compute(o observed, now time.Time) plan {
	places := placesOf(o)
	p := plan{status: statusOf(o, places, now)}
	p.wake = nextAvailable(o, now)
	if o.set.DeletionTimestamp != nil {
		return p
	}
	for _, pl := range places {
		p.manage(o, pl, now)
	}
	if len(p.create)+len(p.remove) == 0 && o.set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		p.roll(o, places, now)
	}
	return p
}

// placesOf sorts the pods by node. Pods of nodes that do not exist are the pod
// garbage collector's.
func placesOf(o observed) []*place {
	byNode := map[string]*place{}
	places := make([]*place, 0, len(o.nodes))
	for _, n := range o.nodes {
		pl := &place{node: n.Name}
		pl.run, pl.stay = placement(o.set, n)
		byNode[n.Name] = pl
		places = append(places, pl)
	}
	slices.SortFunc(places, func(a, b *place) int { return strings.Compare(a.node, b.node) })
	for _, pod := range o.pods {
		if pl := byNode[nodeOf(pod)]; pl != nil {
			pl.pods = append(pl.pods, pod)
		}
	}
	for _, pl := range places {
		slices.SortFunc(pl.pods, func(a, b *corev1.Pod) int {
			if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
				return c
			}
			return strings.Compare(a.Name, b.Name)
		})
	}
	return places
}

// manage keeps one pod on a node that should have one, and none elsewhere. A
// new pod waits until the one before is gone: both may want the same port.
func (p *plan) manage(o observed, pl *place, now time.Time) {
	var active []*corev1.Pod
	for _, pod := range pl.pods {
		switch {
		case pod.DeletionTimestamp != nil:
		case !pl.stay:
			p.remove = append(p.remove, pod)
		case podset.Finished(pod):
			if left := pod.CreationTimestamp.Add(o.patience(pl.node)).Sub(now); left > 0 {
				p.wakeIn(left)
			} else {
				p.remove = append(p.remove, pod)
			}
		default:
			active = append(active, pod)
		}
	}
	if pl.run && len(pl.pods) == 0 {
		p.create = append(p.create, pl.node)
	}
	if len(active) < 2 {
		return
	}
	if surge, _ := bounds(o.set, 1); surge > 0 && len(active) == 2 && current(active[1], o.hash) && !current(active[0], o.hash) {
		return // a rolling update is at it
	}
	// Two of one kind: the older one, which may be in use, stays.
	keep := active[0]
	for _, pod := range active {
		if current(pod, o.hash) && !current(keep, o.hash) && podset.Ready(pod) {
			keep = pod
		}
	}
	for _, pod := range active {
		if pod != keep {
			p.remove = append(p.remove, pod)
		}
	}
}

func (p *plan) wakeIn(d time.Duration) {
	if p.wake == 0 || d < p.wake {
		p.wake = d
	}
}

func current(pod *corev1.Pod, hash string) bool { return pod.Labels[revision.HashLabel] == hash }

// bounds returns how many nodes may have two pods, and how many none, while
// an update rolls over so many nodes.
func bounds(ds *appsv1.DaemonSet, nodes int) (surge, unavailable int) {
	r := ds.Spec.UpdateStrategy.RollingUpdate
	if ds.Spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType || r == nil {
		return 0, 1
	}
	surge, unavailable = scaled(r.MaxSurge, nodes), scaled(r.MaxUnavailable, nodes)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, unavailable
}

func scaled(v *intstr.IntOrString, nodes int) int {
	if v == nil {
		return 0
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(v, nodes, true)
	if err != nil {
		return 0 // validated on write
	}
	return n
}

// roll replaces pods of older templates, as far as bounds allow.
func (p *plan) roll(o observed, places []*place, now time.Time) {
	nodes := 0
	for _, pl := range places {
		if pl.run {
			nodes++
		}
	}
	surge, unavailable := bounds(o.set, nodes)
	if surge > 0 {
		p.rollBySurge(o, places, surge, now)
		return
	}
	down := 0
	var broken, candidates []*corev1.Pod
	for _, pl := range places {
		pod := activeOn(pl)
		switch {
		case !pl.stay || (!pl.run && pod == nil):
		case pod == nil:
			down++
		case !current(pod, o.hash) && isAvailable(o.set, pod, now):
			candidates = append(candidates, pod)
		case !current(pod, o.hash):
			// It is down anyway: replacing it costs nothing.
			broken = append(broken, pod)
			down++
		case !isAvailable(o.set, pod, now):
			down++
		}
	}
	p.remove = append(p.remove, broken...)
	p.remove = append(p.remove, candidates[:min(max(unavailable-down, 0), len(candidates))]...)
}

// rollBySurge starts the new pod beside the old one, and removes the old one
// when the new one is available.
func (p *plan) rollBySurge(o observed, places []*place, surge int, now time.Time) {
	twice := 0
	var waiting []string
	for _, pl := range places {
		var before, after *corev1.Pod
		for _, pod := range pl.pods {
			switch {
			case !podset.Active(pod):
			case current(pod, o.hash):
				after = pod
			default:
				before = pod
			}
		}
		switch {
		case before == nil || !pl.stay:
		case after != nil && isAvailable(o.set, after, now):
			p.remove = append(p.remove, before)
		case after != nil:
			twice++
		case !isAvailable(o.set, before, now):
			p.remove = append(p.remove, before)
		case pl.run && len(pl.pods) == 1:
			waiting = append(waiting, pl.node)
		}
	}
	p.create = append(p.create, waiting[:min(max(surge-twice, 0), len(waiting))]...)
}

// activeOn is the oldest active pod of a place, or nil.
func activeOn(pl *place) *corev1.Pod {
	for _, pod := range pl.pods {
		if podset.Active(pod) {
			return pod
		}
	}
	return nil
}

func minReady(ds *appsv1.DaemonSet) time.Duration {
	return time.Duration(ds.Spec.MinReadySeconds) * time.Second
}

func isAvailable(ds *appsv1.DaemonSet, pod *corev1.Pod, now time.Time) bool {
	ok, _ := podset.Available(pod, minReady(ds), now)
	return ok
}

func nextAvailable(o observed, now time.Time) time.Duration {
	var p plan
	for _, pod := range o.pods {
		if _, wait := podset.Available(pod, minReady(o.set), now); wait > 0 && podset.Active(pod) {
			p.wakeIn(wait)
		}
	}
	return p.wake
}

func statusOf(o observed, places []*place, now time.Time) appsv1.DaemonSetStatus {
	s := *o.set.Status.DeepCopy()
	s.ObservedGeneration = o.set.Generation
	s.CurrentNumberScheduled, s.NumberMisscheduled, s.DesiredNumberScheduled = 0, 0, 0
	s.NumberReady, s.UpdatedNumberScheduled, s.NumberAvailable = 0, 0, 0
	for _, pl := range places {
		scheduled := len(pl.pods) > 0
		if !pl.run {
			if scheduled {
				s.NumberMisscheduled++
			}
			continue
		}
		s.DesiredNumberScheduled++
		if !scheduled {
			continue
		}
		s.CurrentNumberScheduled++
		var ready, available, updated bool
		for _, pod := range pl.pods {
			if !podset.Active(pod) {
				continue
			}
			ready = ready || podset.Ready(pod)
			available = available || isAvailable(o.set, pod, now)
			updated = updated || current(pod, o.hash)
		}
		s.NumberReady += one(ready)
		s.NumberAvailable += one(available)
		s.UpdatedNumberScheduled += one(updated)
	}
	s.NumberUnavailable = s.DesiredNumberScheduled - s.NumberAvailable
	return s
}

func one(b bool) int32 {
	if b {
		return 1
	}
	return 0
}
