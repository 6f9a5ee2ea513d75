package nodelifecycle

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func node(name string, ready corev1.ConditionStatus, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	if ready != "" {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
	}
	for _, c := range change {
		c(n)
	}
	return n
}

func TestStaleIsMeasuredOnOwnClock(t *testing.T) {
	n := node("n", corev1.ConditionTrue)
	// The node's clock is an hour ahead; only changes count.
	p := pulse{}.beat(signOf(n, now.Add(time.Hour)), now)
	if stale(n, p, 40*time.Second, time.Minute, now.Add(39*time.Second)) {
		t.Error("stale before the grace has passed")
	}
	if !stale(n, p, 40*time.Second, time.Minute, now.Add(40*time.Second)) {
		t.Error("not stale after the grace")
	}
	p = p.beat(signOf(n, now.Add(-time.Hour)), now.Add(30*time.Second))
	if stale(n, p, 40*time.Second, time.Minute, now.Add(60*time.Second)) {
		t.Error("stale though its lease changed 30 s ago, if to an older time")
	}
	silent := node("s", "")
	if stale(silent, pulse{}.beat(signOf(silent, time.Time{}), now), 40*time.Second, time.Minute, now.Add(50*time.Second)) {
		t.Error("a node that never spoke has no startup grace")
	}
}

func TestUnknown(t *testing.T) {
	n := node("n", corev1.ConditionTrue, func(n *corev1.Node) {
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse})
	})
	got := unknown(n, now)
	reasons := map[corev1.NodeConditionType]string{}
	for _, c := range got {
		reasons[c.Type] = string(c.Status) + " " + c.Reason
	}
	want := map[corev1.NodeConditionType]string{
		corev1.NodeReady: "Unknown NodeStatusUnknown", corev1.NodeNetworkUnavailable: "False ",
		corev1.NodeMemoryPressure: "Unknown NodeStatusNeverUpdated", corev1.NodeDiskPressure: "Unknown NodeStatusNeverUpdated",
		corev1.NodePIDPressure: "Unknown NodeStatusNeverUpdated",
	}
	if diff := cmp.Diff(want, reasons); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	n.Status.Conditions = got
	if unknown(n, now.Add(time.Minute)) != nil {
		t.Error("an unknown node is marked again")
	}
}

func TestTaints(t *testing.T) {
	foreign := corev1.Taint{Key: "example.org/gpu", Effect: corev1.TaintEffectNoSchedule}
	old := metav1.Time{Time: now.Add(-time.Hour)}
	for _, tc := range []struct {
		name    string
		node    *corev1.Node
		evict   bool
		want    []string
		changed bool
	}{
		{"ready", node("n", corev1.ConditionTrue), true, nil, false},
		{"not ready, no leave to evict", node("n", corev1.ConditionFalse), false, []string{"node.kubernetes.io/not-ready:NoSchedule"}, true},
		{"unknown", node("n", corev1.ConditionUnknown), true, []string{"node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"}, true},
		{"foreign taints stay", node("n", corev1.ConditionTrue, func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{foreign} }), true, []string{"example.org/gpu:NoSchedule"}, false},
		{"ready again", node("n", corev1.ConditionTrue, func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{foreign, {Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute}}
		}), true, []string{"example.org/gpu:NoSchedule"}, true},
		{"pressure and cordon", node("n", corev1.ConditionTrue, func(n *corev1.Node) {
			n.Spec.Unschedulable = true
			n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeDiskPressure, Status: corev1.ConditionTrue})
		}), true, []string{"node.kubernetes.io/disk-pressure:NoSchedule", "node.kubernetes.io/unschedulable:NoSchedule"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, changed := taints(tc.node, tc.evict, now)
			var text []string
			for _, taint := range got {
				text = append(text, taint.ToString())
			}
			if diff := cmp.Diff(tc.want, text); diff != "" || changed != tc.changed {
				t.Errorf("changed %v, want %v; taints (-want +got):\n%s", changed, tc.changed, diff)
			}
			tc.node.Spec.Taints = got
			if _, again := taints(tc.node, tc.evict, now.Add(time.Minute)); again {
				t.Error("the same state changes the taints again")
			}
		})
	}
	kept := node("n", corev1.ConditionUnknown, func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute, TimeAdded: &old}}
	})
	got, _ := taints(kept, true, now)
	for _, taint := range got {
		if taint.Effect == corev1.TaintEffectNoExecute && !taint.TimeAdded.Equal(&old) {
			t.Error("a taint that stays lost the time it was added: pods would get their toleration anew")
		}
	}
}

func TestZones(t *testing.T) {
	in := func(zone string, ready, lost int) (nodes []*corev1.Node) {
		for i := range ready + lost {
			status := corev1.ConditionTrue
			if i >= ready {
				status = corev1.ConditionUnknown
			}
			nodes = append(nodes, node(zone, status, func(n *corev1.Node) { n.Labels = map[string]string{corev1.LabelTopologyZone: zone} }))
		}
		return nodes
	}
	for _, tc := range []struct {
		ready, lost int
		want        zoneState
	}{{3, 0, normal}, {2, 1, normal}, {1, 2, normal}, {0, 3, full}, {0, 1, full}, {3, 3, normal}, {2, 3, partial}, {9, 11, partial}, {10, 10, normal}} {
		if got := zones(in("a", tc.ready, tc.lost), 0.55)["/a"]; got != tc.want {
			t.Errorf("%d ready and %d lost is %v, want %v", tc.ready, tc.lost, got, tc.want)
		}
	}
	if !allFull(zones(append(in("a", 0, 2), in("b", 0, 1)...), 0.55)) {
		t.Error("all zones are lost and it is not seen")
	}
	if allFull(zones(append(in("a", 0, 2), in("b", 1, 1)...), 0.55)) || allFull(nil) {
		t.Error("a living node is not seen")
	}
}

func TestLimiter(t *testing.T) {
	l := limiter{next: map[string]time.Time{}}
	if ok, _ := l.admit("a", 0.1, now); !ok {
		t.Error("the first node has to wait")
	}
	if ok, wait := l.admit("a", 0.1, now.Add(time.Second)); ok || wait != 9*time.Second {
		t.Errorf("the second goes %v after %v, want a wait of 9 s", ok, wait)
	}
	if ok, _ := l.admit("b", 0.1, now); !ok {
		t.Error("zones hold each other up")
	}
	if ok, _ := l.admit("a", 0.1, now.Add(10*time.Second)); !ok {
		t.Error("the rate is not kept")
	}
	if ok, _ := l.admit("c", 0, now); ok {
		t.Error("a stopped zone evicts")
	}
}

func TestRate(t *testing.T) {
	var cfg Config
	cfg.setDefaults()
	for _, tc := range []struct {
		state zoneState
		size  int
		want  float64
	}{{normal, 3, 0.1}, {partial, 50, 0}, {partial, 51, 0.01}, {full, 3, 0.1}} {
		if got := rate(cfg, tc.state, tc.size); got != tc.want {
			t.Errorf("state %v of %d nodes: rate %v, want %v", tc.state, tc.size, got, tc.want)
		}
	}
}

func TestVigil(t *testing.T) {
	at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
	v := vigil{limit: 13 * time.Second}
	if v.hear(true, now) {
		t.Error("the first sign ends a silence that was none")
	}
	if q := v.ask(at(13)); q != nothing {
		t.Errorf("within the limit there is a question, %v", q)
	}
	if v.hear(true, at(13)) {
		t.Error("nodes that all renew at one time are taken for mute")
	}
	if q := v.ask(at(27)); q != takesAny {
		t.Errorf("all are silent, and the question is %v", q)
	}
	v.proved = at(27)
	if q := v.ask(at(39)); q != moreTime {
		t.Errorf("the nodes had no time to renew, and the question is %v", q)
	}
	if q := v.ask(at(40)); q != nothing {
		t.Errorf("the nodes had the time to renew, and the question is %v", q)
	}
	if !v.hear(true, at(41)) || !v.proved.IsZero() {
		t.Error("the silence is over, and counts")
	}
	if v.hear(false, at(60)) {
		t.Error("a silence that goes on is excused")
	}
}
