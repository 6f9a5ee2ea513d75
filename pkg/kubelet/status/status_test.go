package status

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func testPod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}}
}

// inBubble runs a Writer over a fake API server holding one pod.
func inBubble(t *testing.T, test func(t *testing.T, client *fake.Clientset, w *Writer)) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(testPod())
		w := New(Config{Client: client})
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { _ = w.Run(ctx) })
		w.Observe(testPod())
		test(t, client, w)
		cancel()
		done.Wait()
	})
}

func get(t *testing.T, client *fake.Clientset) *corev1.Pod {
	t.Helper()
	pod, err := client.CoreV1().Pods("ns").Get(t.Context(), "p", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func TestNewestStatusIsWritten(t *testing.T) {
	inBubble(t, func(t *testing.T, client *fake.Clientset, w *Writer) {
		for _, phase := range []corev1.PodPhase{corev1.PodPending, corev1.PodRunning, corev1.PodSucceeded} {
			w.Set("u", corev1.PodStatus{Phase: phase})
		}
		synctest.Wait()
		if got := get(t, client).Status.Phase; got != corev1.PodSucceeded {
			t.Errorf("phase %s", got)
		}
	})
}

func TestWritesAreRetriedAndDeleteComesLast(t *testing.T) {
	inBubble(t, func(t *testing.T, client *fake.Clientset, w *Writer) {
		failures := 3
		client.PrependReactor("patch", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			if failures--; failures >= 0 {
				return true, nil, errors.New("no connection")
			}
			return false, nil, nil
		})
		w.Set("u", corev1.PodStatus{Phase: corev1.PodFailed})
		gone := false
		w.Delete("u", func() { gone = true })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if !gone {
			t.Fatal("delete did not end")
		}
		var verbs []string
		for _, a := range client.Actions() {
			verbs = append(verbs, a.GetVerb())
		}
		if n := len(verbs); n != 5 || verbs[3] != "patch" || verbs[4] != "delete" {
			t.Errorf("requests %v", verbs)
		}
		last := client.Actions()[4].(clienttesting.DeleteAction).GetDeleteOptions()
		if *last.GracePeriodSeconds != 0 || *last.Preconditions.UID != "u" {
			t.Errorf("delete options %+v", last)
		}
	})
}

func TestPatchNamesUIDAndOnlyWhatChanged(t *testing.T) {
	base := testPod()
	base.Status = corev1.PodStatus{Phase: corev1.PodPending, HostIP: "192.0.2.1", Conditions: []corev1.PodCondition{
		{Type: "example.com/gate", Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionFalse},
	}}
	desired := *base.Status.DeepCopy()
	desired.Phase = corev1.PodRunning
	desired.Conditions[1].Status = corev1.ConditionTrue
	patch, err := diff(base, &desired)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Metadata map[string]any
		Status   struct {
			HostIP     *string
			Phase      string
			Conditions []corev1.PodCondition
		}
	}
	if err := json.Unmarshal(patch, &got); err != nil {
		t.Fatal(err)
	}
	if got.Metadata["uid"] != "u" || got.Status.HostIP != nil || got.Status.Phase != "Running" ||
		len(got.Status.Conditions) != 1 || got.Status.Conditions[0].Type != corev1.PodReady {
		t.Errorf("patch %s", patch)
	}
	if patch, _ := diff(base, &base.Status); patch != nil {
		t.Errorf("no difference gives %s", patch)
	}
}

func TestForeignMessageStaysAndOverwritingIsRepaired(t *testing.T) {
	inBubble(t, func(t *testing.T, client *fake.Clientset, w *Writer) {
		w.Set("u", corev1.PodStatus{Phase: corev1.PodRunning})
		synctest.Wait()
		pod := get(t, client)
		pod.Status.Message, pod.Status.Phase = "by a user", corev1.PodPending
		pod, err := client.CoreV1().Pods("ns").UpdateStatus(t.Context(), pod, metav1.UpdateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		w.Observe(pod)
		synctest.Wait()
		if got := get(t, client).Status; got.Phase != corev1.PodRunning || got.Message != "by a user" {
			t.Errorf("status %+v", got)
		}
	})
}
