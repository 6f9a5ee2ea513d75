package statefulset

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func newSet(replicas int32, change ...func(*appsv1.StatefulSet)) *appsv1.StatefulSet {
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns", UID: "set", Generation: 2},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, ServiceName: "svc", PodManagementPolicy: appsv1.OrderedReadyPodManagement,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: template("new"),
			UpdateStrategy: appsv1.StatefulSetUpdateStrategy{
				Type:          appsv1.RollingUpdateStatefulSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: new(int32)},
			},
		},
	}
	for _, c := range change {
		c(set)
	}
	return set
}

func template(image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}},
	}
}

func parallel(set *appsv1.StatefulSet) { set.Spec.PodManagementPolicy = appsv1.ParallelPodManagement }
func onDelete(set *appsv1.StatefulSet) {
	set.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}
}
func partition(n int32) func(*appsv1.StatefulSet) {
	return func(set *appsv1.StatefulSet) { set.Spec.UpdateStrategy.RollingUpdate.Partition = &n }
}
func unavailableMax(v intstr.IntOrString) func(*appsv1.StatefulSet) {
	return func(set *appsv1.StatefulSet) { set.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable = &v }
}
func from(n int32) func(*appsv1.StatefulSet) {
	return func(set *appsv1.StatefulSet) { set.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: n} }
}

// pod builds a member that has been ready for a minute.
func pod(set *appsv1.StatefulSet, ordinal int, revision string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := podFor(observed{set: set, current: version{revision, &set.Spec.Template}, update: version{revision, &set.Spec.Template}}, ordinal)
	p.UID = types.UID(fmt.Sprint("pod-", ordinal))
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{
		Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Time{Time: now.Add(-time.Minute)},
	}}}
	for _, c := range change {
		c(p)
	}
	return p
}

func unready(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }
func failed(p *corev1.Pod)  { p.Status.Phase = corev1.PodFailed }
func done(p *corev1.Pod)    { p.Status.Phase = corev1.PodSucceeded }
func dying(p *corev1.Pod)   { p.DeletionTimestamp = &metav1.Time{Time: now} }

func podNames(pods []*corev1.Pod) []string {
	var out []string
	for _, p := range pods {
		out = append(out, p.Name)
	}
	return out
}

func look(set *appsv1.StatefulSet, pods ...*corev1.Pod) observed {
	old := template("old")
	return observed{
		set: set, pods: pods,
		current: version{"old", &old}, update: version{"new", &set.Spec.Template},
		claim: func(string) *corev1.PersistentVolumeClaim { return nil },
	}
}

func TestCompute(t *testing.T) {
	type pods = []*corev1.Pod
	for _, tc := range []struct {
		name   string
		set    *appsv1.StatefulSet
		pods   func(set *appsv1.StatefulSet) pods
		create []string
		remove []string
		wake   time.Duration
	}{
		{name: "the first alone", set: newSet(3), create: []string{"web-0"}},
		{name: "all at once", set: newSet(3, parallel), create: []string{"web-0", "web-1", "web-2"}},
		{name: "numbered from elsewhere", set: newSet(2, from(5), parallel), create: []string{"web-5", "web-6"}},
		{name: "the next when the one before is there", set: newSet(3),
			pods:   func(s *appsv1.StatefulSet) pods { return pods{pod(s, 0, "new")} },
			create: []string{"web-1"}},
		{name: "not before", set: newSet(3),
			pods: func(s *appsv1.StatefulSet) pods { return pods{pod(s, 0, "new", unready)} }},
		{name: "not before it was ready for long enough", set: newSet(2, func(s *appsv1.StatefulSet) { s.Spec.MinReadySeconds = 90 }),
			pods: func(s *appsv1.StatefulSet) pods { return pods{pod(s, 0, "new")} }, wake: 30 * time.Second},
		{name: "a hole is filled before anything goes", set: newSet(2),
			pods:   func(s *appsv1.StatefulSet) pods { return pods{pod(s, 1, "new"), pod(s, 2, "new")} },
			create: []string{"web-0"}},
		{name: "a failed pod goes first", set: newSet(2),
			pods:   func(s *appsv1.StatefulSet) pods { return pods{pod(s, 0, "new", failed)} },
			remove: []string{"web-0"}},
		{name: "so does one that ended well", set: newSet(2, parallel),
			pods:   func(s *appsv1.StatefulSet) pods { return pods{pod(s, 0, "new", done)} },
			create: []string{"web-1"}, remove: []string{"web-0"}},
		{name: "a name is not taken before its pod is gone", set: newSet(1, parallel),
			pods: func(s *appsv1.StatefulSet) pods { return pods{pod(s, 0, "new", dying, failed)} }},
		{name: "scaled down from above, one at a time", set: newSet(1),
			pods:   func(s *appsv1.StatefulSet) pods { return pods{pod(s, 0, "new"), pod(s, 1, "new"), pod(s, 2, "new")} },
			remove: []string{"web-2"}},
		{name: "the next when it is gone", set: newSet(1),
			pods: func(s *appsv1.StatefulSet) pods {
				return pods{pod(s, 0, "new"), pod(s, 1, "new"), pod(s, 2, "new", dying)}
			}},
		{name: "not while another is not ready", set: newSet(1),
			pods: func(s *appsv1.StatefulSet) pods {
				return pods{pod(s, 0, "new", unready), pod(s, 1, "new"), pod(s, 2, "new")}
			}},
		{name: "the sick one itself may go", set: newSet(1),
			pods:   func(s *appsv1.StatefulSet) pods { return pods{pod(s, 0, "new"), pod(s, 1, "new", unready)} },
			remove: []string{"web-1"}},
		{name: "but not when one below it is sick too", set: newSet(1),
			pods: func(s *appsv1.StatefulSet) pods {
				return pods{pod(s, 0, "new"), pod(s, 1, "new", unready), pod(s, 2, "new", unready)}
			}},
		{name: "unless it ended for good", set: newSet(1),
			pods: func(s *appsv1.StatefulSet) pods {
				return pods{pod(s, 0, "new"), pod(s, 1, "new", failed), pod(s, 2, "new", failed)}
			},
			remove: []string{"web-2"}},
		{name: "all at once down", set: newSet(0, parallel),
			pods:   func(s *appsv1.StatefulSet) pods { return pods{pod(s, 0, "new", unready), pod(s, 1, "new")} },
			remove: []string{"web-1", "web-0"}},
		{name: "what is below the start goes", set: newSet(1, from(1)),
			pods:   func(s *appsv1.StatefulSet) pods { return pods{pod(s, 0, "new"), pod(s, 1, "new")} },
			remove: []string{"web-0"}},
		{name: "an update goes from above", set: newSet(3),
			pods:   func(s *appsv1.StatefulSet) pods { return pods{pod(s, 0, "old"), pod(s, 1, "old"), pod(s, 2, "old")} },
			remove: []string{"web-2"}},
		{name: "and skips what is updated", set: newSet(3),
			pods:   func(s *appsv1.StatefulSet) pods { return pods{pod(s, 0, "old"), pod(s, 1, "old"), pod(s, 2, "new")} },
			remove: []string{"web-1"}},
		{name: "to the partition", set: newSet(3, partition(2)),
			pods: func(s *appsv1.StatefulSet) pods { return pods{pod(s, 0, "old"), pod(s, 1, "old"), pod(s, 2, "new")} }},
		{name: "a broken pod of the old template waits for its user", set: newSet(2),
			pods: func(s *appsv1.StatefulSet) pods { return pods{pod(s, 0, "old"), pod(s, 1, "old", unready)} }},
		{name: "not on delete", set: newSet(1, onDelete),
			pods: func(s *appsv1.StatefulSet) pods { return pods{pod(s, 0, "old")} }},
		{name: "several at once", set: newSet(4, unavailableMax(intstr.FromInt32(2))),
			pods: func(s *appsv1.StatefulSet) pods {
				return pods{pod(s, 0, "old"), pod(s, 1, "old"), pod(s, 2, "old"), pod(s, 3, "old")}
			},
			remove: []string{"web-3", "web-2"}},
		{name: "a share of them, rounded down", set: newSet(4, parallel, unavailableMax(intstr.FromString("60%"))),
			pods: func(s *appsv1.StatefulSet) pods {
				return pods{pod(s, 0, "old"), pod(s, 1, "old"), pod(s, 2, "old"), pod(s, 3, "new", unready)}
			},
			remove: []string{"web-2"}},
		{name: "in parallel the broken ones first", set: newSet(3, parallel),
			pods: func(s *appsv1.StatefulSet) pods {
				return pods{pod(s, 0, "old", unready), pod(s, 1, "old"), pod(s, 2, "old")}
			},
			remove: []string{"web-0"}},
		{name: "a deleted set does nothing", set: newSet(3, func(s *appsv1.StatefulSet) { s.DeletionTimestamp = &metav1.Time{Time: now} })},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var have pods
			if tc.pods != nil {
				have = tc.pods(tc.set)
			}
			p := compute(look(tc.set, have...), now)
			if diff := cmp.Diff(tc.create, podNames(p.create)); diff != "" {
				t.Errorf("creates (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.remove, podNames(p.remove)); diff != "" {
				t.Errorf("removes (-want +got):\n%s", diff)
			}
			if p.wake != tc.wake || len(p.repair) > 0 {
				t.Errorf("wakes in %v and repairs %v", p.wake, podNames(p.repair))
			}
		})
	}
}

func TestPodHasItsIdentity(t *testing.T) {
	set := newSet(3, partition(1), func(s *appsv1.StatefulSet) {
		s.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}
		s.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "data"}, {Name: "tmp"}}
	})
	p := podFor(look(set), 1)
	want := map[string]string{
		"app": "web", "statefulset.kubernetes.io/pod-name": "web-1", "apps.kubernetes.io/pod-index": "1", "controller-revision-hash": "new",
	}
	if diff := cmp.Diff(want, p.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if p.Name != "web-1" || p.GenerateName != "" || p.Spec.Hostname != "web-1" || p.Spec.Subdomain != "svc" || !metav1.IsControlledBy(p, set) {
		t.Errorf("the pod is %+v", p)
	}
	if len(p.Spec.Volumes) != 2 || p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName != "data-web-1" || p.Spec.Volumes[1].Name != "tmp" {
		t.Errorf("its volumes are %+v", p.Spec.Volumes)
	}
	if identified(set, p, 1) != nil {
		t.Error("a fresh pod would be repaired")
	}
	delete(p.Labels, "statefulset.kubernetes.io/pod-name")
	if r := identified(set, p, 1); r == nil || r.Labels["statefulset.kubernetes.io/pod-name"] != "web-1" {
		t.Errorf("a pod without its name label becomes %+v", r)
	}
	if old := podFor(look(set), 0); old.Labels[revisionLabel] != "old" || old.Spec.Containers[0].Image != "old" {
		t.Errorf("below the partition there is %v of %s", old.Labels, old.Spec.Containers[0].Image)
	}
}

func TestOrdinals(t *testing.T) {
	set := newSet(1)
	for name, want := range map[string]int{"web-0": 0, "web-12": 12, "web-": -1, "web-01": -1, "web-+1": -1, "web--1": -1, "web-a": -1,
		"other-0": -1, "web-1-0": -1, "web-99999999999": -1, "web-2147483647": 2147483647} {
		if got := ordinalOf(set, name); got != want {
			t.Errorf("the ordinal of %s is %d, want %d", name, got, want)
		}
	}
}

func TestStatus(t *testing.T) {
	set := newSet(3, func(s *appsv1.StatefulSet) { s.Spec.MinReadySeconds = 30 })
	justReady := func(p *corev1.Pod) {
		p.Status.Conditions[0].LastTransitionTime = metav1.Time{Time: now.Add(-time.Second)}
	}
	got := statusOf(look(set, pod(set, 0, "old"), pod(set, 1, "new", justReady), pod(set, 2, "old", dying)), now)
	want := appsv1.StatefulSetStatus{
		ObservedGeneration: 2, Replicas: 3, ReadyReplicas: 3, AvailableReplicas: 2, CurrentReplicas: 1, UpdatedReplicas: 1,
		CurrentRevision: "old", UpdateRevision: "new", CollisionCount: new(int32),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	got = statusOf(look(set, pod(set, 0, "new"), pod(set, 1, "new"), pod(set, 2, "new")), now)
	if got.CurrentRevision != "new" || got.CurrentReplicas != 3 {
		t.Errorf("a finished update says %+v", got)
	}
	got = statusOf(look(set, pod(set, 0, "new"), pod(set, 1, "new"), pod(set, 2, "new"), pod(set, 3, "old")), now)
	if got.CurrentRevision != "old" {
		t.Errorf("an update with a pod too many says %+v", got)
	}
}

// TestAnyHistory runs sets of every kind through random histories of nodes,
// users and crashes, and checks each step and the end.
func TestAnyHistory(t *testing.T) {
	for seed := range uint64(200) {
		h := newHistory(t, seed)
		for range 60 {
			h.chance()
			h.step()
		}
		h.settle()
		if t.Failed() {
			t.Fatalf("seed %d: %s", seed, strings.Join(h.log, "\n"))
		}
	}
}

func sortedNames(pods map[string]*corev1.Pod) []string {
	var out []string
	for name := range pods {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
