package allocator

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

const (
	// addressGrace is how old an address without a Service is before it is
	// taken back: a create of that Service may be under way until its request's
	// time is up.
	addressGrace = 90 * time.Second
	// leakRounds is for how many rounds a node port without a Service stays
	// taken, for the same reason: bits have no age.
	leakRounds = 3
)

// observed is what a round of repair looks at. Services were read after
// addresses and ports, so that one which was created meanwhile does not make
// its values look leaked.
type observed struct {
	services  []*corev1.Service
	addresses []*networkingv1.IPAddress
	ranges    []netip.Prefix // every range there is, ready or not
	ports     *portSet
	leaks     map[int32]int // rounds for which a port was leaked before this one
	now       time.Time
}

// repairs is what a round does.
type repairs struct {
	create []missing
	remove []*networkingv1.IPAddress
	mark   []int32       // ports that Services hold and the set lacks
	clear  []int32       // ports that leaked for long enough
	leaks  map[int32]int // for the next round
	report []finding
}

// missing is an address that a Service holds without its object.
type missing struct {
	service *corev1.Service
	address netip.Addr
}

// finding is what a person has to mend; it becomes an event of the Service.
type finding struct {
	service                    *corev1.Service
	component, reason, message string
}

const (
	addressComponent = "ipallocator-repair-controller"
	portComponent    = "portallocator-repair-controller"
)

// repair compares what Services hold with what is taken.
func repair(o observed) repairs {
	out := repairs{leaks: map[int32]int{}}
	services := slices.Clone(o.services)
	slices.SortStableFunc(services, func(a, b *corev1.Service) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	out.addresses(o, services)
	out.ports(o, services)
	return out
}

func (r *repairs) addresses(o observed, services []*corev1.Service) {
	objects := map[string]*networkingv1.IPAddress{}
	for _, a := range o.addresses {
		objects[a.Name] = a
	}
	holder := map[netip.Addr]*corev1.Service{}
	for _, svc := range services {
		for _, ip := range addressesOf(svc) {
			if first := holder[ip]; first != nil {
				r.find(svc, addressComponent, "ClusterIPAlreadyAllocated",
					fmt.Sprintf("Cluster IP %s was assigned to multiple services, first to %s/%s; please recreate the service", ip, first.Namespace, first.Name))
				continue
			}
			holder[ip] = svc
			if !slices.ContainsFunc(o.ranges, func(p netip.Prefix) bool { return p.Contains(ip) }) {
				r.find(svc, addressComponent, "ClusterIPOutOfRange",
					fmt.Sprintf("Cluster IP %s is not within any configured Service CIDR; please recreate the service", ip))
			}
			switch a := objects[ip.String()]; {
			case a == nil:
				r.create = append(r.create, missing{svc, ip})
			case !refersTo(a, svc):
				r.remove = append(r.remove, a)
				r.create = append(r.create, missing{svc, ip})
			}
		}
	}
	for _, a := range o.addresses {
		ip, err := netip.ParseAddr(a.Name)
		if err != nil || a.Labels[networkingv1.LabelManagedBy] != manager || holder[ip] != nil {
			continue
		}
		if o.now.Sub(a.CreationTimestamp.Time) >= addressGrace {
			r.remove = append(r.remove, a)
		}
	}
}

func (r *repairs) ports(o observed, services []*corev1.Service) {
	holder := map[int32]*corev1.Service{}
	for _, svc := range services {
		for _, p := range nodePorts(svc) {
			if first := holder[p]; first != nil {
				r.find(svc, portComponent, "PortAlreadyAllocated",
					fmt.Sprintf("Node port %d was assigned to multiple services, first to %s/%s; please recreate the service", p, first.Namespace, first.Name))
				continue
			}
			holder[p] = svc
			switch {
			case !o.ports.has(p):
				r.find(svc, portComponent, "PortOutOfRange", fmt.Sprintf("Node port %d is not within the port range %s; please recreate the service", p, o.ports))
			case !o.ports.taken(p):
				r.mark = append(r.mark, p)
			}
		}
	}
	for p := o.ports.first; p <= o.ports.last; p++ {
		if !o.ports.taken(p) || holder[p] != nil {
			continue
		}
		if n := o.leaks[p] + 1; n < leakRounds {
			r.leaks[p] = n
		} else {
			r.clear = append(r.clear, p)
		}
	}
}

func (r *repairs) find(svc *corev1.Service, component, reason, message string) {
	r.report = append(r.report, finding{svc, component, reason, message})
}
