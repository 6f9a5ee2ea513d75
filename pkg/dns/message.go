package dns

import "encoding/binary"

// fits tells whether so many more bytes leave room for the EDNS record.
func (r *Responder) fits(n int) bool {
	if r.edns {
		n += optLen
	}
	return len(r.out)+n <= r.limit
}

// add appends an answer whose owner is the current name; if it does not fit,
// the message is marked as cut.
func (r *Responder) add(t Type, seconds uint32, data string) bool {
	if !r.fits(2 + 10 + len(data)) {
		r.tooBig = true
		return false
	}
	r.pointer(r.at)
	r.appendFixed(t, seconds, len(data))
	r.out = append(r.out, data...)
	r.answers++
	return true
}

// addBytes is add for data on the stack.
func addBytes(r *Responder, t Type, data []byte) {
	if !r.fits(2 + 10 + len(data)) {
		r.tooBig = true
		return
	}
	r.pointer(r.at)
	r.appendFixed(t, ttl, len(data))
	r.out = append(r.out, data...)
	r.answers++
}

// addSOA adds the zone's SOA record to the authority section, and returns how
// many records that were.
func (r *Responder) addSOA() uint16 {
	if !r.fits(2 + 10 + len(r.zone.soa) + 20) {
		return 0
	}
	r.pointer(r.at + int(r.q.labels[r.zoneFront]))
	r.appendFixed(TypeSOA, ttl, len(r.zone.soa)+20)
	r.out = r.zone.appendSOA(r.out)
	r.author++
	return 1
}

func (r *Responder) pointer(at int) {
	r.out = append(r.out, 0xc0|byte(at>>8), byte(at))
}

func (r *Responder) appendFixed(t Type, seconds uint32, size int) {
	r.out = binary.BigEndian.AppendUint16(r.out, uint16(t))
	r.out = binary.BigEndian.AppendUint16(r.out, classIN)
	r.out = binary.BigEndian.AppendUint32(r.out, seconds)
	r.out = binary.BigEndian.AppendUint16(r.out, uint16(size))
}

func (r *Responder) finish(rcode int, flags uint16) []byte { return r.finishWith(rcode, flags, "") }

// finishWith writes header and EDNS, with a reason if the client can read one.
func (r *Responder) finishWith(rcode int, flags uint16, reason string) []byte {
	h := r.out
	asked := binary.BigEndian.Uint16(h[2:])
	flags |= flagQR | flagRA | asked&(flagRD|flagCD|15<<11) | uint16(rcode&15)
	if r.tooBig {
		flags |= flagTC
	}
	if r.edns {
		r.appendOPT(rcode, reason)
		h = r.out
	}
	binary.BigEndian.PutUint16(h[2:], flags)
	binary.BigEndian.PutUint16(h[6:], r.answers)
	binary.BigEndian.PutUint16(h[8:], r.author)
	binary.BigEndian.PutUint16(h[10:], r.extra)
	return r.out
}

func (r *Responder) appendOPT(rcode int, reason string) {
	if len(r.out)+optLen+6+len(reason) > r.limit {
		reason = ""
	}
	do := byte(0)
	if r.do {
		do = 0x80
	}
	size := 0
	if reason != "" {
		size = 6 + len(reason)
	}
	r.out = append(r.out, 0, 0, byte(typeOPT), ednsSize>>8, ednsSize&255, byte(rcode>>4), 0, do, 0, byte(size>>8), byte(size))
	if reason != "" {
		r.out = append(r.out, 0, 15, 0, byte(2+len(reason)), 0, extendedProhibited)
		r.out = append(r.out, reason...)
	}
	r.extra++
}
