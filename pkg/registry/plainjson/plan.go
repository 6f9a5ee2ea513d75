package plainjson

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ErrUnusual says that the library has to decode a document.
var ErrUnusual = errors.New("the JSON is not plain")

// Plan knows how JSON becomes values of one Go type.
type Plan struct {
	codec
}

// decoder reads the value at the scanner's place into v, which can be set.
type decoder func(s *scanner, v reflect.Value) error

// codec is what is known of one type.
type codec struct {
	// decode reads a whole value; v is the zero value.
	decode decoder
	// merge reads a merge patch (RFC 7386); v is any value, which shares nothing
	// with others that merge may change.
	merge decoder
}

// maxFields bounds the fields of a struct: those that were seen are bits.
const maxFields = 128

// object is a struct type.
type object struct {
	fields []field
	byName map[string]int
}

// field is one field, its own or of a struct that is inline.
type field struct {
	name  string
	index []int
	codec
}

// Compile makes the plan of a struct type. Errors name what the type has that
// no Kubernetes type had so far.
func Compile(t reflect.Type) (*Plan, error) {
	c := compiler{known: map[reflect.Type]*codec{}}
	d, err := c.value(t)
	if err != nil {
		return nil, err
	}
	return &Plan{d}, nil
}

type compiler struct {
	known map[reflect.Type]*codec // types may refer to themselves
}

func (c compiler) value(t reflect.Type) (codec, error) {
	if d, ok := c.known[t]; ok {
		return codec{
			func(s *scanner, v reflect.Value) error { return d.decode(s, v) },
			func(s *scanner, v reflect.Value) error { return d.merge(s, v) },
		}, nil
	}
	p := reflect.PointerTo(t)
	switch {
	case t.Kind() != reflect.Pointer && p.Implements(reflect.TypeFor[json.Unmarshaler]()):
		return codec{ownDecoder(t), replacing(ownDecoder(t))}, nil
	case t.Kind() != reflect.Pointer && p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return codec{}, fmt.Errorf("type %s decodes itself from text", t)
	}
	switch t.Kind() {
	case reflect.String:
		return codec{decodeString, replacing(decodeString)}, nil
	case reflect.Bool:
		return codec{decodeBool, replacing(decodeBool)}, nil
	case reflect.Int, reflect.Int32, reflect.Int64:
		return codec{decodeInt, replacing(decodeInt)}, nil
	case reflect.Pointer:
		return c.pointer(t)
	case reflect.Slice:
		return c.slice(t)
	case reflect.Map:
		return c.mapping(t)
	case reflect.Struct:
		return c.object(t)
	}
	return codec{}, fmt.Errorf("type %s", t)
}

func (c compiler) pointer(t reflect.Type) (codec, error) {
	to, err := c.value(t.Elem())
	decode := func(s *scanner, v reflect.Value) error {
		if s.null() {
			return nil
		}
		fresh := reflect.New(t.Elem())
		v.Set(fresh)
		return to.decode(s, fresh.Elem())
	}
	return codec{decode, func(s *scanner, v reflect.Value) error { return mergePointer(s, v, decode, to.merge) }}, err
}

func (c compiler) slice(t reflect.Type) (codec, error) {
	if t.Elem().Kind() == reflect.Uint8 {
		return codec{decodeBytes, replacing(decodeBytes)}, nil
	}
	item, err := c.value(t.Elem())
	decode := func(s *scanner, v reflect.Value) error { return decodeSlice(s, v, item.decode) }
	return codec{decode, replacing(decode)}, err
}

func (c compiler) mapping(t reflect.Type) (codec, error) {
	key := t.Key()
	if key.Kind() != reflect.String || reflect.PointerTo(key).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return codec{}, fmt.Errorf("type %s", t)
	}
	item, err := c.value(t.Elem())
	decode := func(s *scanner, v reflect.Value) error { return decodeMap(s, v, t, item.decode) }
	if t == reflect.TypeFor[map[string]string]() {
		decode = decodeTexts
	}
	return codec{decode, func(s *scanner, v reflect.Value) error { return mergeMap(s, v, t, decode, item.decode) }}, err
}

func (c compiler) object(t reflect.Type) (codec, error) {
	o := &object{byName: map[string]int{}}
	d := codec{
		func(s *scanner, v reflect.Value) error { return o.read(s, v, false) },
		func(s *scanner, v reflect.Value) error { return o.merge(s, v) },
	}
	c.known[t] = &d
	if err := c.fields(o, t, nil); err != nil {
		return codec{}, err
	}
	if len(o.fields) > maxFields {
		return codec{}, fmt.Errorf("type %s has %d fields", t, len(o.fields))
	}
	return d, nil
}

func (c compiler) fields(o *object, t reflect.Type, index []int) error {
	for i := range t.NumField() {
		f := t.Field(i)
		at := append(append([]int(nil), index...), i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct &&
			!reflect.PointerTo(f.Type).Implements(reflect.TypeFor[json.Unmarshaler]()):
			if err := c.fields(o, f.Type, at); err != nil {
				return err
			}
			continue
		case name == "-" || !f.IsExported():
			continue
		case strings.Contains(options, "string") || name == "":
			return fmt.Errorf("%s.%s is declared in a way that was not seen so far", t, f.Name)
		}
		if _, twice := o.byName[name]; twice {
			return fmt.Errorf("%s has two fields %s", t, name)
		}
		d, err := c.value(f.Type)
		if err != nil {
			return fmt.Errorf("%s.%s: %w", t, f.Name, err)
		}
		o.byName[name] = len(o.fields)
		o.fields = append(o.fields, field{name, at, d})
	}
	return nil
}

// ownDecoder leaves a value to its type, which gets text that is surely JSON.
func ownDecoder(t reflect.Type) decoder {
	isTime := t == reflect.TypeFor[metav1.Time]()
	return func(s *scanner, v reflect.Value) error {
		if s.peek() == 'n' {
			if isTime && s.null() {
				return nil // kubectl writes it for what is not known yet
			}
			return ErrUnusual
		}
		raw, err := s.raw()
		if err != nil {
			return err
		}
		if v.Addr().Interface().(json.Unmarshaler).UnmarshalJSON(raw) != nil {
			return ErrUnusual
		}
		return nil
	}
}
