package registry

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"coracle/pkg/resource"
)

// selectable reads the selectable fields of encoded objects of one resource. It
// decodes nothing but the parts of an object that they are made of: of a pod
// that is a twentieth, and every write of one and every event of the store is
// indexed.
type selectable struct {
	res *resource.Resource
	// part is what is decoded; nil means everything.
	part part
}

// part is some fields of a message: those that are taken whole are nil.
type part map[protowire.Number]part

// selectableOf prepares the selectable fields of a resource. Its FieldsRead are
// a list in the program, which a test holds against all fields.
func selectableOf(res *resource.Resource) selectable {
	s := selectable{res: res}
	if len(res.FieldsRead) == 0 || res.StoredJSON {
		return s
	}
	root := part{}
	for _, path := range res.FieldsRead {
		if err := root.add(reflect.TypeOf(res.New()).Elem(), strings.Split(path, ".")); err != nil {
			return s
		}
	}
	s.part = root
	return s
}

// fields returns the selectable fields of an object's own bytes.
func (s *selectable) fields(raw []byte) (map[string]string, error) {
	obj := s.res.New()
	msg, ok := obj.(protoMessage)
	if !ok {
		return nil, fmt.Errorf("type %T has no protobuf encoding", obj)
	}
	if s.part != nil {
		var room [512]byte
		few, err := s.part.take(room[:0], raw)
		if err != nil {
			return nil, err
		}
		raw = few
	}
	if err := msg.Unmarshal(raw); err != nil {
		return nil, err
	}
	return s.res.Fields(obj), nil
}

// take appends the part of a message. What follows a message's own rules stays
// in order, so that it decodes to the same.
func (p part) take(dst, msg []byte) ([]byte, error) {
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return dst, fmt.Errorf("a field tag is cut off: %w", errWire)
		}
		size := protowire.ConsumeFieldValue(num, typ, msg[n:])
		if size < 0 {
			return dst, fmt.Errorf("field %d is cut off: %w", num, errWire)
		}
		within, wanted := p[num]
		switch {
		case wanted && (within == nil || typ != protowire.BytesType):
			dst = append(dst, msg[:n+size]...)
		case wanted:
			body, _ := protowire.ConsumeBytes(msg[n:])
			var room [256]byte
			few, err := within.take(room[:0], body)
			if err != nil {
				return dst, err
			}
			dst = append(dst, msg[:n]...)
			dst = protowire.AppendBytes(dst, few)
		}
		msg = msg[n+size:]
	}
	return dst, nil
}

// add adds the field that the JSON names lead to.
func (p part) add(t reflect.Type, names []string) error {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return fmt.Errorf("%s has no field %s", t, names[0])
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != names[0] {
			continue
		}
		tag := strings.Split(f.Tag.Get("protobuf"), ",")
		if len(tag) < 2 {
			return fmt.Errorf("%s.%s has no protobuf tag", t, f.Name)
		}
		number, err := strconv.Atoi(tag[1])
		if err != nil {
			return fmt.Errorf("%s.%s: protobuf tag %q: %w", t, f.Name, tag[1], err)
		}
		num := protowire.Number(number)
		within, have := p[num]
		switch {
		case len(names) == 1:
			p[num] = nil
			return nil
		case have && within == nil:
			return nil // it is taken whole
		case !have:
			within = part{}
			p[num] = within
		}
		return within.add(f.Type, names[1:])
	}
	return fmt.Errorf("%s has no field %s", t, names[0])
}
