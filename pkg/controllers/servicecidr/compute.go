package servicecidr

import (
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// finalizer keeps a range while addresses of it are in use (upstream's name).
	finalizer = "networking.k8s.io/service-cidr-finalizer"
	// managedByAllocator is what the label of addresses that Services hold says.
	managedByAllocator = "ipallocator.k8s.io"
	// deletionGrace is how long a range that nobody uses stays after its
	// deletion was asked for: an API server that has not seen that yet may still
	// give out an address of it.
	deletionGrace = 10 * time.Second
)

// step is what to do about one range.
type step struct {
	finalizers []string          // to be set; nil leaves them
	condition  *metav1.Condition // to be set; nil leaves it
	after      time.Duration     // look again then; 0 waits for a change
}

// compute decides about cidr, given every range and every address there is.
func compute(cidr *networkingv1.ServiceCIDR, all []*networkingv1.ServiceCIDR, addresses []*networkingv1.IPAddress, now time.Time) step {
	guarded := slices.Contains(cidr.Finalizers, finalizer)
	ready := meta.FindStatusCondition(cidr.Status.Conditions, networkingv1.ServiceCIDRConditionReady)
	if cidr.DeletionTimestamp == nil {
		var s step
		if !guarded {
			s.finalizers = append(slices.Clone(cidr.Finalizers), finalizer)
		}
		if ready == nil || ready.Status != metav1.ConditionTrue {
			s.condition = &metav1.Condition{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue,
				Message: "Kubernetes Service CIDR is ready"}
		}
		return s
	}
	if !guarded {
		return step{}
	}
	if used(cidr, all, addresses) {
		if ready != nil && ready.Status == metav1.ConditionFalse {
			return step{}
		}
		return step{condition: &metav1.Condition{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionFalse,
			Reason:  networkingv1.ServiceCIDRReasonTerminating,
			Message: "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"}}
	}
	if wait := deletionGrace - now.Sub(cidr.DeletionTimestamp.Time); wait > 0 {
		return step{after: wait}
	}
	return step{finalizers: slices.DeleteFunc(slices.Clone(cidr.Finalizers), func(f string) bool { return f == finalizer })}
}

// used says whether a Service holds an address that only cidr covers.
func used(cidr *networkingv1.ServiceCIDR, all []*networkingv1.ServiceCIDR, addresses []*networkingv1.IPAddress) bool {
	return slices.ContainsFunc(addresses, func(a *networkingv1.IPAddress) bool {
		ip, err := netip.ParseAddr(a.Name)
		if err != nil || a.Labels[networkingv1.LabelManagedBy] != managedByAllocator || !covers(cidr, ip) {
			return false
		}
		return !slices.ContainsFunc(all, func(other *networkingv1.ServiceCIDR) bool {
			return other.UID != cidr.UID && other.DeletionTimestamp == nil && covers(other, ip)
		})
	})
}

func covers(cidr *networkingv1.ServiceCIDR, ip netip.Addr) bool {
	return slices.ContainsFunc(cidr.Spec.CIDRs, func(s string) bool {
		p, err := netip.ParsePrefix(s)
		return err == nil && p.Contains(ip)
	})
}
