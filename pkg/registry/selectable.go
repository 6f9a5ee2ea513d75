package registry

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/resource"
	"coracle/pkg/storage/cache"
)

// Partial decodes some fields of encoded objects of one resource: of a pod, what
// one reader needs is often a twentieth.
type Partial struct {
	res *resource.Resource
	// part is what is decoded; nil means everything.
	part part
}

// part is some fields of a message: those that are taken whole are nil.
type part map[protowire.Number]part

// NewPartial prepares the decoding of the fields that the paths lead to, by
// their names in JSON ("spec.nodeName"). Error: there is no such field, or the
// resource is stored as JSON.
func NewPartial(res *resource.Resource, paths ...string) (*Partial, error) {
	if res.StoredJSON {
		return nil, fmt.Errorf("%s is stored as JSON and is only decoded whole", res.Kind)
	}
	p := &Partial{res: res, part: part{}}
	for _, path := range paths {
		if err := p.part.add(reflect.TypeOf(res.New()).Elem(), strings.Split(path, ".")); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Decode fills obj, which is the resource's and may have been used before, with
// the fields of o. Its other fields are empty then.
func (p *Partial) Decode(o *cache.Object, obj runtime.Object) error {
	raw, err := Raw(o.Value)
	if err == nil {
		err = p.decode(raw, obj)
	}
	if err != nil {
		return fmt.Errorf("decode %s: %w", p.res.Kind, err)
	}
	return nil
}

// decode is Decode of an object's own bytes.
func (p *Partial) decode(raw []byte, obj runtime.Object) error {
	msg, ok := obj.(protoMessage)
	if !ok {
		return fmt.Errorf("type %T has no protobuf encoding", obj)
	}
	msg.Reset()
	if p.part != nil {
		var room [512]byte
		few, err := p.part.take(room[:0], raw)
		if err != nil {
			return err
		}
		raw = few
	}
	return msg.Unmarshal(raw)
}

// selectable reads the selectable fields of encoded objects of one resource, out
// of the parts that they are made of: every write of an object and every event of
// the store is indexed.
type selectable struct {
	Partial
	used sync.Pool // of objects that were read
}

// selectableOf prepares the selectable fields of a resource. Its FieldsRead are
// a list in the program, which a test holds against all fields.
func selectableOf(res *resource.Resource) *selectable {
	s := &selectable{Partial: Partial{res: res}}
	s.used.New = func() any { return res.New() }
	if len(res.FieldsRead) > 0 {
		if p, err := NewPartial(res, res.FieldsRead...); err == nil {
			s.part = p.part
		}
	}
	return s
}

// fields returns the selectable fields of an object's own bytes.
func (s *selectable) fields(raw []byte) (map[string]string, error) {
	obj := s.used.Get().(runtime.Object)
	defer s.used.Put(obj)
	if err := s.decode(raw, obj); err != nil {
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
