package admission

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestEventRateLimit: one namespace's flood ends, others go on, and time gives
// back what was taken.
func TestEventRateLimit(t *testing.T) {
	now := time.Unix(1000, 0)
	p := NewEventRateLimit(func() time.Time { return now })
	gvr := corev1.SchemeGroupVersion.WithResource("events")
	write := func(namespace string, op Operation) error {
		return p.Validate(t.Context(), request(t, op, gvr, "", &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "e"}}, nil))
	}
	accepted := func(namespace string) (n int) {
		for write(namespace, Create) == nil {
			if n++; n > 10*eventBurst {
				t.Fatal("there is no end")
			}
		}
		return n
	}
	if n := accepted("flood"); n != eventBurst {
		t.Errorf("%d events at once, want %d", n, eventBurst)
	}
	if err := write("flood", Update); !apierrors.IsTooManyRequests(err) {
		t.Errorf("an update beyond: %v", err)
	}
	if err := write("other", Create); err != nil {
		t.Errorf("another namespace: %v", err)
	}
	dry := request(t, Create, gvr, "", &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "flood", Name: "e"}}, nil)
	dry.DryRun = true
	if err := p.Validate(t.Context(), dry); err != nil {
		t.Errorf("a dry run: %v", err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "flood", Name: "p"}}
	if err := p.Validate(t.Context(), request(t, Create, podGVR, "", pod, nil)); err != nil {
		t.Errorf("a pod: %v", err)
	}
	now = now.Add(2 * time.Second)
	if n := accepted("flood"); n != 2*eventsPerSecond {
		t.Errorf("%d events after two seconds, want %d", n, 2*eventsPerSecond)
	}
	for i := range 3 * eventNamespaces {
		now = now.Add(time.Millisecond)
		_ = write(fmt.Sprint("n", i), Create)
	}
	if len(p.buckets) > eventNamespaces {
		t.Errorf("%d namespaces are remembered", len(p.buckets))
	}
	now = now.Add(time.Hour)
	if err := write("flood", Create); err != nil {
		t.Errorf("long after the flood: %v", err)
	}
}
