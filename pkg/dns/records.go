package dns

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Type is a record type's number.
type Type uint16

// The record types that a cluster has.
const (
	TypeA     Type = 1
	TypeNS    Type = 2
	TypeCNAME Type = 5
	TypeSOA   Type = 6
	TypePTR   Type = 12
	TypeTXT   Type = 16
	TypeAAAA  Type = 28
	TypeSRV   Type = 33
	typeOPT   Type = 41
	typeAXFR  Type = 252
	typeANY   Type = 255
)

// Record is one resource record. It is comparable.
type Record struct {
	// Name is the owner, in wire form, lower case.
	Name string
	Type Type
	// Data is the record data, in wire form without compression.
	Data string
}

// Records lists the records of a Service, sorted, without duplicates, given
// its EndpointSlices in any order. Domain is the cluster domain in wire form.
// Names that would not be legal are left out. The arguments are not changed.
func Records(svc *corev1.Service, endpoints []*discoveryv1.EndpointSlice, domain string) []Record {
	base, err := join([]string{svc.Name, svc.Namespace, "svc"}, domain)
	if err != nil {
		return nil
	}
	b := recordBuilder{base: base}
	switch {
	case svc.Spec.Type == corev1.ServiceTypeExternalName:
		if target, err := wireName(svc.Spec.ExternalName); err == nil && svc.Spec.ExternalName != "" {
			b.add(base, TypeCNAME, target)
		}
	case svc.Spec.ClusterIP == corev1.ClusterIPNone:
		for _, s := range endpoints {
			if s.AddressType != discoveryv1.AddressTypeFQDN {
				b.addHeadless(s, svc.Spec.PublishNotReadyAddresses)
			}
		}
	default:
		b.addClusterIP(svc)
	}
	slices.SortFunc(b.out, compareRecords)
	return slices.Compact(b.out)
}

// PodRecords lists the records of a pod: each of its addresses under its
// namespace.
func PodRecords(pod *corev1.Pod, domain string) []Record {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return nil
	}
	var b recordBuilder
	for _, ip := range pod.Status.PodIPs {
		a, err := netip.ParseAddr(ip.IP)
		if err != nil {
			continue
		}
		if name, err := join([]string{dash(a), pod.Namespace, "pod"}, domain); err == nil {
			b.addAddr(name, a)
		}
	}
	slices.SortFunc(b.out, compareRecords)
	return slices.Compact(b.out)
}

func compareRecords(a, b Record) int {
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	if a.Type != b.Type {
		return int(a.Type) - int(b.Type)
	}
	return strings.Compare(a.Data, b.Data)
}

type recordBuilder struct {
	base string
	out  []Record
}

func (b *recordBuilder) add(name string, t Type, data string) {
	b.out = append(b.out, Record{Name: name, Type: t, Data: data})
}

func (b *recordBuilder) addAddr(name string, a netip.Addr) {
	t := TypeA
	if a.Is6() {
		t = TypeAAAA
	}
	b.add(name, t, string(a.AsSlice()))
}

// addSRV adds the record of a named port; one without a name has none.
func (b *recordBuilder) addSRV(port string, proto corev1.Protocol, number int32, target string) {
	if port == "" || number < 1 || number > 65535 {
		return
	}
	if proto == "" {
		proto = corev1.ProtocolTCP
	}
	name, err := join([]string{"_" + port, "_" + string(proto)}, b.base)
	if err != nil {
		return
	}
	// Priority 0, weight 100: all endpoints alike.
	data := []byte{0, 0, 0, 100}
	data = binary.BigEndian.AppendUint16(data, uint16(number))
	b.add(name, TypeSRV, string(data)+target)
}

func (b *recordBuilder) addClusterIP(svc *corev1.Service) {
	ips := svc.Spec.ClusterIPs
	if len(ips) == 0 {
		ips = []string{svc.Spec.ClusterIP}
	}
	found := false
	for _, s := range ips {
		a, err := netip.ParseAddr(s)
		if err != nil {
			continue
		}
		found = true
		b.addAddr(b.base, a)
		b.add(reverseName(a), TypePTR, b.base)
	}
	if !found {
		return
	}
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		b.addSRV(p.Name, p.Protocol, p.Port, b.base)
	}
}

// addHeadless adds the endpoints of one slice. Each has a name of its own
// under the service: its hostname, or else its address.
func (b *recordBuilder) addHeadless(s *discoveryv1.EndpointSlice, unready bool) {
	for i := range s.Endpoints {
		ep := &s.Endpoints[i]
		if ready := ep.Conditions.Ready == nil || *ep.Conditions.Ready; !ready && !unready {
			continue
		}
		for _, ip := range ep.Addresses {
			a, err := netip.ParseAddr(ip)
			if err != nil {
				continue
			}
			label := dash(a)
			if ep.Hostname != nil && *ep.Hostname != "" {
				label = *ep.Hostname
			}
			name, err := join([]string{label}, b.base)
			if err != nil {
				continue
			}
			b.addAddr(b.base, a)
			b.addAddr(name, a)
			b.add(reverseName(a), TypePTR, name)
			for j := range s.Ports {
				p := &s.Ports[j]
				if p.Name != nil && p.Port != nil {
					proto := corev1.ProtocolTCP
					if p.Protocol != nil {
						proto = *p.Protocol
					}
					b.addSRV(*p.Name, proto, *p.Port, name)
				}
			}
		}
	}
}
