package dns

import (
	"encoding/binary"
)

// Outcome says what to do after a query was looked at.
type Outcome uint8

const (
	// Drop means that the bytes deserve no answer.
	Drop Outcome = iota
	// Done means that the answer is complete.
	Done
	// Forward means that the answer needs somebody else: Responder.Target says
	// what to ask, and the answer so far holds the question and the aliases
	// that led there.
	Forward
)

// Sizes of messages.
const (
	headerLen = 12
	// plainSize is what a client without EDNS takes over UDP.
	plainSize = 512
	// ednsSize is what we send over UDP at most, and say we take: it passes
	// any network without being cut in fragments.
	ednsSize = 1232
	maxTCP   = 65535
	optLen   = 11
	// maxAliases bounds a chain of aliases.
	maxAliases = 8
	// maxExtra bounds the records after the question that are looked through
	// for EDNS.
	maxExtra = 4
)

// Response codes.
const (
	rcodeSuccess  = 0
	rcodeFormat   = 1
	rcodeServer   = 2
	rcodeNXDomain = 3
	rcodeNotImp   = 4
	rcodeRefused  = 5
	rcodeBadVers  = 16
)

// Header flag bits.
const (
	flagQR = 1 << 15
	flagAA = 1 << 10
	flagTC = 1 << 9
	flagRD = 1 << 8
	flagRA = 1 << 7
	flagCD = 1 << 4
)

const classIN = 1

// Extended error codes of RFC 8914.
const extendedProhibited = 18

// closedText tells an EDNS client why an outside name does not exist.
const closedText = "this cluster is closed: names outside it are not resolved"

// Responder answers queries from a Zone, one at a time: each goroutine has its
// own.
type Responder struct {
	zone *Zone
	// forward says that outside names have somewhere to go.
	forward bool

	// What follows belongs to the query being answered.
	q       qname
	out     []byte
	limit   int
	kind    Type
	edns    bool
	version byte
	do      bool
	tooBig  bool
	answers uint16
	author  uint16
	extra   uint16
	// zoneFront is how many labels of q stand in front of its zone.
	zoneFront int
	// at is where the name in q can be found in out, for pointing to it.
	at int
}

// NewResponder returns a responder for one goroutine; forward says whether
// outside names are to be forwarded or do not exist.
func NewResponder(z *Zone, forward bool) *Responder {
	return &Responder{zone: z, forward: forward}
}

// Target is what is to be asked after the outcome Forward: a name in wire form,
// valid until the next Answer, and a type.
func (r *Responder) Target() ([]byte, Type) { return r.q.bytes(), r.kind }

// Answer appends to dst, which is empty but for its capacity, the response to a
// query. Over UDP it is cut to what the client takes. Random, any number,
// chooses the order of addresses.
func (r *Responder) Answer(dst, query []byte, udp bool, random uint32) ([]byte, Outcome) {
	r.out, r.answers, r.author, r.extra = dst[:0], 0, 0, 0
	r.edns, r.do, r.tooBig, r.version = false, false, false, 0
	if len(query) < headerLen || query[2]&0x80 != 0 {
		return nil, Drop
	}
	r.out = append(r.out, query[:headerLen]...)
	clear(r.out[4:])
	r.limit = maxTCP
	if udp {
		r.limit = plainSize
	}
	if query[2]>>3&15 != 0 {
		return r.finish(rcodeNotImp, 0), Done
	}
	if binary.BigEndian.Uint16(query[4:]) != 1 || binary.BigEndian.Uint32(query[6:]) != 0 {
		return r.finish(rcodeFormat, 0), Done
	}
	rest, ok := r.q.parse(query[headerLen:])
	if !ok || len(rest) < 4 {
		return r.finish(rcodeFormat, 0), Done
	}
	r.kind = Type(binary.BigEndian.Uint16(rest))
	class := binary.BigEndian.Uint16(rest[2:])
	rest = rest[4:]
	r.out = append(r.out, query[headerLen:len(query)-len(rest)]...)
	r.out[5] = 1
	if !r.readExtra(rest, int(binary.BigEndian.Uint16(query[10:])), udp) {
		return r.finish(rcodeFormat, 0), Done
	}
	if r.edns && r.version != 0 {
		return r.finish(rcodeBadVers, 0), Done
	}
	if class != classIN || r.kind >= typeAXFR-1 && r.kind < typeANY {
		return r.finish(rcodeRefused, 0), Done
	}
	return r.resolve(random)
}

// readExtra looks for EDNS among the records after the question.
func (r *Responder) readExtra(b []byte, count int, udp bool) bool {
	if count > maxExtra {
		return false
	}
	for range count {
		i := 0
		for i < len(b) && b[i] != 0 {
			if b[i]&0xc0 == 0xc0 {
				i++
				break
			}
			i += 1 + int(b[i])
		}
		i++
		if len(b) < i+10 {
			return false
		}
		fixed := b[i:]
		size := int(binary.BigEndian.Uint16(fixed[8:]))
		if len(fixed) < 10+size {
			return false
		}
		if Type(binary.BigEndian.Uint16(fixed)) == typeOPT {
			if r.edns || i != 1 {
				return false
			}
			r.edns, r.version, r.do = true, fixed[5], fixed[6]&0x80 != 0
			if udp {
				r.limit = min(max(int(binary.BigEndian.Uint16(fixed[2:])), plainSize), ednsSize)
			}
		}
		b = fixed[10+size:]
	}
	return len(b) == 0
}

// resolve follows the question through the zone.
func (r *Responder) resolve(random uint32) ([]byte, Outcome) {
	r.zone.mu.RLock()
	defer r.zone.mu.RUnlock()
	r.at = headerLen
	for range maxAliases {
		front, ok := r.zone.authority(&r.q)
		if !ok {
			return r.outside()
		}
		r.zoneFront = front
		n := r.zone.nodes[string(r.q.bytes())]
		if n == nil {
			return r.missing(), Done
		}
		if alias := n.find(TypeCNAME); alias != nil && r.kind != TypeCNAME {
			if !r.add(TypeCNAME, ttl, alias[0].data) {
				return r.finish(rcodeSuccess, flagAA), Done
			}
			r.at = len(r.out) - len(alias[0].data)
			r.q.set(alias[0].data)
			continue
		}
		r.fill(n, random)
		return r.finish(rcodeSuccess, flagAA), Done
	}
	return r.finish(rcodeServer, 0), Done
}

// outside ends the search at a name that is not ours.
func (r *Responder) outside() ([]byte, Outcome) {
	if r.forward {
		return r.finish(rcodeSuccess, 0), Forward
	}
	// The SOA of a root that holds nothing lets resolvers keep the answer.
	if r.fits(1 + 10 + 2 + 20) {
		r.out = append(r.out, 0, 0, byte(TypeSOA), 0, classIN, 0, 0, 0, ttl, 0, 22, 0, 0)
		for _, v := range [...]uint32{1, 7200, 1800, 86400, ttl} {
			r.out = binary.BigEndian.AppendUint32(r.out, v)
		}
		r.author++
	}
	var aa uint16
	if r.answers > 0 {
		aa = flagAA // The alias is ours, only what it points to is not.
	}
	return r.finishWith(rcodeNXDomain, aa, closedText), Done
}

// missing answers for a name of ours without a node: a pod's, or none.
func (r *Responder) missing() []byte {
	addr, exists := r.zone.podAddr(&r.q)
	if r.zoneFront == 0 {
		// The top of a reverse zone exists, whatever is in it.
		if exists = true; r.kind == TypeSOA {
			r.answers += r.addSOA()
			r.author = 0
			return r.finish(rcodeSuccess, flagAA)
		}
	}
	kind := TypeA
	if addr.Is6() {
		kind = TypeAAAA
	}
	switch {
	case !exists:
		r.addSOA()
		return r.finish(rcodeNXDomain, flagAA)
	case addr.IsValid() && r.wants(kind):
		if addr.Is4() {
			v := addr.As4()
			addBytes(r, kind, v[:])
		} else {
			v := addr.As16()
			addBytes(r, kind, v[:])
		}
	default:
		r.addSOA()
	}
	return r.finish(rcodeSuccess, flagAA)
}

// wants tells whether the question is for a type. A question for any type gets
// one address type only, as RFC 8482 allows.
func (r *Responder) wants(t Type) bool { return r.kind == t || r.kind == typeANY }

// fill adds the records of the asked type, from a random one on, and the
// addresses of SRV targets.
func (r *Responder) fill(n *node, random uint32) {
	kind := r.kind
	if kind == typeANY {
		for i := range n.sets {
			if n.sets[i].kind != 0 {
				kind = n.sets[i].kind
				break
			}
		}
	}
	if kind == TypeSOA && r.zoneFront == 0 {
		r.answers += r.addSOA()
		r.author = 0
		return
	}
	set := n.find(kind)
	if len(set) == 0 || kind == 0 {
		r.addSOA()
		return
	}
	for i := range set {
		if !r.add(kind, ttl, set[(i+int(random%uint32(len(set))))%len(set)].data) {
			return
		}
	}
	if kind == TypeSRV {
		r.addTargets(set)
	}
}

// addTargets adds the addresses of SRV targets as long as there is room; a
// client asks for what is not there.
func (r *Responder) addTargets(set []rr) {
	for _, srv := range set {
		target := srv.data[6:]
		n := r.zone.nodes[target]
		if n == nil {
			continue
		}
		for _, kind := range [...]Type{TypeA, TypeAAAA} {
			for _, a := range n.find(kind) {
				if !r.fits(len(target) + 10 + len(a.data)) {
					return
				}
				r.out = append(r.out, target...)
				r.appendFixed(kind, ttl, len(a.data))
				r.out = append(r.out, a.data...)
				r.extra++
			}
		}
	}
}
