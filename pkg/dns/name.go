package dns

import (
	"errors"
	"net/netip"
	"strings"
)

// Names are kept in wire form, lower case: each label preceded by its length,
// and the empty label at the end.

const (
	maxName  = 255
	maxLabel = 63
)

var errName = errors.New("not a domain name")

// wireName encodes a dotted name, which may end in a dot.
func wireName(dotted string) (string, error) {
	dotted = strings.TrimSuffix(dotted, ".")
	if dotted == "" {
		return "\x00", nil
	}
	return join(strings.Split(dotted, "."), "\x00")
}

// join puts labels in front of a name in wire form.
func join(labels []string, name string) (string, error) {
	var b strings.Builder
	for _, l := range labels {
		if len(l) == 0 || len(l) > maxLabel {
			return "", errName
		}
		b.WriteByte(byte(len(l)))
		for i := range len(l) {
			b.WriteByte(lower(l[i]))
		}
	}
	b.WriteString(name)
	if b.Len() > maxName {
		return "", errName
	}
	return b.String(), nil
}

// lower maps ASCII letters only: names are bytes, and a mapping of more than
// that could change their length.
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// parent is the name without its first label; the root has none.
func parent(name string) (string, bool) {
	if len(name) < 2 {
		return "", false
	}
	return name[1+int(name[0]):], true
}

// qname is a name read from a message: lower case, with the place of each
// label. It is reused between queries.
type qname struct {
	buf [maxName]byte
	// n is the length in use.
	n int
	// labels holds where each label starts in buf, the root included.
	labels [maxName/2 + 1]uint8
	count  int
}

// parse reads a name without compression from the front of msg and returns the
// rest: a question comes first in a message and has nothing to point to.
func (q *qname) parse(msg []byte) (rest []byte, ok bool) {
	q.n, q.count = 0, 0
	for {
		if len(msg) == 0 {
			return nil, false
		}
		l := int(msg[0])
		if l > maxLabel || len(msg) < 1+l || q.n+1+l > maxName {
			return nil, false
		}
		q.labels[q.count] = uint8(q.n)
		q.count++
		q.buf[q.n] = byte(l)
		for i := 1; i <= l; i++ {
			q.buf[q.n+i] = lower(msg[i])
		}
		q.n += 1 + l
		msg = msg[1+l:]
		if l == 0 {
			return msg, true
		}
	}
}

// set takes a name that is in wire form and lower case already.
func (q *qname) set(name string) {
	q.n, q.count = copy(q.buf[:], name), 0
	for i := 0; i < q.n; i += 1 + int(q.buf[i]) {
		q.labels[q.count] = uint8(i)
		q.count++
	}
}

func (q *qname) bytes() []byte { return q.buf[:q.n] }

// from is the name without its first i labels.
func (q *qname) from(i int) []byte { return q.buf[q.labels[i]:q.n] }

// label is the i-th label's text.
func (q *qname) label(i int) []byte {
	at := int(q.labels[i])
	return q.buf[at+1 : at+1+int(q.buf[at])]
}

// under tells how many labels the name has in front of zone, and whether it is
// in the zone at all.
func (q *qname) under(zone string) (front int, ok bool) {
	for i := range q.count {
		if q.n-int(q.labels[i]) == len(zone) {
			return i, string(q.from(i)) == zone
		}
	}
	return 0, false
}

// The domains of reverse names.
const (
	arpa4 = "\x07in-addr\x04arpa\x00"
	arpa6 = "\x03ip6\x04arpa\x00"
)

// reverseName is the name that asks for an address.
func reverseName(a netip.Addr) string {
	var b strings.Builder
	if a.Is4() {
		for _, c := range []int{3, 2, 1, 0} {
			s := decimal(a.As4()[c])
			b.WriteByte(byte(len(s)))
			b.WriteString(s)
		}
		return b.String() + arpa4
	}
	raw := a.As16()
	for i := 15; i >= 0; i-- {
		b.Write([]byte{1, hexDigits[raw[i]&15], 1, hexDigits[raw[i]>>4]})
	}
	return b.String() + arpa6
}

const hexDigits = "0123456789abcdef"

func decimal(b byte) string {
	switch {
	case b >= 100:
		return string([]byte{'0' + b/100, '0' + b/10%10, '0' + b%10})
	case b >= 10:
		return string([]byte{'0' + b/10, '0' + b%10})
	}
	return string([]byte{'0' + b})
}

// reversed reads a reverse name, whole or cut short at the front, as the range
// of addresses it stands for.
func (q *qname) reversed() (netip.Prefix, bool) {
	if front, ok := q.under(arpa4); ok && front <= 4 {
		var a [4]byte
		for i := range front {
			v, ok := parseByte(q.label(front - 1 - i))
			if !ok {
				return netip.Prefix{}, false
			}
			a[i] = v
		}
		return netip.PrefixFrom(netip.AddrFrom4(a), front*8), true
	}
	if front, ok := q.under(arpa6); ok && front <= 32 {
		var a [16]byte
		for i := range front {
			l := q.label(front - 1 - i)
			v := strings.IndexByte(hexDigits, l[0])
			if len(l) != 1 || v < 0 {
				return netip.Prefix{}, false
			}
			a[i/2] |= byte(v) << (4 - i%2*4)
		}
		return netip.PrefixFrom(netip.AddrFrom16(a), front*4), true
	}
	return netip.Prefix{}, false
}

// parseByte reads a decimal number below 256 without leading zeros.
func parseByte(s []byte) (byte, bool) {
	if len(s) == 0 || len(s) > 3 || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	v := 0
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int(c-'0')
	}
	return byte(v), v < 256
}

// dashed reads a pod's label, an address with dashes for its dots or colons.
func dashed(l []byte) (netip.Addr, bool) {
	var a [4]byte
	part, start := 0, 0
	for i := 0; i <= len(l); i++ {
		if i < len(l) && l[i] != '-' {
			continue
		}
		v, ok := parseByte(l[start:i])
		if !ok || part == 4 {
			part = 5
			break
		}
		a[part] = v
		part, start = part+1, i+1
	}
	if part == 4 {
		return netip.AddrFrom4(a), true
	}
	six, err := netip.ParseAddr(strings.ReplaceAll(string(l), "-", ":"))
	return six, err == nil && six.Is6() && six.Zone() == ""
}

// dash is the label of an address, the reverse of dashed. A label cannot start
// or end with a dash: an empty group is written as a zero.
func dash(a netip.Addr) string {
	s := strings.NewReplacer(".", "-", ":", "-").Replace(a.String())
	if strings.HasPrefix(s, "-") {
		s = "0" + s
	}
	if strings.HasSuffix(s, "-") {
		s += "0"
	}
	return s
}
