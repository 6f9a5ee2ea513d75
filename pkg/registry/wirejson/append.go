package wirejson

import (
	"bytes"
	"math"
	"math/bits"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Append appends the JSON of a message. After an error dst is as it was.
func (p *Plan) Append(dst, wire []byte) ([]byte, error) {
	begun := len(dst)
	out, err := p.object(dst, wire)
	if err != nil {
		return out[:begun], err
	}
	return out, nil
}

// span is where a field was found: from its first tag to the end of its last
// value, of which there are count. value is where the first one begins, behind
// its tag and its length.
type span struct {
	from, value, to, count int32
}

// usualFields is how many fields a message may have for its spans to need no
// memory of their own.
const (
	usualFields = 48
	fewFields   = 8
)

func (p *Plan) object(dst, wire []byte) ([]byte, error) {
	dst, _, err := p.members(append(dst, '{'), wire, false)
	return append(dst, '}'), err
}

// members appends the fields of a message without the braces. any says that
// there is one before them, and the result that there is one now.
func (p *Plan) members(dst, wire []byte, any bool) ([]byte, bool, error) {
	if len(wire) > math.MaxInt32 {
		return dst, any, ErrUnusual
	}
	// Most messages are small: not even the clearing of more spans is for them.
	switch n := len(p.fields); {
	case n <= fewFields:
		var room [fewFields]span
		return p.write(dst, wire, any, room[:n])
	case n <= usualFields:
		var room [usualFields]span
		return p.write(dst, wire, any, room[:n])
	default:
		return p.write(dst, wire, any, make([]span, n))
	}
}

// write is members with room for what is found.
func (p *Plan) write(dst, wire []byte, any bool, found []span) ([]byte, bool, error) {
	present, err := p.find(found, wire)
	if err != nil {
		return dst, any, err
	}
	// Of the many fields that a type has most are absent and leave no trace.
	for left := present | p.always; left != 0; left &= left - 1 {
		i := bits.TrailingZeros64(left)
		f, s := &p.fields[i], &found[i]
		switch {
		case f.shape == inline:
			it, itemErr := f.one(wire, s)
			if itemErr != nil {
				return dst, any, itemErr
			}
			dst, any, err = f.value.message.members(dst, it.body, any)
		case s.count == 0:
			dst, any = append(comma(dst, any), f.absent...), true
		default:
			dst, any, err = f.append(dst, wire, s, any)
		}
		if err != nil {
			return dst, any, err
		}
	}
	return dst, any, nil
}

func comma(dst []byte, any bool) []byte {
	if any {
		return append(dst, ',')
	}
	return dst
}

// find notes where the fields of a message are, and returns which there are: a
// bit for each. Fields of no plan are skipped, as the library does.
func (p *Plan) find(found []span, wire []byte) (present uint64, err error) {
	for pos := 0; pos < len(wire); {
		num, typ, n := tag(wire[pos:])
		if n < 0 {
			return 0, ErrUnusual
		}
		value := pos + n
		end := value
		if typ == protowire.BytesType && value < len(wire) && wire[value] < 0x80 {
			value++
			end = value + int(wire[value-1])
		} else {
			size := protowire.ConsumeFieldValue(num, typ, wire[value:])
			if size < 0 {
				return 0, ErrUnusual
			}
			end += size
			if typ == protowire.BytesType {
				_, n := protowire.ConsumeVarint(wire[value:])
				value += n
			}
		}
		if end > len(wire) {
			return 0, ErrUnusual
		}
		if int(num) < len(p.byNumber) && p.byNumber[num] > 0 {
			i := p.byNumber[num] - 1
			if typ != p.fields[i].wire() {
				return 0, ErrUnusual
			}
			s := &found[i]
			if s.count == 0 {
				s.from, s.value = int32(pos), int32(value)
				present |= 1 << i
			}
			s.to = int32(end)
			s.count++
		}
		pos = end
	}
	return present, nil
}

// tag is protowire.ConsumeTag, quick for the usual ones of one byte.
func tag(wire []byte) (protowire.Number, protowire.Type, int) {
	if c := wire[0]; c < 0x80 && c >= 8 {
		return protowire.Number(c >> 3), protowire.Type(c & 7), 1
	}
	return protowire.ConsumeTag(wire)
}

// wire is how the field itself is encoded.
func (f *field) wire() protowire.Type {
	if f.shape == mapping {
		return protowire.BytesType
	}
	return f.value.wire
}

// item is one value as found: a number or bytes.
type item struct {
	number uint64
	body   []byte
}

// one reads a field that may occur once; absent, it is the zero item.
func (f *field) one(wire []byte, s *span) (item, error) {
	switch s.count {
	case 0:
		return item{}, nil
	case 1:
		if f.wire() == protowire.BytesType {
			return item{body: wire[s.value:s.to]}, nil
		}
		it, _, err := f.next(wire[s.from:s.to])
		return it, err
	}
	return item{}, ErrUnusual // the library would merge them
}

// next reads the first value of the field in wire and returns what follows.
func (f *field) next(wire []byte) (item, []byte, error) {
	for len(wire) > 0 {
		num, typ, n := tag(wire)
		if n < 0 {
			return item{}, nil, ErrUnusual
		}
		rest := wire[n:]
		switch {
		case num != f.number:
			size := protowire.ConsumeFieldValue(num, typ, rest)
			if size < 0 {
				return item{}, nil, ErrUnusual
			}
			wire = rest[size:]
			continue
		case typ == protowire.VarintType:
			v, size := protowire.ConsumeVarint(rest)
			if size < 0 {
				return item{}, nil, ErrUnusual
			}
			return item{number: v}, rest[size:], nil
		case typ == protowire.BytesType && len(rest) > 0 && rest[0] < 0x80 && int(rest[0]) < len(rest):
			end := 1 + int(rest[0])
			return item{body: rest[1:end]}, rest[end:], nil
		case typ == protowire.BytesType:
			b, size := protowire.ConsumeBytes(rest)
			if size < 0 {
				return item{}, nil, ErrUnusual
			}
			return item{body: b}, rest[size:], nil
		}
		return item{}, nil, ErrUnusual
	}
	return item{}, nil, ErrUnusual
}

// append appends the field with its key unless it is to be left out.
func (f *field) append(dst, wire []byte, s *span, any bool) ([]byte, bool, error) {
	if s.count == 0 {
		return f.appendAbsent(dst, any)
	}
	var it item
	var err error
	if f.shape == plain || f.shape == optional {
		if it, err = f.one(wire, s); err != nil || f.omits(it) {
			return dst, any, err
		}
	}
	dst = append(comma(dst, any), f.key...)
	switch f.shape {
	case repeated:
		dst, err = f.list(dst, wire[s.from:s.to], s.count)
	case mapping:
		dst, err = f.object(dst, wire[s.from:s.to], s.count)
	default:
		dst, err = f.value.append(dst, it.number, it.body)
	}
	return dst, true, err
}

// appendAbsent appends a field that is not in the message.
func (f *field) appendAbsent(dst []byte, any bool) ([]byte, bool, error) {
	message := f.shape == plain && f.value.message != nil
	switch {
	case f.omitZero, f.omitEmpty && !(f.shape == plain && f.value.structural):
		return dst, any, nil
	case message:
		dst, err := f.value.message.object(append(comma(dst, any), f.key...), nil)
		return dst, true, err
	}
	dst = append(comma(dst, any), f.key...)
	if f.shape == plain {
		return append(dst, f.value.none...), true, nil
	}
	return append(dst, "null"...), true, nil
}

// omits says that a single value that is there is left out.
func (f *field) omits(it item) bool {
	if f.shape == optional || !f.omitZero && !f.omitEmpty {
		return false
	}
	return (f.omitZero || !f.value.structural) && f.value.zero(it.number, it.body)
}

func (f *field) list(dst, wire []byte, count int32) ([]byte, error) {
	dst = append(dst, '[')
	for i := range count {
		if i > 0 {
			dst = append(dst, ',')
		}
		it, rest, err := f.next(wire)
		if err != nil {
			return dst, err
		}
		if dst, err = f.value.append(dst, it.number, it.body); err != nil {
			return dst, err
		}
		wire = rest
	}
	return append(dst, ']'), nil
}

// entry is one entry of a map.
type entry struct {
	key     []byte
	value   item
	present bool
}

// usualEntries is how many entries of a map need no memory of their own.
const usualEntries = 16

func (f *field) object(dst, wire []byte, count int32) ([]byte, error) {
	var room [usualEntries]entry
	entries := room[:0]
	sorted := true
	for range count {
		it, rest, err := f.next(wire)
		if err != nil {
			return dst, err
		}
		e, err := f.entry(it.body)
		if err != nil {
			return dst, err
		}
		if n := len(entries); n > 0 && bytes.Compare(entries[n-1].key, e.key) >= 0 {
			sorted = false
		}
		entries = append(entries, e)
		wire = rest
	}
	if !sorted {
		slices.SortStableFunc(entries, func(a, b entry) int { return bytes.Compare(a.key, b.key) })
		for i := 1; i < len(entries); i++ {
			if bytes.Equal(entries[i-1].key, entries[i].key) {
				return dst, ErrUnusual
			}
		}
	}
	dst = append(dst, '{')
	for i, e := range entries {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, e.key), ':')
		var err error
		switch {
		case e.present || f.value.message != nil || f.value.slice:
			dst, err = f.value.append(dst, e.value.number, e.value.body)
		default:
			dst = append(dst, f.value.none...)
		}
		if err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// entry reads {1: key, 2: value}.
func (f *field) entry(msg []byte) (entry, error) {
	var e entry
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 || num > 2 || num == 1 && typ != protowire.BytesType || num == 2 && typ != f.value.wire {
			return e, ErrUnusual
		}
		if typ == protowire.VarintType {
			v, size := protowire.ConsumeVarint(msg[n:])
			if size < 0 || e.present {
				return e, ErrUnusual
			}
			e.value.number, e.present = v, true
			msg = msg[n+size:]
			continue
		}
		b, size := protowire.ConsumeBytes(msg[n:])
		if size < 0 || num == 1 && e.key != nil || num == 2 && e.present {
			return e, ErrUnusual
		}
		if num == 1 {
			e.key = b
		} else {
			e.value.body, e.present = b, true
		}
		msg = msg[n+size:]
	}
	return e, nil
}

// zero says that the message decodes to the zero value of its type.
func (p *Plan) zero(_ uint64, wire []byte) bool {
	var room [usualFields]span
	found := room[:]
	if len(p.fields) > usualFields {
		found = make([]span, len(p.fields))
	}
	present, err := p.find(found, wire)
	if err != nil {
		return false
	}
	for ; present != 0; present &= present - 1 {
		i := bits.TrailingZeros64(present)
		f, s := &p.fields[i], &found[i]
		if f.shape != plain && f.shape != inline {
			return false
		}
		it, err := f.one(wire, s)
		if err != nil || !f.value.zero(it.number, it.body) {
			return false
		}
	}
	return true
}
