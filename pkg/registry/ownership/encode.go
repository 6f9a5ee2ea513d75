package ownership

import (
	"slices"
	"strconv"
)

// maxNumber bounds the numbers in keys: those the library reads back, as
// floats, are exact up to here.
const maxNumber = 1e15

// plain says that a string is written into JSON, and into JSON inside a JSON
// string, as it is, but for the quotes around it.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < 0x20, c >= 0x7f, c == '"', c == '\\', c == '<', c == '>', c == '&':
			return false
		}
	}
	return true
}

// plainName says that a field's name is written into JSON as it is.
func plainName(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// appendSet appends the FieldsV1 form of s. self says that the path that
// leads to s is a member of the set above.
func appendSet(buf []byte, s set, self bool) []byte {
	buf = append(buf, '{')
	if self && len(s) > 0 {
		buf = append(buf, `".":{},`...)
	}
	for i := range s {
		if i > 0 {
			buf = append(buf, ',')
		}
		e := &s[i]
		switch e.kind {
		case fieldElement:
			buf = append(buf, `"f:`...)
			buf = append(buf, e.name...)
		case keyElement:
			buf = append(buf, `"k:{`...)
			for k := range e.key {
				if k > 0 {
					buf = append(buf, ',')
				}
				buf = append(buf, `\"`...)
				buf = append(buf, e.key[k].name...)
				buf = append(buf, `\":`...)
				buf = appendScalar(buf, &e.key[k])
			}
			buf = append(buf, '}')
		case valueElement:
			buf = append(buf, `"v:`...)
			buf = appendScalar(buf, &e.key[0])
		}
		buf = append(buf, `":`...)
		buf = appendSet(buf, e.below, e.member)
	}
	return append(buf, '}')
}

func appendScalar(buf []byte, v *scalar) []byte {
	switch v.kind {
	case stringScalar:
		buf = append(buf, `\"`...)
		buf = append(buf, v.text...)
		return append(buf, `\"`...)
	case boolScalar:
		return strconv.AppendBool(buf, v.num != 0)
	}
	return strconv.AppendInt(buf, v.num, 10)
}

// maxDepth bounds how deep a set may be nested; no kind comes near it.
const maxDepth = 200

// parse reads a set that is written as appendSet writes it, but for the order
// of its elements, which sorted tells about. ok is false for every other form,
// whether it means a set or not.
func parse(raw string) (s set, sorted, ok bool) {
	var room [32]element
	p := parser{rest: raw, open: room[:0]}
	s, self := p.set(0)
	return s, !p.unsorted, !p.bad && !self && p.rest == ""
}

// parser reads the FieldsV1 form from the front of rest.
type parser struct {
	rest     string
	open     []element // of the levels that are being read, those of an inner one behind those of the outer
	bad      bool
	unsorted bool
}

func (p *parser) skip(text string) bool {
	if len(p.rest) < len(text) || p.rest[:len(text)] != text {
		return false
	}
	p.rest = p.rest[len(text):]
	return true
}

func (p *parser) need(text string) {
	if !p.skip(text) {
		p.bad = true
	}
}

// set reads one level. self says that the path to it is a member as well.
func (p *parser) set(depth int) (s set, self bool) {
	p.need("{")
	if p.skip("}") {
		return nil, false
	}
	if p.skip(`".":{},`) {
		self = true
	}
	unsorted := false
	first := len(p.open)
	for !p.bad && depth < maxDepth {
		e := p.element()
		if p.bad {
			break
		}
		p.need(`":`)
		below, member := p.set(depth + 1)
		e.below, e.member = below, member || len(below) == 0
		unsorted = unsorted || len(p.open) > first && p.open[len(p.open)-1].compare(&e) >= 0
		p.open = append(p.open, e)
		if p.skip("}") {
			s = slices.Clone(p.open[first:])
			if p.open = p.open[:first]; unsorted {
				p.sort(s)
			}
			return s, self
		}
		p.need(",")
	}
	p.bad = true
	return nil, false
}

// sort sorts a level, which may not repeat an element.
func (p *parser) sort(s set) {
	p.unsorted = true
	slices.SortFunc(s, func(a, b element) int { return a.compare(&b) })
	for i := 1; i < len(s); i++ {
		p.bad = p.bad || s[i-1].compare(&s[i]) == 0
	}
}

func (p *parser) element() (e element) {
	switch {
	case p.skip(`"f:`):
		n := 0
		for n < len(p.rest) && p.rest[n] != '"' {
			if c := p.rest[n]; c < 0x20 || c == '\\' {
				p.bad = true
				return e
			}
			n++
		}
		e.name, p.rest = p.rest[:n], p.rest[n:]
	case p.skip(`"k:{`):
		e.kind = keyElement
		for {
			p.need(`\"`)
			name := p.text()
			p.need(`:`)
			v := p.scalar()
			v.name = name
			if n := len(e.key); p.bad || n > 0 && e.key[n-1].name >= name {
				p.bad = true
				return e
			}
			e.key = append(e.key, v)
			if p.skip("}") {
				return e
			}
			p.need(",")
		}
	case p.skip(`"v:`):
		e.kind = valueElement
		e.key = []scalar{p.scalar()}
	default:
		p.bad = true
	}
	return e
}

// text reads up to an escaped quotation mark.
func (p *parser) text() string {
	n := 0
	for n < len(p.rest) && p.rest[n] != '\\' {
		n++
	}
	s := p.rest[:n]
	p.rest = p.rest[n:]
	p.need(`\"`)
	if !plain(s) {
		p.bad = true
	}
	return s
}

func (p *parser) scalar() (v scalar) {
	switch {
	case p.skip(`\"`):
		v.kind, v.text = stringScalar, p.text()
	case p.skip("true"):
		v.kind, v.num = boolScalar, 1
	case p.skip("false"):
		v.kind = boolScalar
	default:
		n := 0
		for n < len(p.rest) && (p.rest[n] == '-' || p.rest[n] >= '0' && p.rest[n] <= '9') {
			n++
		}
		num, err := strconv.ParseInt(p.rest[:n], 10, 64)
		if err != nil || strconv.FormatInt(num, 10) != p.rest[:n] || num > maxNumber || num < -maxNumber {
			p.bad = true
		}
		v.num, p.rest = num, p.rest[n:]
	}
	return v
}
