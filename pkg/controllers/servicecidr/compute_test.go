package servicecidr

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var now = time.Date(2026, 1, 1, 2, 0, 0, 0, time.UTC)

func cidr(name, prefix string, change ...func(*networkingv1.ServiceCIDR)) *networkingv1.ServiceCIDR {
	c := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Finalizers: []string{"other", finalizer}},
		Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{prefix}}}
	for _, f := range change {
		f(c)
	}
	return c
}

func deleted(ago time.Duration) func(*networkingv1.ServiceCIDR) {
	return func(c *networkingv1.ServiceCIDR) { c.DeletionTimestamp = &metav1.Time{Time: now.Add(-ago)} }
}

func condition(status metav1.ConditionStatus) func(*networkingv1.ServiceCIDR) {
	return func(c *networkingv1.ServiceCIDR) {
		c.Status.Conditions = []metav1.Condition{{Type: networkingv1.ServiceCIDRConditionReady, Status: status}}
	}
}

func bare(c *networkingv1.ServiceCIDR) { c.Finalizers = nil }

func address(ip string) *networkingv1.IPAddress {
	return &networkingv1.IPAddress{ObjectMeta: metav1.ObjectMeta{Name: ip, Labels: map[string]string{networkingv1.LabelManagedBy: managedByAllocator}}}
}

func TestCompute(t *testing.T) {
	foreign := address("10.96.0.5")
	foreign.Labels = nil
	type summary struct {
		Finalizers []string
		Ready      metav1.ConditionStatus
		After      time.Duration
	}
	other := cidr("wide", "10.0.0.0/8")
	for _, c := range []struct {
		name      string
		cidr      *networkingv1.ServiceCIDR
		others    []*networkingv1.ServiceCIDR
		addresses []*networkingv1.IPAddress
		want      summary
	}{
		{name: "new", cidr: cidr("a", "10.96.0.0/16", bare), want: summary{Finalizers: []string{finalizer}, Ready: "True"}},
		{name: "settled", cidr: cidr("a", "10.96.0.0/16", condition("True"))},
		{name: "not ready before", cidr: cidr("a", "10.96.0.0/16", condition("False")), want: summary{Ready: "True"}},
		{name: "deleted in use", cidr: cidr("a", "10.96.0.0/16", condition("True"), deleted(time.Hour)),
			addresses: []*networkingv1.IPAddress{address("10.96.0.5")}, want: summary{Ready: "False"}},
		{name: "known to be in use", cidr: cidr("a", "10.96.0.0/16", condition("False"), deleted(time.Hour)),
			addresses: []*networkingv1.IPAddress{address("10.96.0.5")}},
		{name: "deleted just now", cidr: cidr("a", "10.96.0.0/16", deleted(4*time.Second)), want: summary{After: 6 * time.Second}},
		{name: "deleted and unused", cidr: cidr("a", "10.96.0.0/16", deleted(time.Minute)),
			addresses: []*networkingv1.IPAddress{address("10.97.0.5"), foreign}, want: summary{Finalizers: []string{"other"}}},
		{name: "covered by another", cidr: cidr("a", "10.96.0.0/16", deleted(time.Minute)), others: []*networkingv1.ServiceCIDR{other},
			addresses: []*networkingv1.IPAddress{address("10.96.0.5")}, want: summary{Finalizers: []string{"other"}}},
		{name: "covered by another that goes too", cidr: cidr("a", "10.96.0.0/16", deleted(time.Minute)),
			others:    []*networkingv1.ServiceCIDR{cidr("b", "10.0.0.0/8", deleted(time.Minute))},
			addresses: []*networkingv1.IPAddress{address("10.96.0.5")}, want: summary{Ready: "False"}},
		{name: "already let go", cidr: cidr("a", "10.96.0.0/16", bare, deleted(time.Minute))},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := compute(c.cidr, append(c.others, c.cidr), c.addresses, now)
			got := summary{Finalizers: s.finalizers, After: s.after}
			if s.condition != nil {
				got.Ready = s.condition.Status
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("compute (-want +got):\n%s", diff)
			}
		})
	}
}
