package plainjson

import (
	"encoding/base64"
	"reflect"
	"strconv"
)

// maxDepth bounds how deep values may be nested; no object comes near.
const maxDepth = 200

// Decode decodes a document into the struct that into points to, which is zero.
// After an error it may be filled in part.
func (p *Plan) Decode(doc []byte, into any) error {
	s := newScanner(doc)
	s.space()
	if err := p.decode(&s, reflect.ValueOf(into).Elem()); err != nil {
		return err
	}
	s.space()
	if s.at != len(doc) {
		return ErrUnusual
	}
	return nil
}

func decodeString(s *scanner, v reflect.Value) error {
	if s.null() {
		return nil
	}
	text, err := s.str()
	if err == nil {
		v.SetString(s.keep(text))
	}
	return err
}

func decodeBool(s *scanner, v reflect.Value) error {
	switch {
	case s.word("true"):
		v.SetBool(true)
	case s.word("false"), s.null():
	default:
		return ErrUnusual
	}
	return nil
}

func decodeInt(s *scanner, v reflect.Value) error {
	if s.null() {
		return nil
	}
	digits, err := s.number()
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil || v.OverflowInt(n) {
		return ErrUnusual
	}
	v.SetInt(n)
	return nil
}

func decodeBytes(s *scanner, v reflect.Value) error {
	if s.null() {
		return nil
	}
	text, err := s.str()
	if err != nil {
		return err
	}
	out := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(out, text)
	if err != nil {
		return ErrUnusual
	}
	v.SetBytes(out[:n])
	return nil
}

func decodeSlice(s *scanner, v reflect.Value, item decoder) error {
	if s.null() {
		return nil
	}
	if err := s.enter('['); err != nil {
		return err
	}
	if s.empty(']') {
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		return nil
	}
	for n, more := 0, true; more; n++ {
		if n == v.Cap() {
			v.Grow(max(1, n))
		}
		v.SetLen(n + 1)
		err := item(s, v.Index(n))
		if err == nil {
			more, err = s.more(']')
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// decodeTexts is decodeMap for labels, annotations and the like.
func decodeTexts(s *scanner, v reflect.Value) error {
	if s.null() {
		return nil
	}
	if err := s.enter('{'); err != nil {
		return err
	}
	texts := map[string]string{}
	v.Set(reflect.ValueOf(texts))
	if s.empty('}') {
		return nil
	}
	for more := true; more; {
		name, err := s.name()
		if err != nil {
			return err
		}
		if _, twice := texts[string(name)]; twice {
			return ErrUnusual
		}
		key, value := s.keep(name), "" // the next string takes the place of this one
		if !s.null() {
			var text []byte
			text, err = s.str()
			value = s.keep(text)
		}
		texts[key] = value
		if err == nil {
			more, err = s.more('}')
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func decodeMap(s *scanner, v reflect.Value, t reflect.Type, item decoder) error {
	if s.null() {
		return nil
	}
	if err := s.enter('{'); err != nil {
		return err
	}
	v.Set(reflect.MakeMap(t))
	if s.empty('}') {
		return nil
	}
	for more := true; more; {
		name, err := s.name()
		if err != nil {
			return err
		}
		key, value := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		key.SetString(s.keep(name))
		if v.MapIndex(key).IsValid() {
			return ErrUnusual
		}
		if err = item(s, value); err == nil {
			more, err = s.more('}')
		}
		if err != nil {
			return err
		}
		v.SetMapIndex(key, value)
	}
	return nil
}

// read decodes or merges an object.
func (o *object) read(s *scanner, v reflect.Value, merge bool) error {
	if s.null() {
		return nil
	}
	if err := s.enter('{'); err != nil {
		return err
	}
	if s.empty('}') {
		return nil
	}
	var seen [maxFields / 64]uint64
	next := 0 // fields come in order, most of the time
	for more := true; more; {
		name, err := s.name()
		if err != nil {
			return err
		}
		i := next
		if i >= len(o.fields) || o.fields[i].name != string(name) {
			var ok bool
			if i, ok = o.byName[string(name)]; !ok {
				return ErrUnusual
			}
		}
		next = i + 1
		if seen[i/64]&(1<<(i%64)) != 0 {
			return ErrUnusual
		}
		seen[i/64] |= 1 << (i % 64)
		f := &o.fields[i]
		to := v
		for _, n := range f.index {
			to = to.Field(n)
		}
		if merge {
			err = f.merge(s, to)
		} else {
			err = f.decode(s, to)
		}
		if err == nil {
			more, err = s.more('}')
		}
		if err != nil {
			return err
		}
	}
	return nil
}
