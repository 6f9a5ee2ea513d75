package plainjson

import "reflect"

// Merge applies a merge patch (RFC 7386) to the struct that into points to, as if
// it were applied to the struct's JSON and the result decoded. Nothing that Merge
// changes may be shared. What Decode calls unusual, and what would have to be
// merged into a value that is JSON or a struct in a map, is ErrUnusual; into may
// have been changed in part then.
func (p *Plan) Merge(patch []byte, into any) error {
	s := newScanner(patch)
	s.space()
	if s.peek() != '{' {
		return ErrUnusual
	}
	if err := p.merge(&s, reflect.ValueOf(into).Elem()); err != nil {
		return err
	}
	s.space()
	if s.at != len(patch) {
		return ErrUnusual
	}
	return nil
}

// fresh decodes what was not there before. Nulls in it mean that nothing is
// there, which decode does not know of members of maps.
func fresh(s *scanner, v reflect.Value, decode decoder) error {
	s.nulls = false
	if err := decode(s, v); err != nil {
		return err
	}
	if s.nulls {
		return ErrUnusual
	}
	return nil
}

// replacing is the merge of what has no parts: null unsets it.
func replacing(decode decoder) decoder {
	return func(s *scanner, v reflect.Value) error {
		v.SetZero()
		switch {
		case s.null():
			return nil
		case s.peek() == '{':
			return ErrUnusual // into JSON that a type keeps as it is
		}
		return fresh(s, v, decode)
	}
}

func mergePointer(s *scanner, v reflect.Value, decode, merge decoder) error {
	switch {
	case s.null():
		v.SetZero()
		return nil
	case v.IsNil():
		return fresh(s, v, decode)
	}
	return merge(s, v.Elem())
}

func mergeMap(s *scanner, v reflect.Value, t reflect.Type, decode, item decoder) error {
	switch {
	case s.null():
		v.SetZero()
		return nil
	case v.IsNil():
		return fresh(s, v, decode)
	}
	if err := s.enter('{'); err != nil {
		return err
	}
	if s.empty('}') {
		return nil
	}
	seen := map[string]bool{}
	for more := true; more; {
		name, err := s.name()
		if err != nil {
			return err
		}
		if seen[string(name)] {
			return ErrUnusual
		}
		seen[string(name)] = true
		key := reflect.New(t.Key()).Elem()
		key.SetString(s.keep(name))
		if err = mergeMember(s, v, key, t.Elem(), item); err == nil {
			more, err = s.more('}')
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// mergeMember sets or unsets one member of a map.
func mergeMember(s *scanner, v, key reflect.Value, t reflect.Type, item decoder) error {
	if s.null() {
		v.SetMapIndex(key, reflect.Value{})
		return nil
	}
	if s.peek() == '{' && v.MapIndex(key).IsValid() {
		return ErrUnusual
	}
	value := reflect.New(t).Elem()
	if err := fresh(s, value, item); err != nil {
		return err
	}
	v.SetMapIndex(key, value)
	return nil
}

// merge reads a patch of an object.
func (o *object) merge(s *scanner, v reflect.Value) error {
	if s.null() {
		v.SetZero()
		return nil
	}
	return o.read(s, v, true)
}
