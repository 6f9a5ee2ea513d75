package reconcile_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"coracle/pkg/reconcile"
)

func TestTransformKeepsAllButManagedFields(t *testing.T) {
	controller := true
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "p", Namespace: "ns", GenerateName: "p-",
			Labels:          map[string]string{"app": "web", "tier": "front"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "rs", UID: "u", Controller: &controller}},
			ManagedFields:   []metav1.ManagedFieldsEntry{{Manager: "m"}},
		},
		Spec:   corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		Status: corev1.PodStatus{HostIP: "10.0.0.1", ContainerStatuses: []corev1.ContainerStatus{{Name: "c", Image: "i"}}},
	}
	want := pod.DeepCopy()
	want.ManagedFields = nil
	for range 2 { // twice: it must be idempotent
		got, err := reconcile.Transform(pod)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("Transform (-want +got):\n%s", diff)
		}
	}
}

func TestConsistentLists(t *testing.T) {
	for have, want := range map[string]string{"0": "", "": "", "17": "17"} {
		o := metav1.ListOptions{ResourceVersion: have}
		reconcile.ConsistentLists(&o)
		if o.ResourceVersion != want {
			t.Errorf("resourceVersion %q became %q, want %q", have, o.ResourceVersion, want)
		}
	}
}

func TestLeadReleasesAfterRunEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		order := make(chan string, 8)
		candidate := func(ctx context.Context, name string) chan error {
			done := make(chan error, 1)
			go func() {
				done <- reconcile.Lead(ctx, reconcile.LeadConfig{Client: client, Name: "test", Identity: name}, func(ctx context.Context) error {
					order <- name + " leads"
					<-ctx.Done()
					time.Sleep(3 * time.Second) // winds down slowly
					order <- name + " ended"
					return ctx.Err()
				})
			}()
			return done
		}
		ctxA, stopA := context.WithCancel(t.Context())
		a := candidate(ctxA, "a")
		time.Sleep(time.Second)
		ctxB, stopB := context.WithCancel(t.Context())
		b := candidate(ctxB, "b")
		time.Sleep(30 * time.Second)
		stopA()
		if err := <-a; err != nil {
			t.Errorf("a: %v", err)
		}
		time.Sleep(10 * time.Second)
		stopB()
		if err := <-b; err != nil {
			t.Errorf("b: %v", err)
		}
		close(order)
		var got []string
		for s := range order {
			got = append(got, s)
		}
		if diff := cmp.Diff([]string{"a leads", "a ended", "b leads", "b ended"}, got); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
}

func TestRunAllEndsAllOnFirstError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		err := reconcile.RunAll(t.Context(), []reconcile.Named{
			{Name: "waits", Runner: runner(func(ctx context.Context) error { <-ctx.Done(); return nil })},
			{Name: "fails", Runner: runner(func(context.Context) error { return boom })},
		})
		if !errors.Is(err, boom) {
			t.Errorf("RunAll returned %v, want boom", err)
		}
	})
}

type runner func(context.Context) error

func (r runner) Run(ctx context.Context) error { return r(ctx) }
