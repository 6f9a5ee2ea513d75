package controllers_test

import (
	"fmt"
	"maps"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func (c *cluster) makeDaemonSet(name, image string) {
	c.t.Helper()
	labels := map[string]string{"app": name}
	_, err := c.Client.AppsV1().DaemonSets("default").Create(c.t.Context(), &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: image}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) patchDaemonSet(name, patch string) {
	c.t.Helper()
	if _, err := c.Client.AppsV1().DaemonSets("default").Patch(c.t.Context(), name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// wantDaemons waits until ready daemon pods of the image are on just these
// nodes and the status says so.
func (c *cluster) wantDaemons(name, image string, nodes ...string) {
	c.t.Helper()
	want := map[string]string{}
	for _, n := range nodes {
		want[n] = image
	}
	c.eventually(fmt.Sprintf("daemons of %s on %v", image, nodes), func() error {
		pods, err := c.Client.CoreV1().Pods("default").List(c.t.Context(), metav1.ListOptions{LabelSelector: "app=" + name})
		if err != nil {
			return err
		}
		got := map[string]string{}
		for _, p := range pods.Items {
			got[p.Spec.NodeName] += p.Spec.Containers[0].Image
		}
		ds, err := c.Client.AppsV1().DaemonSets("default").Get(c.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		s, n := ds.Status, int32(len(nodes))
		if !maps.Equal(got, want) || s.DesiredNumberScheduled != n || s.NumberAvailable != n || s.UpdatedNumberScheduled != n || s.ObservedGeneration != ds.Generation {
			return fmt.Errorf("pods %v, status %+v", got, s)
		}
		return nil
	})
}

func TestDaemonSetRunsRollsAndFollowsLabels(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.settle()
		c.makeDaemonSet("agent", "v1")
		c.wantDaemons("agent", "v1", "node-1", "node-2", "node-3")
		c.patchDaemonSet("agent", `{"spec":{"template":{"spec":{"containers":[{"name":"main","image":"v2"}]}}}}`)
		c.wantDaemons("agent", "v2", "node-1", "node-2", "node-3")
		revisions, err := c.Client.AppsV1().ControllerRevisions("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=agent"})
		if err != nil {
			t.Fatal(err)
		}
		newest := int64(0)
		for _, r := range revisions.Items {
			newest = max(newest, r.Revision)
		}
		if len(revisions.Items) != 2 || newest != 2 {
			t.Errorf("%d revisions up to %d, want 2 up to 2", len(revisions.Items), newest)
		}
		c.patchDaemonSet("agent", `{"spec":{"template":{"spec":{"nodeSelector":{"color":"blue"}}}}}`)
		c.wantDaemons("agent", "v2")
		if _, err := c.Client.CoreV1().Nodes().Patch(t.Context(), "node-2", types.MergePatchType, []byte(`{"metadata":{"labels":{"color":"blue"}}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		c.wantDaemons("agent", "v2", "node-2")
	})
}

func TestFailedDaemonPodIsReplaced(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		c.settle()
		c.makeDaemonSet("agent", "v1")
		c.wantDaemons("agent", "v1", "node-1", "node-2", "node-3")
		pods, err := c.Client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=agent"})
		if err != nil {
			t.Fatal(err)
		}
		failed := pods.Items[0]
		failed.Status.Phase = corev1.PodFailed
		if _, err := c.Client.CoreV1().Pods("default").UpdateStatus(t.Context(), &failed, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("another pod has its place", func() error {
			if _, err := c.Client.CoreV1().Pods("default").Get(t.Context(), failed.Name, metav1.GetOptions{}); err == nil {
				return fmt.Errorf("it is still there")
			}
			return nil
		})
		c.wantDaemons("agent", "v1", "node-1", "node-2", "node-3")
	})
}
