package dns

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// ttl is how long, in seconds, an answer may be kept: a changed Service is
// seen by everybody after it.
const ttl = 5

// ZoneConfig says what a Zone is authoritative for.
type ZoneConfig struct {
	// Domain is the cluster domain, dotted: cluster.local.
	Domain string
	// Server is the address that the name server's own name has.
	Server netip.Addr
	// Reverse are the ranges whose reverse names the zone owns: services and
	// pods.
	Reverse []netip.Prefix
	// Pods are the ranges in which a-b-c-d.ns.pod is answered for any address
	// and each namespace that exists, without knowing the pods. Empty means
	// that only pods given to Set have such names.
	Pods []netip.Prefix
}

// Zone holds records by name. Safe for concurrent use: queries share a lock
// that changes hold for as long as they touch memory.
type Zone struct {
	cfg                   ZoneConfig
	domain, pods, service string
	soa                   string

	mu sync.RWMutex
	// nodes are all names that exist, those between others too; guarded by mu.
	nodes map[string]*node
	// owners are the records of each owner; guarded by mu.
	owners map[string][]Record
	// namespaces that exist; guarded by mu.
	namespaces map[string]struct{}
	// serial counts changes; guarded by mu.
	serial uint32
}

// node is a name.
type node struct {
	// refs counts the records at this name and below; at zero it is gone.
	refs int
	sets []rrset
}

// rrset is the records of one type at one name.
type rrset struct {
	kind Type
	data []rr
}

// rr is record data and how many owners gave it.
type rr struct {
	data string
	refs int
}

// NewZone returns a zone with the records every cluster has. Domain must be a
// legal name.
func NewZone(cfg ZoneConfig) (*Zone, error) {
	domain, err := wireName(cfg.Domain)
	if err != nil || domain == "\x00" {
		return nil, errName
	}
	z := &Zone{
		cfg: cfg, domain: domain,
		pods: "\x03pod" + domain, service: "\x03svc" + domain,
		nodes: map[string]*node{}, owners: map[string][]Record{}, namespaces: map[string]struct{}{},
	}
	server := "\x02ns\x03dns" + domain
	z.soa = server + "\x0ahostmaster" + domain
	b := recordBuilder{}
	b.add(domain, TypeNS, server)
	// These two are there even while nothing is below them.
	b.add(z.pods, 0, "")
	b.add(z.service, 0, "")
	b.add("\x0bdns-version"+domain, TypeTXT, "\x051.1.0")
	if cfg.Server.IsValid() {
		b.addAddr(server, cfg.Server)
	}
	z.Set("", b.out)
	return z, nil
}

// Domain is the cluster domain in wire form, for Records.
func (z *Zone) Domain() string { return z.domain }

// Set replaces the records of an owner, any string that names the object they
// come from; none removes it. Records must be as Records returns them.
func (z *Zone) Set(owner string, records []Record) {
	z.mu.Lock()
	defer z.mu.Unlock()
	old := z.owners[owner]
	if slices.Equal(old, records) {
		return
	}
	// Added before removed, so that what is in both never goes away.
	for _, r := range records {
		z.addLocked(r)
	}
	for _, r := range old {
		z.removeLocked(r)
	}
	if len(records) == 0 {
		delete(z.owners, owner)
	} else {
		z.owners[owner] = records
	}
	z.serial++
}

// SetNamespace says whether a namespace exists, for the names of pods.
func (z *Zone) SetNamespace(name string, exists bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if exists {
		z.namespaces[name] = struct{}{}
	} else {
		delete(z.namespaces, name)
	}
}

func (z *Zone) addLocked(r Record) {
	for name, ok := r.Name, true; ok; name, ok = parent(name) {
		n := z.nodes[name]
		if n == nil {
			n = &node{}
			z.nodes[name] = n
		}
		n.refs++
	}
	n := z.nodes[r.Name]
	i := slices.IndexFunc(n.sets, func(s rrset) bool { return s.kind == r.Type })
	if i < 0 {
		n.sets, i = append(n.sets, rrset{kind: r.Type}), len(n.sets)
	}
	set := &n.sets[i]
	at, found := slices.BinarySearchFunc(set.data, r.Data, func(x rr, d string) int { return strings.Compare(x.data, d) })
	if !found {
		set.data = slices.Insert(set.data, at, rr{data: r.Data})
	}
	set.data[at].refs++
}

func (z *Zone) removeLocked(r Record) {
	n := z.nodes[r.Name]
	i := slices.IndexFunc(n.sets, func(s rrset) bool { return s.kind == r.Type })
	set := &n.sets[i]
	at, _ := slices.BinarySearchFunc(set.data, r.Data, func(x rr, d string) int { return strings.Compare(x.data, d) })
	if set.data[at].refs--; set.data[at].refs == 0 {
		set.data = slices.Delete(set.data, at, at+1)
	}
	if len(set.data) == 0 {
		n.sets = slices.Delete(n.sets, i, i+1)
	}
	for name, ok := r.Name, true; ok; name, ok = parent(name) {
		n := z.nodes[name]
		if n.refs--; n.refs == 0 {
			delete(z.nodes, name)
		}
	}
}

// find returns the records of a type, or nil.
func (n *node) find(kind Type) []rr {
	for i := range n.sets {
		if n.sets[i].kind == kind {
			return n.sets[i].data
		}
	}
	return nil
}

// authority tells whether the zone owns a name, and how many labels stand in
// front of the part that names the owned zone.
func (z *Zone) authority(q *qname) (front int, ok bool) {
	if front, ok := q.under(z.domain); ok {
		return front, true
	}
	p, ok := q.reversed()
	if !ok {
		return 0, false
	}
	for _, r := range z.cfg.Reverse {
		step := 8
		if r.Addr().Is6() {
			step = 4
		}
		if p.Bits() >= r.Bits() && r.Contains(p.Addr()) && r.Addr().Is4() == p.Addr().Is4() {
			return p.Bits()/step - r.Bits()/step, true
		}
	}
	return 0, false
}

// podAddr answers names that exist without a node: those of a namespace, and
// of a pod in the ranges where any address has one.
func (z *Zone) podAddr(q *qname) (addr netip.Addr, exists bool) {
	if front, ok := q.under(z.service); ok && front == 1 {
		_, exists = z.namespaces[string(q.label(0))]
		return netip.Addr{}, exists
	}
	front, ok := q.under(z.pods)
	if !ok || front < 1 || front > 2 {
		return netip.Addr{}, false
	}
	if _, ok := z.namespaces[string(q.label(front-1))]; !ok {
		return netip.Addr{}, false
	}
	if front == 1 {
		return netip.Addr{}, true
	}
	a, ok := dashed(q.label(0))
	if !ok {
		return netip.Addr{}, false
	}
	for _, p := range z.cfg.Pods {
		if p.Contains(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// appendSOA writes the data of the SOA record, whose last number is how long a
// missing answer may be kept.
func (z *Zone) appendSOA(b []byte) []byte {
	b = append(b, z.soa...)
	for _, v := range [...]uint32{z.serial, 7200, 1800, 86400, ttl} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}
