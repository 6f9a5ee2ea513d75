package controllers_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

func statefulSet(replicas int32, change ...func(*appsv1.StatefulSet)) *appsv1.StatefulSet {
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "db"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, ServiceName: "db", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}},
			Template: deployment("db", "v1", 1).Spec.Template,
		},
	}
	for _, c := range change {
		c(set)
	}
	return set
}

func inParallel(set *appsv1.StatefulSet) { set.Spec.PodManagementPolicy = appsv1.ParallelPodManagement }

func withClaims(deleted, scaled appsv1.PersistentVolumeClaimRetentionPolicyType) func(*appsv1.StatefulSet) {
	return func(set *appsv1.StatefulSet) {
		set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{
			ObjectMeta: metav1.ObjectMeta{Name: "data"},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		}}
		set.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenDeleted: deleted, WhenScaled: scaled}
	}
}

func (c *cluster) makeStatefulSet(set *appsv1.StatefulSet) {
	c.t.Helper()
	if _, err := c.Client.AppsV1().StatefulSets("default").Create(c.t.Context(), set, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) patchStatefulSet(patch string) {
	c.t.Helper()
	if _, err := c.Client.AppsV1().StatefulSets("default").Patch(c.t.Context(), "db", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) setStatefulImage(image string) {
	c.t.Helper()
	c.patchStatefulSet(fmt.Sprintf(`{"spec":{"template":{"spec":{"containers":[{"name":"main","image":%q}]}}}}`, image))
}

// members returns the images of the set's ready pods, by name, and of the
// others too, with a mark.
func (c *cluster) members() map[string]string {
	c.t.Helper()
	pods, err := c.Client.CoreV1().Pods("default").List(c.t.Context(), metav1.ListOptions{LabelSelector: "app=db"})
	if err != nil {
		c.t.Fatal(err)
	}
	out := map[string]string{}
	for _, p := range pods.Items {
		out[p.Name] = p.Spec.Containers[0].Image
		if !slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}) || p.DeletionTimestamp != nil {
			out[p.Name] += " not ready"
		}
	}
	return out
}

func (c *cluster) wantMembers(want map[string]string) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("the set's pods are %v", want), func() error {
		if got := c.members(); !maps.Equal(got, want) {
			return fmt.Errorf("they are %v", got)
		}
		return nil
	})
}

// wantRolledOut waits until the status says that all is done.
func (c *cluster) wantRolledOut() *appsv1.StatefulSet {
	c.t.Helper()
	var set *appsv1.StatefulSet
	c.eventually("the set is rolled out", func() (err error) {
		set, err = c.Client.AppsV1().StatefulSets("default").Get(c.t.Context(), "db", metav1.GetOptions{})
		if err != nil {
			return err
		}
		s := set.Status
		if n := *set.Spec.Replicas; s.ObservedGeneration != set.Generation || s.CurrentRevision != s.UpdateRevision ||
			!slices.Equal([]int32{s.Replicas, s.ReadyReplicas, s.AvailableReplicas, s.CurrentReplicas, s.UpdatedReplicas}, slices.Repeat([]int32{n}, 5)) {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	return set
}

// story writes down what happens to the set's pods: "+db-0" made, "!db-0"
// ready, "-db-0" told to end, "~db-0" gone.
func (c *cluster) story() func() string {
	c.t.Helper()
	w, err := c.Client.CoreV1().Pods("default").Watch(c.t.Context(), metav1.ListOptions{LabelSelector: "app=db"})
	if err != nil {
		c.t.Fatal(err)
	}
	var mu sync.Mutex
	var told []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		living, uids := map[string]bool{}, map[string]types.UID{}
		tell := func(what string) {
			if !living[what] {
				living[what] = true
				told = append(told, what)
			}
		}
		for e := range w.ResultChan() {
			p, ok := e.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			mu.Lock()
			if e.Type == watch.Added && uids[p.Name] != "" {
				c.t.Errorf("a second %s while the first is there", p.Name)
			}
			uids[p.Name] = p.UID
			tell("+" + p.Name)
			for _, cond := range p.Status.Conditions {
				if cond.Type == corev1.PodReady && cond.Status == corev1.ConditionTrue {
					tell("!" + p.Name)
				}
			}
			if p.DeletionTimestamp != nil {
				tell("-" + p.Name)
			}
			if e.Type == watch.Deleted {
				tell("~" + p.Name)
				uids[p.Name] = ""
				for _, mark := range []string{"+", "!", "-", "~"} {
					delete(living, mark+p.Name)
				}
			}
			mu.Unlock()
		}
	}()
	c.t.Cleanup(func() { w.Stop(); <-done })
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		out := strings.Join(told, " ")
		told = nil
		return out
	}
}

func TestStatefulSetLifeInOrder(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		story := c.story()
		expect := func(want string) {
			t.Helper()
			c.settle()
			if got := story(); got != want {
				t.Errorf("it went\n%s, want\n%s", got, want)
			}
		}
		c.makeStatefulSet(statefulSet(3))
		first := c.wantRolledOut()
		expect("+db-0 !db-0 +db-1 !db-1 +db-2 !db-2")
		c.setStatefulImage("v2")
		second := c.wantRolledOut()
		expect("-db-2 ~db-2 +db-2 !db-2 -db-1 ~db-1 +db-1 !db-1 -db-0 ~db-0 +db-0 !db-0")
		c.wantMembers(map[string]string{"db-0": "v2", "db-1": "v2", "db-2": "v2"})
		c.patchStatefulSet(`{"spec":{"replicas":1}}`)
		c.wantRolledOut()
		expect("-db-2 ~db-2 -db-1 ~db-1")
		c.setStatefulImage("v1")
		back := c.wantRolledOut()
		if back.Status.CurrentRevision != first.Status.CurrentRevision || second.Status.CurrentRevision == first.Status.CurrentRevision {
			t.Errorf("revisions %s, %s and back to %s", first.Status.CurrentRevision, second.Status.CurrentRevision, back.Status.CurrentRevision)
		}
		r, err := c.Client.AppsV1().ControllerRevisions("default").Get(t.Context(), back.Status.CurrentRevision, metav1.GetOptions{})
		if err != nil || r.Revision != 3 {
			t.Errorf("the revision put back has number %d, err %v", r.Revision, err)
		}
		pod, err := c.Client.CoreV1().Pods("default").Get(t.Context(), "db-0", metav1.GetOptions{})
		if err != nil || pod.Spec.Hostname != "db-0" || pod.Spec.Subdomain != "db" || pod.Labels[appsv1.PodIndexLabel] != "0" ||
			pod.Labels[appsv1.StatefulSetPodNameLabel] != "db-0" || pod.Labels[appsv1.StatefulSetRevisionLabel] != r.Name {
			t.Errorf("the pod is %+v, err %v", pod, err)
		}
	})
}

func TestStatefulSetHaltsAtASickPod(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeStatefulSet(statefulSet(2))
		c.wantRolledOut()
		c.node.change(func(s *simulator) { s.broken["bad"] = true })
		c.setStatefulImage("bad")
		c.wantMembers(map[string]string{"db-0": "v1", "db-1": "bad not ready"})
		c.patchStatefulSet(`{"spec":{"replicas":3}}`)
		c.setStatefulImage("v2")
		c.settle()
		c.wantMembers(map[string]string{"db-0": "v1", "db-1": "bad not ready"})
		if err := c.Client.CoreV1().Pods("default").Delete(t.Context(), "db-1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.wantRolledOut()
		c.wantMembers(map[string]string{"db-0": "v2", "db-1": "v2", "db-2": "v2"})
	})
}

func TestStatefulSetPartitionAndLostPods(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeStatefulSet(statefulSet(3))
		c.wantRolledOut()
		c.patchStatefulSet(`{"spec":{"updateStrategy":{"rollingUpdate":{"partition":2}}}}`)
		c.setStatefulImage("v2")
		c.wantMembers(map[string]string{"db-0": "v1", "db-1": "v1", "db-2": "v2"})
		for _, name := range []string{"db-0", "db-2"} {
			if err := c.Client.CoreV1().Pods("default").Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		c.settle()
		c.wantMembers(map[string]string{"db-0": "v1", "db-1": "v1", "db-2": "v2"})
		c.patchStatefulSet(`{"spec":{"updateStrategy":{"rollingUpdate":{"partition":0}}}}`)
		c.wantRolledOut()
		c.wantMembers(map[string]string{"db-0": "v2", "db-1": "v2", "db-2": "v2"})
	})
}

func TestStatefulSetReplacesFailedPods(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeStatefulSet(statefulSet(2))
		c.wantRolledOut()
		for _, phase := range []corev1.PodPhase{corev1.PodFailed, corev1.PodSucceeded} {
			p, err := c.Client.CoreV1().Pods("default").Get(t.Context(), "db-0", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			p.Status.Phase = phase
			if _, err := c.Client.CoreV1().Pods("default").UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			c.eventually("another has its name", func() error {
				got, err := c.Client.CoreV1().Pods("default").Get(t.Context(), "db-0", metav1.GetOptions{})
				if err == nil && got.UID == p.UID {
					err = fmt.Errorf("it is still there")
				}
				return err
			})
			c.wantRolledOut()
		}
	})
}

func TestStatefulSetInParallelIgnoresHealth(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.node.change(func(s *simulator) { s.broken["v1"] = true })
		c.makeStatefulSet(statefulSet(3, inParallel))
		c.wantMembers(map[string]string{"db-0": "v1 not ready", "db-1": "v1 not ready", "db-2": "v1 not ready"})
		c.patchStatefulSet(`{"spec":{"replicas":1}}`)
		c.wantMembers(map[string]string{"db-0": "v1 not ready"})
		c.setStatefulImage("v2") // a broken pod is no reason to wait
		c.wantRolledOut()
		c.wantMembers(map[string]string{"db-0": "v2"})
	})
}

// TestStatefulSetIsRolledBack does what "rollout undo" does: it applies an
// earlier revision's patch.
func TestStatefulSetIsRolledBack(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.makeStatefulSet(statefulSet(1, func(s *appsv1.StatefulSet) { s.Spec.RevisionHistoryLimit = new(int32(1)) }))
		for _, image := range []string{"v2", "v3"} {
			c.wantRolledOut()
			c.setStatefulImage(image)
		}
		c.wantRolledOut()
		c.settle()
		list, err := c.Client.AppsV1().ControllerRevisions("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=db"})
		if err != nil || len(list.Items) != 2 {
			t.Fatalf("%d revisions are kept, err %v, want the current one and one more", len(list.Items), err)
		}
		slices.SortFunc(list.Items, func(a, b appsv1.ControllerRevision) int { return int(a.Revision - b.Revision) })
		if list.Items[0].Revision != 2 || !json.Valid(list.Items[0].Data.Raw) {
			t.Fatalf("the older revision is %+v", list.Items[0])
		}
		c.patchStatefulSet(string(list.Items[0].Data.Raw))
		set := c.wantRolledOut()
		c.wantMembers(map[string]string{"db-0": "v2"})
		if set.Status.CurrentRevision != list.Items[0].Name {
			t.Errorf("the revision is %s, want %s again", set.Status.CurrentRevision, list.Items[0].Name)
		}
	})
}
