package reconcile

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	clocktesting "k8s.io/utils/clock/testing"
)

// TestRecordBecomesASeries: a deed has the fields of events.k8s.io/v1 and none
// of the old ones, and repeated it is one Event with a series.
func TestRecordBecomesASeries(t *testing.T) {
	client, clock := fake.NewClientset(), clocktesting.NewFakePassiveClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	r := NewRecorder(client, "default-scheduler", clock, nil)
	pod := func(name string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: "1"}}
	}
	deed := Deed{Type: corev1.EventTypeNormal, Reason: "Preempted", Action: "Preempting", Related: pod("by")}
	for range 3 {
		r.Record(pod("victim"), deed, "Preempted by %s", "by")
		if err := r.write(context.Background(), <-r.queue); err != nil {
			t.Fatal(err)
		}
		clock.SetTime(clock.Now().Add(time.Second))
	}
	list, err := client.CoreV1().Events("a").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("%d events, error %v; want one", len(list.Items), err)
	}
	e := &list.Items[0]
	if e.Action != "Preempting" || e.ReportingController != "default-scheduler" || !strings.HasPrefix(e.ReportingInstance, "default-scheduler-") ||
		e.InvolvedObject.Name != "victim" || e.Related == nil || e.Related.Name != "by" || e.EventTime.IsZero() {
		t.Errorf("event %+v", e)
	}
	if e.Count != 0 || !e.FirstTimestamp.IsZero() || !e.LastTimestamp.IsZero() || e.Source.Component != "" {
		t.Errorf("event has fields of the old form: %+v", e)
	}
	if e.Series == nil || e.Series.Count != 3 || !e.Series.LastObservedTime.Equal(&metav1.MicroTime{Time: e.EventTime.Add(2 * time.Second)}) {
		t.Errorf("series %+v, want three until two seconds later", e.Series)
	}
}

// TestEventsOfLongNames: an object whose name leaves no room for a number has
// events all the same.
func TestEventsOfLongNames(t *testing.T) {
	for object, want := range map[string]string{
		"web":                              "web.ff",
		strings.Repeat("x", 250):           strings.Repeat("x", 250) + ".ff",
		strings.Repeat("x", 253):           strings.Repeat("x", 250) + ".ff",
		strings.Repeat("x", 248) + "-.yyy": strings.Repeat("x", 248) + ".ff",
	} {
		if got := EventName(object, 255); got != want {
			t.Errorf("the event of %s has the name %s", object, got)
		}
	}
}
