package kubelet_test

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/testcluster"
)

// TestAgainstTheRealAPIServer lets the agent, under its node's identity, run a
// pod to Running and away again over the project's own API server.
func TestAgainstTheRealAPIServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.Start(t)
		n := c.AddNode(t, 1)
		pods := c.Client.CoreV1().Pods("default")
		time.Sleep(5 * time.Second)
		synctest.Wait()

		node, err := c.Client.CoreV1().Nodes().Get(t.Context(), n.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ready := false
		for _, cond := range node.Status.Conditions {
			ready = ready || cond.Type == corev1.NodeReady && cond.Status == corev1.ConditionTrue
		}
		if !ready || node.Labels[corev1.LabelHostname] != n.Name {
			t.Errorf("node %+v", node)
		}

		made, err := pods.Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "p"},
			Spec:       corev1.PodSpec{NodeName: n.Name, Containers: []corev1.Container{{Name: "c", Image: "img:1"}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		pod, err := pods.Get(t.Context(), "p", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if pod.Status.Phase != corev1.PodRunning || pod.Status.PodIP == "" || len(pod.Status.Conditions) < 5 {
			t.Fatalf("status %+v", pod.Status)
		}
		before := pod.ResourceVersion
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if pod, err = pods.Get(t.Context(), "p", metav1.GetOptions{}); err != nil || pod.ResourceVersion != before {
			t.Errorf("a quiet pod was written: version %s, then %s, %v", before, pod.ResourceVersion, err)
		}
		if err := pods.Delete(t.Context(), "p", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if _, err := pods.Get(t.Context(), "p", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("after deletion: %v", err)
		}
		if n.Runtime.Live(string(made.UID), "c") != 0 || !n.Runtime.Empty() {
			t.Error("the runtime still holds the pod")
		}
	})
}
