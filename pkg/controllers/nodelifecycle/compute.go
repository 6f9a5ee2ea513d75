package nodelifecycle

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// sign is the newest sign of life of one node. Only that it changes matters:
// the node's own clock is not trusted.
type sign struct {
	uid       types.UID
	renewed   time.Time // of its lease
	heartbeat time.Time // of its Ready condition
}

// pulse is when a node's sign of life was last seen to change, on this
// process's clock.
type pulse struct {
	sign
	seen time.Time
}

// signOf reads the sign of life of a node and its lease, which may be nil.
func signOf(n *corev1.Node, lease time.Time) sign {
	s := sign{uid: n.UID, renewed: lease}
	if c := condition(n, corev1.NodeReady); c != nil {
		s.heartbeat = c.LastHeartbeatTime.Time
	}
	return s
}

// beat updates a pulse with what is seen now.
func (p pulse) beat(s sign, now time.Time) pulse {
	if p.sign != s || p.seen.IsZero() {
		return pulse{sign: s, seen: now}
	}
	return p
}

// stale reports whether the node has been silent for too long. A node that
// has never spoken gets the startup grace.
func stale(n *corev1.Node, p pulse, grace, startup time.Duration, now time.Time) bool {
	if p.renewed.IsZero() && condition(n, corev1.NodeReady) == nil {
		grace = max(startup, grace)
	}
	return now.Sub(p.seen) >= grace
}

// renewal is the longest that a node which is well is silent for: agents renew
// their leases every 10 s, and after a late renewal two seconds later.
const renewal = 12 * time.Second

// vigil tells the silence of nodes that died from that of nodes which nobody
// could hear: when all are silent at once, a store that stood still is more
// likely than a common death.
type vigil struct {
	limit time.Duration // of a silence of all that is nothing special
	heard time.Time     // when any node's sign of life last changed
	// proved is since when the store is known to take writes while all are
	// silent; zero when it is not known.
	proved time.Time
}

// hear notes whether a node's sign of life changed now, and reports whether
// that ends a time in which nobody could be heard: it counts against no one.
func (v *vigil) hear(one bool, now time.Time) (again bool) {
	if !one && !v.heard.IsZero() {
		return false
	}
	again = v.mute(now) && !v.heard.IsZero()
	v.heard, v.proved = now, time.Time{}
	return again
}

// mute reports whether all nodes have been silent for suspiciously long.
func (v *vigil) mute(now time.Time) bool { return now.Sub(v.heard) > v.limit }

// question is what must be known before a silent node counts as lost.
type question int

const (
	nothing  question = iota // others are heard: it is lost
	takesAny                 // does the store take writes at all?
	moreTime                 // it does; the nodes have not had the time to use it
)

// ask returns what is to be known now.
func (v *vigil) ask(now time.Time) question {
	switch {
	case !v.mute(now):
		return nothing
	case v.proved.IsZero():
		return takesAny
	case now.Sub(v.proved) <= renewal:
		return moreTime
	}
	return nothing
}

func condition(n *corev1.Node, t corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == t {
			return &n.Status.Conditions[i]
		}
	}
	return nil
}

// reported are the conditions a node agent posts; all are unknown when it is
// silent.
var reported = []corev1.NodeConditionType{
	corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure,
}

// unknown returns n's conditions with those that its agent reports set to
// Unknown, or nil when they are already.
func unknown(n *corev1.Node, now time.Time) []corev1.NodeCondition {
	out := slices.Clone(n.Status.Conditions)
	changed := false
	for _, t := range reported {
		i := slices.IndexFunc(out, func(c corev1.NodeCondition) bool { return c.Type == t })
		switch {
		case i < 0:
			out = append(out, corev1.NodeCondition{
				Type: t, Status: corev1.ConditionUnknown, Reason: "NodeStatusNeverUpdated",
				Message: "Kubelet never posted node status.", LastHeartbeatTime: n.CreationTimestamp,
				LastTransitionTime: metav1.Time{Time: now},
			})
			changed = true
		case out[i].Status != corev1.ConditionUnknown:
			out[i].Status, out[i].Reason = corev1.ConditionUnknown, "NodeStatusUnknown"
			out[i].Message = "Kubelet stopped posting node status."
			out[i].LastTransitionTime = metav1.Time{Time: now}
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return out
}

// pressure maps conditions to the taints that keep pods off a node.
var pressure = []struct {
	condition corev1.NodeConditionType
	taint     string
}{
	{corev1.NodeMemoryPressure, corev1.TaintNodeMemoryPressure},
	{corev1.NodeDiskPressure, corev1.TaintNodeDiskPressure},
	{corev1.NodePIDPressure, corev1.TaintNodePIDPressure},
	{corev1.NodeNetworkUnavailable, corev1.TaintNodeNetworkUnavailable},
}

// lost is the taint key for a node that is not ready, or "" when it is ready.
func lost(n *corev1.Node) string {
	c := condition(n, corev1.NodeReady)
	switch {
	case c == nil:
		return corev1.TaintNodeNotReady
	case c.Status == corev1.ConditionTrue:
		return ""
	case c.Status == corev1.ConditionUnknown:
		return corev1.TaintNodeUnreachable
	}
	return corev1.TaintNodeNotReady
}

// ours are the taints that this controller alone puts and removes.
func ours(t corev1.Taint) bool {
	switch t.Key {
	case corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable:
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	case corev1.TaintNodeUnschedulable, corev1.TaintNodeMemoryPressure, corev1.TaintNodeDiskPressure,
		corev1.TaintNodePIDPressure, corev1.TaintNodeNetworkUnavailable:
		return t.Effect == corev1.TaintEffectNoSchedule
	}
	return false
}

// taints returns the taints that n should have, and whether they differ from
// those it has. evict says whether a node that is not ready may lose its pods.
// A taint that stays keeps the time it was added.
func taints(n *corev1.Node, evict bool, now time.Time) (want []corev1.Taint, changed bool) {
	for _, t := range n.Spec.Taints {
		if !ours(t) {
			want = append(want, t)
		}
	}
	foreign := len(want)
	add := func(key string, effect corev1.TaintEffect) {
		t := corev1.Taint{Key: key, Effect: effect, TimeAdded: &metav1.Time{Time: now}}
		if i := index(n.Spec.Taints, t); i >= 0 {
			t = n.Spec.Taints[i]
		}
		want = append(want, t)
	}
	if key := lost(n); key != "" {
		add(key, corev1.TaintEffectNoSchedule)
		if evict {
			add(key, corev1.TaintEffectNoExecute)
		}
	}
	for _, p := range pressure {
		if c := condition(n, p.condition); c != nil && c.Status == corev1.ConditionTrue {
			add(p.taint, corev1.TaintEffectNoSchedule)
		}
	}
	if n.Spec.Unschedulable {
		add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	}
	changed = len(want) != len(n.Spec.Taints)
	for _, t := range want[foreign:] {
		changed = changed || index(n.Spec.Taints, t) < 0
	}
	return want, changed
}

func index(taints []corev1.Taint, t corev1.Taint) int {
	return slices.IndexFunc(taints, func(have corev1.Taint) bool { return have.MatchTaint(&t) })
}

// evicting reports whether n carries the taint that makes pods leave.
func evicting(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoExecute && ours(t)
	})
}

// zoneState is how much of a zone is lost.
type zoneState int

const (
	normal  zoneState = iota
	partial           // so much that the fault is likely to be ours
	full              // nothing is left to move pods to
)

// zoneOf names n's failure zone.
func zoneOf(n *corev1.Node) string {
	return n.Labels[corev1.LabelTopologyRegion] + "/" + n.Labels[corev1.LabelTopologyZone]
}

// zones judges each zone, given what fraction of lost nodes is partial.
func zones(nodes []*corev1.Node, threshold float64) map[string]zoneState {
	type count struct{ ready, lost int }
	counts := map[string]count{}
	for _, n := range nodes {
		c := counts[zoneOf(n)]
		if lost(n) == "" {
			c.ready++
		} else {
			c.lost++
		}
		counts[zoneOf(n)] = c
	}
	out := make(map[string]zoneState, len(counts))
	for zone, c := range counts {
		switch {
		case c.ready == 0 && c.lost > 0:
			out[zone] = full
		case c.lost > 2 && float64(c.lost)/float64(c.lost+c.ready) >= threshold:
			out[zone] = partial
		default:
			out[zone] = normal
		}
	}
	return out
}

// allFull reports whether every zone is lost: then it is more likely that this
// process is cut off than that all nodes died.
func allFull(zones map[string]zoneState) bool {
	for _, s := range zones {
		if s != full {
			return false
		}
	}
	return len(zones) > 0
}

// limiter paces evictions in each zone: one node at a time, at the zone's
// rate. It is not safe for concurrent use.
type limiter struct {
	next map[string]time.Time // when the zone's next node may go
}

// admit reports whether a node of zone may go now, or how long to wait.
// perSecond of zero stops evictions.
func (l *limiter) admit(zone string, perSecond float64, now time.Time) (bool, time.Duration) {
	if perSecond <= 0 {
		return false, retryStopped
	}
	if wait := l.next[zone].Sub(now); wait > 0 {
		// The rate may have changed since; never wait longer than it says.
		return false, min(wait, time.Duration(float64(time.Second)/perSecond))
	}
	l.next[zone] = now.Add(time.Duration(float64(time.Second) / perSecond))
	return true, 0
}

// retryStopped is how soon a stopped zone is looked at again.
const retryStopped = 5 * time.Second

// rate is how many nodes of a zone lose their pods per second.
func rate(cfg Config, state zoneState, size int) float64 {
	switch state {
	case partial:
		if size > cfg.LargeZone {
			return cfg.SecondaryRate
		}
		return 0
	default:
		// A zone that is lost as a whole is evacuated, while others live.
		return cfg.EvictionRate
	}
}

// sortedNodes orders nodes by name, for fairness among zones of one rate.
func sortedNodes(nodes []*corev1.Node) []*corev1.Node {
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	return nodes
}
