package allocator

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"coracle/pkg/registry"
	"coracle/pkg/resource"
	"coracle/pkg/storage"
)

// portsKey is where kube-apiserver keeps the node ports that are taken.
const portsKey = "/registry/ranges/servicenodeports"

// portRange is a range of ports, both ends inclusive.
type portRange struct{ first, last int32 }

func (r portRange) String() string { return fmt.Sprintf("%d-%d", r.first, r.last) }

func (r portRange) has(p int32) bool { return p >= r.first && p <= r.last }

// static is how many ports are kept for those chosen by hand (KEP-3668).
func (r portRange) static() int32 {
	size := r.last - r.first + 1
	if size < 16 {
		return 0
	}
	return min(max(16, size/32), 128)
}

// portSet is the bitmap of taken ports; bit 0 is the first port of the range.
type portSet struct {
	portRange
	bits big.Int
}

func (s *portSet) taken(p int32) bool { return s.has(p) && s.bits.Bit(int(p-s.first)) == 1 }

func (s *portSet) set(p int32) {
	if s.has(p) {
		s.bits.SetBit(&s.bits, int(p-s.first), 1)
	}
}

// clear frees ports and says whether one of them was taken.
func (s *portSet) clear(ports []int32) (changed bool) {
	for _, p := range ports {
		if s.taken(p) {
			s.bits.SetBit(&s.bits, int(p-s.first), 0)
			changed = true
		}
	}
	return changed
}

// portStore keeps the set in the store, in kube-apiserver's form.
type portStore struct {
	backend storage.Backend
	portRange
}

// maxPortConflicts bounds how often a change is tried again because others
// changed the set in between.
const maxPortConflicts = 100

// read returns the set and the revision to compare with. A set of another range
// counts as empty: Repair fills it.
func (s *portStore) read(ctx context.Context) (*portSet, storage.Revision, error) {
	set := &portSet{portRange: s.portRange}
	kv, _, err := s.backend.Get(ctx, portsKey)
	if errors.Is(err, storage.ErrNotFound) {
		return set, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	raw, err := registry.Raw(kv.Value)
	if err != nil {
		return nil, 0, fmt.Errorf("read the node ports that are taken: %w", err)
	}
	stored := &corev1.RangeAllocation{}
	if err := stored.Unmarshal(raw); err != nil {
		return nil, 0, fmt.Errorf("read the node ports that are taken: %w", err)
	}
	if stored.Range == s.String() {
		set.bits.SetBytes(stored.Data)
	}
	return set, kv.ModRevision, nil
}

// change reads the set, lets f change it and writes it back; f is called again
// after a conflict, and returns false when there is nothing to write.
func (s *portStore) change(ctx context.Context, f func(*portSet) bool) error {
	for range maxPortConflicts {
		set, rev, err := s.read(ctx)
		if err != nil {
			return err
		}
		if !f(set) {
			return nil
		}
		value, err := registry.Envelope(corev1.SchemeGroupVersion.WithKind("RangeAllocation"),
			&corev1.RangeAllocation{Range: s.String(), Data: set.bits.Bytes()})
		if err != nil {
			return err
		}
		_, err = s.backend.Put(ctx, portsKey, value, rev, 0)
		var conflict *storage.ConflictError
		if !errors.As(err, &conflict) {
			return err
		}
	}
	return apierrors.NewServerTimeout(corev1.Resource("services"), "allocate node ports for", 1)
}

// portNeed is a node port that a write has to claim.
type portNeed struct {
	path *field.Path
	port int32       // 0: any
	give func(int32) // puts the port into the Service
	like *portNeed   // takes the same number as this one, of another protocol
	got  int32       // what it was given
}

// nodePorts gives each port its node port where the type has them.
func (c *claim) nodePorts() (field.ErrorList, error) {
	needs := c.portNeeds()
	if len(needs) == 0 {
		return nil, nil
	}
	held := nodePorts(c.old)
	var errs field.ErrorList
	var failed error
	err := c.a.ports.change(c.ctx, func(set *portSet) bool {
		errs, c.ports, failed = nil, nil, nil
		for _, n := range needs {
			e, err := c.assign(set, n, held)
			if err != nil {
				failed = err
				return false
			}
			errs = append(errs, e...)
		}
		return len(errs) == 0 && len(c.ports) > 0 && !c.dry
	})
	if err := firstError(err, failed); err != nil || len(errs) > 0 || c.dry {
		c.ports = nil
		return errs, err
	}
	return nil, nil
}

func (c *claim) assign(set *portSet, n *portNeed, held []int32) (field.ErrorList, error) {
	port := n.port
	if n.like != nil {
		port = n.like.got
	}
	switch {
	case port == 0:
		found, err := c.a.search(uint64(set.first+set.static()), uint64(set.last)+1, func(v uint64) bool { port = int32(v); return !set.taken(port) })
		if err == nil && !found {
			found, err = c.a.search(uint64(set.first), uint64(set.first+set.static()), func(v uint64) bool { port = int32(v); return !set.taken(port) })
		}
		if err != nil {
			return nil, err
		}
		if !found {
			return field.ErrorList{field.InternalError(n.path, errors.New("failed to allocate a nodePort: range is full"))}, nil
		}
	case slices.Contains(held, port) || slices.Contains(c.ports, port):
		n.got = port
		n.give(port)
		return nil, nil
	case !set.has(port):
		return field.ErrorList{field.Invalid(n.path, port, "provided port is not in the valid range. The range of valid ports is "+set.String())}, nil
	case set.taken(port):
		return field.ErrorList{field.Invalid(n.path, port, "provided port is already allocated")}, nil
	}
	set.set(port)
	c.ports = append(c.ports, port)
	n.got = port
	n.give(port)
	return nil, nil
}

// portNeeds lists the node ports that svc has by its type, those chosen by hand
// first. It leaves out what the stored Service holds.
func (c *claim) portNeeds() []*portNeed {
	spec := &c.svc.Spec
	held := nodePorts(c.old)
	var named, free []*portNeed
	add := func(n *portNeed) {
		switch {
		case n.port == 0:
			free = append(free, n)
		case !slices.Contains(held, n.port):
			named = append(named, n)
		}
	}
	if spec.Type == corev1.ServiceTypeNodePort || spec.Type == corev1.ServiceTypeLoadBalancer {
		auto := resource.ServiceNeedsNodePorts(c.svc)
		byPort := map[int32]*portNeed{} // a port's number -> the need of one of its protocols
		for i := range spec.Ports {
			p := &spec.Ports[i]
			n := &portNeed{path: field.NewPath("spec", "ports").Index(i).Child("nodePort"), port: p.NodePort, got: p.NodePort}
			n.give = func(port int32) { p.NodePort = port }
			if p.NodePort == 0 && !auto {
				continue
			}
			if other := byPort[p.Port]; other != nil && p.NodePort == 0 {
				n.like = other
			} else if other == nil {
				byPort[p.Port] = n
			}
			add(n)
		}
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer && spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		add(&portNeed{path: field.NewPath("spec", "healthCheckNodePort"), port: spec.HealthCheckNodePort, give: func(port int32) { spec.HealthCheckNodePort = port }})
	}
	return append(named, free...)
}
