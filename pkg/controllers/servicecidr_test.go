package controllers_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestSecondServiceCIDR: a further range becomes ready, gives addresses, and
// stays until nobody holds one.
func TestSecondServiceCIDR(t *testing.T) {
	scenario(t, func(t *testing.T, c *cluster) {
		ctx, cidrs, services := t.Context(), c.Client.NetworkingV1().ServiceCIDRs(), c.Client.CoreV1().Services("default")
		make := func(name, ip string) error {
			_, err := services.Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name},
				Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
			return err
		}
		if err := make("web", "10.200.0.5"); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "valid range") {
			t.Fatalf("an address of no range: %v", err)
		}
		_, err := cidrs.Create(ctx, &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "more"},
			Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.200.0.0/24"}}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ready := func(want metav1.ConditionStatus) func() error {
			return func() error {
				got, err := cidrs.Get(ctx, "more", metav1.GetOptions{})
				if err != nil {
					return err
				}
				cond := meta.FindStatusCondition(got.Status.Conditions, networkingv1.ServiceCIDRConditionReady)
				if cond == nil || cond.Status != want || len(got.Finalizers) != 1 {
					return fmt.Errorf("it is %v with finalizers %v", cond, got.Finalizers)
				}
				return nil
			}
		}
		c.eventually("the range is ready", ready(metav1.ConditionTrue))
		if err := make("web", "10.200.0.5"); err != nil {
			t.Fatal(err)
		}
		if err := cidrs.Delete(ctx, "more", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := make("late", "10.200.0.6"); !apierrors.IsInvalid(err) {
			t.Errorf("an address of a range that goes: %v", err)
		}
		c.eventually("the range waits for its address", ready(metav1.ConditionFalse))
		if err := services.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.eventually("the range is gone", func() error {
			if got, err := cidrs.Get(ctx, "more", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				return fmt.Errorf("it is still there: %v %v", got, err)
			}
			return nil
		})
		if got, err := cidrs.Get(ctx, "kubernetes", metav1.GetOptions{}); err != nil || !meta.IsStatusConditionTrue(got.Status.Conditions, networkingv1.ServiceCIDRConditionReady) {
			t.Errorf("the default range: %v %v", got, err)
		}
	})
}
