package controlplane

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"coracle/pkg/auth"
	"coracle/pkg/storage/memory"
)

// TestDefaultsAreKept: default objects of priority and fairness that were deleted
// or changed come back, those that an operator has taken over stay as they are,
// and what was a default once goes.
func TestDefaultsAreKept(t *testing.T) {
	cp, err := New(Config{Backend: memory.New(memory.Config{}), SoleWriter: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- cp.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if err := cp.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	flow := kubernetes.NewForConfigOrDie(cp.RESTConfig(&auth.User{Name: "admin", Groups: []string{auth.GroupMasters, auth.GroupAuthenticated}})).FlowcontrolV1()
	get := func(name string) *flowcontrolv1.FlowSchema {
		s, err := flow.FlowSchemas().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	change := func(name, update string) {
		s := get(name)
		s.Annotations[flowcontrolv1.AutoUpdateAnnotationKey] = update
		s.Spec.MatchingPrecedence = 7777
		if _, err := flow.FlowSchemas().Update(ctx, s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	change("service-accounts", "true")
	change("global-default", "false")
	old := get("kube-scheduler")
	old.ObjectMeta = metav1.ObjectMeta{Name: "default-of-old", Annotations: map[string]string{flowcontrolv1.AutoUpdateAnnotationKey: "true"}}
	if _, err := flow.FlowSchemas().Create(ctx, old, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	mine := get("kube-scheduler")
	mine.ObjectMeta = metav1.ObjectMeta{Name: "mine"}
	if _, err := flow.FlowSchemas().Create(ctx, mine, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := flow.FlowSchemas().Delete(ctx, "exempt", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := flow.PriorityLevelConfigurations().Delete(ctx, "leader-election", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}

	as := auth.WithUser(ctx, self())
	kept := func() error {
		cp.fairness.keep(as) // as each minute; what it reads follows the store
		_, exempt := flow.FlowSchemas().Get(ctx, "exempt", metav1.GetOptions{})
		_, level := flow.PriorityLevelConfigurations().Get(ctx, "leader-election", metav1.GetOptions{})
		if err := errors.Join(exempt, level); err != nil {
			return err
		}
		if p := get("service-accounts").Spec.MatchingPrecedence; p == 7777 {
			return fmt.Errorf("service-accounts is still changed")
		}
		if _, err := flow.FlowSchemas().Get(ctx, "default-of-old", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("a default of old: %w", err)
		}
		return nil
	}
	err = kept()
	for deadline := time.Now().Add(30 * time.Second); err != nil && time.Now().Before(deadline); err = kept() {
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	if p := get("global-default").Spec.MatchingPrecedence; p != 7777 {
		t.Errorf("what an operator has taken over was changed to %d", p)
	}
	get("mine")
}
