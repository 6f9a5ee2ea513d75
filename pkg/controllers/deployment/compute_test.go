package deployment

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func ptr[T any](v T) *T { return &v }

// world is a cluster reduced to what a Deployment sees of it: sets with pods
// that are only numbers.
type world struct {
	d    *appsv1.Deployment
	sets []*appsv1.ReplicaSet
	now  time.Time
	made int
	// broken images never become available.
	broken map[string]bool
}

func newWorld(replicas int32, surge, unavailable intstr.IntOrString) *world {
	return &world{
		now: epoch, broken: map[string]bool{},
		d: &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns", UID: "d", Generation: 1},
			Spec: appsv1.DeploymentSpec{
				Replicas: &replicas,
				Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
				Template: corev1.PodTemplateSpec{
					ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
					Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "v1"}}},
				},
				Strategy: appsv1.DeploymentStrategy{
					Type:          appsv1.RollingUpdateDeploymentStrategyType,
					RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable},
				},
				RevisionHistoryLimit:    ptr(int32(2)),
				ProgressDeadlineSeconds: ptr(int32(600)),
			},
		},
	}
}

func (w *world) setImage(image string) {
	w.d.Spec.Template.Spec.Containers[0].Image = image
	w.d.Generation++
}

func (w *world) scale(n int32) {
	w.d.Spec.Replicas = &n
	w.d.Generation++
}

// step reconciles once and executes the plan; it reports whether the plan
// wrote anything.
func (w *world) step() bool {
	p := compute(observed{deployment: w.d, sets: w.sets, podsOf: w.pods}, w.now)
	wrote := p.create != nil || len(p.update) > 0 || len(p.remove) > 0 || p.revision != "" || !cmp.Equal(p.status, w.d.Status)
	if p.create != nil {
		w.made++
		rs := p.create.DeepCopy()
		rs.UID = types.UID(strconv.Itoa(w.made))
		rs.CreationTimestamp = metav1.Time{Time: w.now}
		rs.Generation = 1
		w.sets = append(w.sets, rs)
	}
	for _, u := range p.update {
		for i, rs := range w.sets {
			if rs.UID == u.UID {
				u.Generation++
				w.sets[i] = u
			}
		}
	}
	for _, r := range p.remove {
		for i, rs := range w.sets {
			if rs.UID == r.UID {
				w.sets = append(w.sets[:i], w.sets[i+1:]...)
				break
			}
		}
	}
	if p.revision != "" {
		if w.d.Annotations == nil {
			w.d.Annotations = map[string]string{}
		}
		w.d.Annotations[revisionAnnotation] = p.revision
	}
	w.d.Status = p.status
	w.now = w.now.Add(time.Second)
	return wrote
}

// pods stands in for a set's running pods.
func (w *world) pods(rs *appsv1.ReplicaSet) []*corev1.Pod {
	pods := make([]*corev1.Pod, rs.Status.Replicas)
	for i := range pods {
		pods[i] = &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	}
	return pods
}

// settle plays ReplicaSet controller and node for one set: creates or removes
// pods, unavailable ones first, and makes up to ready more of them available.
func (w *world) settle(rs *appsv1.ReplicaSet, ready int32) {
	rs.Status.ObservedGeneration = rs.Generation
	rs.Status.Replicas = replicas(rs)
	rs.Status.AvailableReplicas = min(rs.Status.AvailableReplicas, rs.Status.Replicas)
	if !w.broken[rs.Spec.Template.Spec.Containers[0].Image] {
		rs.Status.AvailableReplicas = min(rs.Status.Replicas, rs.Status.AvailableReplicas+ready)
	}
	rs.Status.ReadyReplicas = rs.Status.AvailableReplicas
}

// run steps until nothing changes.
func (w *world) run(t *testing.T) {
	t.Helper()
	for range 500 {
		wrote := w.step()
		for _, rs := range w.sets {
			w.settle(rs, 1)
		}
		if !wrote && !w.step() {
			return
		}
	}
	t.Fatalf("does not settle: %s", w)
}

func (w *world) String() string {
	s := fmt.Sprintf("deployment %d:", *w.d.Spec.Replicas)
	for _, rs := range w.sets {
		s += fmt.Sprintf(" %s=%d(%d)", rs.Spec.Template.Spec.Containers[0].Image, replicas(rs), rs.Status.AvailableReplicas)
	}
	return s
}

// sizes returns the replicas per image.
func (w *world) sizes() map[string]int32 {
	out := map[string]int32{}
	for _, rs := range w.sets {
		out[rs.Spec.Template.Spec.Containers[0].Image] = replicas(rs)
	}
	return out
}

func (w *world) wantSizes(t *testing.T, want map[string]int32) {
	t.Helper()
	if diff := cmp.Diff(want, w.sizes()); diff != "" {
		t.Errorf("replicas per image (-want +got):\n%s", diff)
	}
}

func (w *world) wantProgress(t *testing.T, status corev1.ConditionStatus, reason string) {
	t.Helper()
	c := condition(&w.d.Status, appsv1.DeploymentProgressing)
	if c == nil || c.Status != status || c.Reason != reason {
		t.Errorf("Progressing is %+v, want %s %s", c, status, reason)
	}
}

func TestRollAndRollBack(t *testing.T) {
	w := newWorld(4, intstr.FromInt32(1), intstr.FromInt32(1))
	w.run(t)
	w.wantSizes(t, map[string]int32{"v1": 4})
	w.wantProgress(t, corev1.ConditionTrue, reasonComplete)
	if got := w.d.Annotations[revisionAnnotation]; got != "1" {
		t.Errorf("revision %s, want 1", got)
	}
	w.setImage("v2")
	w.run(t)
	w.wantSizes(t, map[string]int32{"v1": 0, "v2": 4})
	w.setImage("v1")
	w.run(t)
	w.wantSizes(t, map[string]int32{"v1": 4, "v2": 0})
	if got := w.d.Annotations[revisionAnnotation]; got != "3" {
		t.Errorf("revision after roll back %s, want 3", got)
	}
	for _, rs := range w.sets {
		if rs.Spec.Template.Spec.Containers[0].Image == "v1" && rs.Annotations[historyAnnotation] != "1" {
			t.Errorf("history of v1 is %q, want 1", rs.Annotations[historyAnnotation])
		}
	}
	w.wantProgress(t, corev1.ConditionTrue, reasonComplete)
}

func TestProportionalScaling(t *testing.T) {
	w := newWorld(10, intstr.FromInt32(3), intstr.FromInt32(2))
	w.run(t)
	w.broken["v2"] = true
	w.setImage("v2")
	w.run(t)
	w.wantSizes(t, map[string]int32{"v1": 8, "v2": 5})
	w.scale(30)
	w.run(t)
	w.wantSizes(t, map[string]int32{"v1": 20, "v2": 13})
}

func TestPausedRolloutStandsStill(t *testing.T) {
	w := newWorld(6, intstr.FromInt32(2), intstr.FromInt32(0))
	w.run(t)
	w.setImage("v2")
	w.step()
	w.d.Spec.Paused = true
	w.d.Generation++
	before := w.sizes()
	w.run(t)
	w.wantSizes(t, before)
	w.wantProgress(t, corev1.ConditionUnknown, reasonPaused)
	w.d.Spec.Paused = false
	w.d.Generation++
	w.run(t)
	w.wantSizes(t, map[string]int32{"v1": 0, "v2": 6})
	w.wantProgress(t, corev1.ConditionTrue, reasonComplete)
}

func TestRolloverGivesAllToTheNewest(t *testing.T) {
	w := newWorld(5, intstr.FromInt32(1), intstr.FromInt32(1))
	w.run(t)
	w.broken["v2"] = true
	w.setImage("v2")
	w.run(t)
	w.setImage("v3")
	w.run(t)
	w.wantSizes(t, map[string]int32{"v1": 0, "v2": 0, "v3": 5})
}

func TestProgressDeadline(t *testing.T) {
	w := newWorld(2, intstr.FromInt32(1), intstr.FromInt32(0))
	w.d.Spec.ProgressDeadlineSeconds = ptr(int32(60))
	w.run(t)
	w.broken["v2"] = true
	w.setImage("v2")
	w.run(t)
	p := compute(observed{deployment: w.d, sets: w.sets, podsOf: w.pods}, w.now)
	if p.wake <= 0 || p.wake > time.Minute {
		t.Fatalf("wakes after %v, want at most the deadline of a minute", p.wake)
	}
	w.now = w.now.Add(p.wake)
	w.step()
	w.wantProgress(t, corev1.ConditionFalse, reasonTimedOut)
	w.wantSizes(t, map[string]int32{"v1": 2, "v2": 1})
	w.broken["v2"] = false
	w.run(t)
	w.wantProgress(t, corev1.ConditionTrue, reasonComplete)
}

func TestRecreateNeverOverlaps(t *testing.T) {
	w := newWorld(3, intstr.FromInt32(0), intstr.FromInt32(0))
	w.d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	w.run(t)
	w.setImage("v2")
	for range 20 {
		w.step()
		if n := w.sizes(); n["v1"] > 0 && n["v2"] > 0 {
			t.Fatalf("old and new together: %s", w)
		}
		for _, rs := range w.sets {
			if rs.Spec.Template.Spec.Containers[0].Image == "v2" && replicas(rs) > 0 && w.sets[0].Status.Replicas > 0 {
				t.Fatalf("new set was scaled up while old pods ran: %s", w)
			}
		}
		for _, rs := range w.sets {
			w.settle(rs, 1)
		}
	}
	w.wantSizes(t, map[string]int32{"v1": 0, "v2": 3})
}

func TestHistoryLimit(t *testing.T) {
	w := newWorld(1, intstr.FromInt32(1), intstr.FromInt32(0))
	for i := range 6 {
		w.setImage(fmt.Sprintf("v%d", i))
		w.run(t)
	}
	w.wantSizes(t, map[string]int32{"v3": 0, "v4": 0, "v5": 1})
	w.d.Spec.RevisionHistoryLimit = ptr(int32(0))
	w.d.Generation++
	w.run(t)
	w.wantSizes(t, map[string]int32{"v5": 1})
}

// TestRollingInvariants drives random rollouts: templates and sizes change,
// images are broken and mended, sets settle partially and in any order. At
// every step the plan must stay below replicas+maxSurge (or what was there),
// must not scale away availability below replicas-maxUnavailable, and after
// the disturbance ends everything must settle and then write nothing.
func TestRollingInvariants(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		surge, unavailable := int32(r.IntN(4)), int32(r.IntN(4))
		if surge+unavailable == 0 {
			surge = 1
		}
		w := newWorld(int32(1+r.IntN(12)), intstr.FromInt32(surge), intstr.FromInt32(unavailable))
		w.run(t)
		resizedAt := -100
		for i := range 120 {
			switch r.IntN(12) {
			case 0:
				w.setImage(fmt.Sprintf("v%d", r.IntN(5)))
			case 1:
				image := fmt.Sprintf("v%d", r.IntN(5))
				w.broken[image] = !w.broken[image]
			case 2:
				if i-resizedAt > 20 {
					w.scale(int32(1 + r.IntN(12)))
					resizedAt = i
				}
			}
			was, available := total(w)
			// A smaller size takes pods from all sets alike, whatever is ready.
			rescaling := resized(w.d, w.sets)
			w.step()
			now, _ := total(w)
			want := *w.d.Spec.Replicas
			if limit := max(want+surge, was); now > limit {
				t.Fatalf("seed %d step %d: %d pods asked for, limit %d: %s", seed, i, now, limit, w)
			}
			least := min(max(want-unavailable, 0), available)
			for _, rs := range w.sets {
				w.settle(rs, 0)
			}
			if _, left := total(w); left < least && !rescaling {
				t.Fatalf("seed %d step %d: %d pods stayed available, must be %d: %s", seed, i, left, least, w)
			}
			for _, k := range r.Perm(len(w.sets)) {
				if r.IntN(2) == 0 {
					w.settle(w.sets[k], int32(r.IntN(3)))
				}
			}
		}
		w.broken = map[string]bool{}
		w.run(t)
		image := w.d.Spec.Template.Spec.Containers[0].Image
		for other, n := range w.sizes() {
			if (other == image) != (n == *w.d.Spec.Replicas) && (other == image || n != 0) {
				t.Fatalf("seed %d: settled wrong: %s", seed, w)
			}
		}
		if w.step() {
			t.Fatalf("seed %d: a settled Deployment was written to", seed)
		}
	}
}

func total(w *world) (asked, available int32) {
	for _, rs := range w.sets {
		asked += replicas(rs)
		available += rs.Status.AvailableReplicas
	}
	return asked, available
}
