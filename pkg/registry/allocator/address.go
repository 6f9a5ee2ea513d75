package allocator

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"coracle/pkg/registry"
)

// manager is what the label managed-by says of addresses that Services hold,
// and the field manager of IPAddresses.
const manager = "ipallocator.k8s.io"

// address gives the Service its cluster address, unless it is headless or has
// none by its type.
func (c *claim) address() (field.ErrorList, error) {
	spec := &c.svc.Spec
	if spec.Type == corev1.ServiceTypeExternalName {
		return nil, nil
	}
	if spec.ClusterIP == "" && len(spec.ClusterIPs) > 0 {
		spec.ClusterIP = spec.ClusterIPs[0]
	}
	var errs field.ErrorList
	var err error
	switch spec.ClusterIP {
	case corev1.ClusterIPNone:
	case "":
		errs, err = c.anyAddress()
	default:
		errs, err = c.namedAddress(spec.ClusterIP)
	}
	if len(spec.ClusterIPs) == 0 && spec.ClusterIP != "" {
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
	return errs, err
}

// anyAddress takes a free address of the first range that has one.
func (c *claim) anyAddress() (field.ErrorList, error) {
	ranges, err := c.a.ranges(c.ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range ranges {
		ip, err := c.freeIn(r)
		if err != nil {
			return nil, err
		}
		if ip.IsValid() {
			c.svc.Spec.ClusterIP = ip.String()
			return nil, nil
		}
	}
	why := fmt.Errorf("failed to allocate a serviceIP: range is full: %s", text(ranges))
	if len(ranges) == 0 {
		why = fmt.Errorf("failed to allocate a serviceIP: no ServiceCIDR is ready")
	}
	return field.ErrorList{field.InternalError(field.NewPath("spec", "clusterIPs"), why)}, nil
}

// freeIn takes a free address of r: of its upper part, then of the lower. The
// result is not valid when there is none.
func (c *claim) freeIn(r netip.Prefix) (netip.Addr, error) {
	first, end := hosts(r)
	static := min(first+staticAddresses(end-first+1)-1, end)
	var took netip.Addr
	var failed error
	try := func(offset uint64) bool {
		ip := addressAt(r, offset)
		if _, err := c.a.stored(c.ctx, ip, "0"); err == nil {
			return false
		} else if !apierrors.IsNotFound(err) {
			failed = err
			return true
		}
		ok, err := c.take(ip)
		if err != nil {
			failed = err
			return true
		}
		if ok {
			took = ip
		}
		return ok
	}
	for _, band := range [][2]uint64{{static, end}, {first, static}} {
		found, err := c.a.search(band[0], band[1], try)
		if err != nil || failed != nil || found {
			return took, firstError(err, failed)
		}
	}
	return took, nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *claim) namedAddress(name string) (field.ErrorList, error) {
	refuse := func(why string) field.ErrorList {
		return field.ErrorList{field.Invalid(field.NewPath("spec", "clusterIPs"), []string{name}, "failed to allocate IP "+name+": "+why)}
	}
	ip, err := netip.ParseAddr(name)
	if err != nil || slices.Contains(addressesOf(c.old), ip.Unmap()) {
		return nil, nil // validation refuses what is no address
	}
	ip = ip.Unmap()
	ranges, err := c.a.ranges(c.ctx)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return usable(r, ip) }) {
		return refuse("the provided IP is not in the valid range. The range of valid IPs is " + text(ranges)), nil
	}
	ok, err := c.take(ip)
	if err != nil || ok {
		return nil, err
	}
	return refuse("provided IP is already allocated"), nil
}

// take creates the IPAddress of ip; ok is false when somebody else has it. One
// that names this Service already is left from a create that failed midway.
func (c *claim) take(ip netip.Addr) (ok bool, err error) {
	if !c.dry {
		err := c.a.createAddress(c.ctx, c.svc, ip)
		if err == nil {
			c.ips = append(c.ips, ip)
			return true, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return false, fmt.Errorf("take the cluster address %s: %w", ip, err)
		}
	}
	have, err := c.a.stored(c.ctx, ip, "")
	if apierrors.IsNotFound(err) {
		return c.dry, nil // freed just now: the next address will do
	}
	return err == nil && refersTo(have, c.svc), err
}

func (a *Allocator) createAddress(ctx context.Context, svc *corev1.Service, ip netip.Addr) error {
	family := corev1.IPv4Protocol
	if ip.Is6() {
		family = corev1.IPv6Protocol
	}
	obj := &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: ip.String(), Labels: map[string]string{
			networkingv1.LabelIPAddressFamily: string(family), networkingv1.LabelManagedBy: manager,
		}},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: svc.Namespace, Name: svc.Name}},
	}
	_, err := a.cfg.Registry.Create(ctx, registry.Request{Resource: a.addresses}, obj, registry.WriteOptions{Manager: manager, Options: &metav1.CreateOptions{}, Internal: true})
	return err
}

// stored reads the IPAddress of ip; version is a resourceVersion.
func (a *Allocator) stored(ctx context.Context, ip netip.Addr, version string) (*networkingv1.IPAddress, error) {
	o, err := a.cfg.Registry.Get(ctx, registry.Request{Resource: a.addresses, Name: ip.String()}, version)
	if err != nil {
		return nil, err
	}
	obj, err := registry.Shared(a.addresses, o)
	if err != nil {
		return nil, err
	}
	return obj.(*networkingv1.IPAddress), nil
}

func refersTo(a *networkingv1.IPAddress, svc *corev1.Service) bool {
	ref := a.Spec.ParentRef
	return ref != nil && ref.Group == "" && ref.Resource == "services" && ref.Namespace == svc.Namespace && ref.Name == svc.Name
}

// freeAddress deletes the IPAddress of ip if it is svc's.
func (a *Allocator) freeAddress(ctx context.Context, svc *corev1.Service, ip netip.Addr) error {
	have, err := a.stored(ctx, ip, "")
	if apierrors.IsNotFound(err) || err == nil && !refersTo(have, svc) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.deleteAddress(ctx, have)
}

func (a *Allocator) deleteAddress(ctx context.Context, have *networkingv1.IPAddress) error {
	options := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &have.UID, ResourceVersion: &have.ResourceVersion}}
	_, _, err := a.cfg.Registry.Delete(ctx, registry.Request{Resource: a.addresses, Name: have.Name},
		registry.DeleteOptions{WriteOptions: registry.WriteOptions{Options: &options, Internal: true}, DeleteOptions: options})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it is another one now
	}
	return err
}

// ranges are the ranges of the ServiceCIDRs that are ready, in the order of
// their names.
func (a *Allocator) ranges(ctx context.Context) ([]netip.Prefix, error) {
	list, err := a.cfg.Registry.List(ctx, registry.Request{Resource: a.cidrs}, registry.ListOptions{})
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, o := range list.Items {
		obj, err := registry.Shared(a.cidrs, o)
		if err != nil {
			return nil, err
		}
		cidr := obj.(*networkingv1.ServiceCIDR)
		if cidr.DeletionTimestamp != nil || !meta.IsStatusConditionTrue(cidr.Status.Conditions, networkingv1.ServiceCIDRConditionReady) {
			continue
		}
		for _, s := range cidr.Spec.CIDRs {
			if p, err := netip.ParsePrefix(s); err == nil && p.Addr().Is4() {
				out = append(out, p.Masked())
			}
		}
	}
	return out, nil
}

func text(ranges []netip.Prefix) string {
	var out []string
	for _, r := range ranges {
		out = append(out, r.String())
	}
	return strings.Join(out, ", ")
}

// hosts are the offsets within r that may be given out: [first, end). The first
// address names the network, the last of an IPv4 range is its broadcast.
func hosts(r netip.Prefix) (first, end uint64) {
	width := r.Addr().BitLen() - r.Bits()
	if width >= 64 {
		return 1, 1<<63 - 1
	}
	end = 1 << width
	if r.Addr().Is4() {
		end--
	}
	return min(1, end), end
}

// staticAddresses is how many addresses of a range of that size are kept for
// those chosen by hand (KEP-3070).
func staticAddresses(size uint64) uint64 {
	if size <= 16 {
		return 1
	}
	return min(max(16, size/16), 256)
}

func usable(r netip.Prefix, ip netip.Addr) bool {
	first, end := hosts(r)
	return r.Contains(ip) && ip != r.Addr() && (ip.Is6() || offsetOf(r, ip) < end && offsetOf(r, ip) >= first)
}

func offsetOf(r netip.Prefix, ip netip.Addr) uint64 { return low(ip) - low(r.Addr()) }

// low are the last eight bytes of an address, as a number.
func low(ip netip.Addr) uint64 {
	b := ip.As16()
	return binary.BigEndian.Uint64(b[8:])
}

func addressAt(r netip.Prefix, offset uint64) netip.Addr {
	b := r.Addr().As16()
	sum, carry := bits.Add64(binary.BigEndian.Uint64(b[8:]), offset, 0)
	binary.BigEndian.PutUint64(b[8:], sum)
	binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])+carry)
	ip := netip.AddrFrom16(b)
	if r.Addr().Is4() {
		ip = ip.Unmap()
	}
	return ip
}

// maxSearch bounds how many values of a band are tried.
const maxSearch = 1 << 17

// search tries values of [from, to), beginning at a random one, until try says
// that it is done.
func (a *Allocator) search(from, to uint64, try func(uint64) bool) (found bool, err error) {
	if from >= to {
		return false, nil
	}
	var b [8]byte
	a.rand.Lock()
	_, err = io.ReadFull(a.cfg.Rand, b[:])
	a.rand.Unlock()
	if err != nil {
		return false, fmt.Errorf("read randomness: %w", err)
	}
	n := to - from
	start := binary.LittleEndian.Uint64(b[:]) % n
	for i := range min(n, maxSearch) {
		if try(from + (start+i)%n) {
			return true, nil
		}
	}
	return false, nil
}
