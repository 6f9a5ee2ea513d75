package wirejson

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// ErrUnusual says that bytes are not as Kubernetes writes them, or not valid:
// the library has to decode them.
var ErrUnusual = errors.New("the protobuf is not of the usual form")

// Plan knows how the messages of one Go type are written as JSON.
type Plan struct {
	fields []field
	// byNumber maps a field number to an index in fields plus one.
	byNumber []int16
	// always has a bit for each field of which something is written when the
	// message does not have it, and for each that is inline.
	always   uint64
	prepared bool // always and the fields' absent are set
}

// shape says how often a field occurs and how absence shows.
type shape int

const (
	plain    shape = iota // absent means the zero value
	optional              // a pointer: absent means null
	repeated              // a slice
	mapping               // a map with string keys
	inline                // a struct whose fields stand among those around it
)

// field is one JSON field, or several that are inline.
type field struct {
	key       string // `"name":`
	number    protowire.Number
	shape     shape
	value     value
	omitEmpty bool
	omitZero  bool
	// absent is what stands for the field when the message does not have it.
	absent []byte
}

// value is the encoding of one value of a field.
type value struct {
	wire protowire.Type
	// append writes a varint or the content of a length-delimited field.
	append func(dst []byte, n uint64, body []byte) ([]byte, error)
	// zero says that the value is that of an absent field.
	zero func(n uint64, body []byte) bool
	// none is what is written for an absent plain field; nil for messages.
	none string
	// message is the plan of a nested struct, nil for all else.
	message *Plan
	// structural says that the Go type is a struct, which is never empty.
	structural bool
	// slice says that the Go type is []byte or a list with a message of its own:
	// in an entry of a map, absent means empty.
	slice bool
}

// Compile makes the plan of a struct type. Errors name what the type has that
// no Kubernetes type had so far.
func Compile(t reflect.Type) (*Plan, error) {
	c := compiler{plans: map[reflect.Type]*Plan{}}
	p, err := c.plan(t)
	if err != nil {
		return nil, err
	}
	for _, p := range c.plans {
		if err := p.prepare(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// prepare notes how absent fields are written, first those of the structs that
// the type contains.
func (p *Plan) prepare() error {
	if p.prepared {
		return nil
	}
	p.prepared = true
	for i := range p.fields {
		f := &p.fields[i]
		if within := f.value.message; within != nil && (f.shape == plain || f.shape == inline) {
			if err := within.prepare(); err != nil {
				return err
			}
		}
		if f.shape != inline {
			text, _, err := f.appendAbsent(nil, false)
			if err != nil {
				return err
			}
			f.absent = text
		}
		if f.shape == inline || len(f.absent) > 0 {
			p.always |= 1 << i
		}
	}
	return nil
}

type compiler struct {
	plans map[reflect.Type]*Plan
}

func (c compiler) plan(t reflect.Type) (*Plan, error) {
	if p, ok := c.plans[t]; ok {
		return p, nil
	}
	p := &Plan{}
	c.plans[t] = p
	for f := range fields(t) {
		made, skip, err := c.field(f)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", t, f.Name, err)
		}
		if skip {
			continue
		}
		p.fields = append(p.fields, made)
		for len(p.byNumber) <= int(made.number) {
			p.byNumber = append(p.byNumber, 0)
		}
		if p.byNumber[made.number] != 0 {
			return nil, fmt.Errorf("%s.%s: two fields have the number %d", t, f.Name, made.number)
		}
		p.byNumber[made.number] = int16(len(p.fields))
	}
	if len(p.fields) > maxFields {
		return nil, fmt.Errorf("%s has more than %d fields", t, maxFields)
	}
	return p, nil
}

func fields(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}

const (
	maxNumber = 1000
	maxFields = 64 // which of them are there is one word
)

func (c compiler) field(f reflect.StructField) (made field, skip bool, err error) {
	name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
	proto := f.Tag.Get("protobuf")
	switch {
	case f.Type == reflect.TypeFor[metav1.TypeMeta]():
		return made, true, nil // the envelope has it
	case name == "-" || !f.IsExported():
		return made, true, nil
	case proto == "" || proto == "-":
		return made, false, errors.New("a field of the JSON has no protobuf tag")
	}
	number, err := strconv.Atoi(strings.Split(proto, ",")[1])
	if err != nil || number < 1 || number > maxNumber {
		return made, false, fmt.Errorf("protobuf tag %q", proto)
	}
	made.number = protowire.Number(number)
	for option := range strings.SplitSeq(options, ",") {
		switch option {
		case "omitempty":
			made.omitEmpty = true
		case "omitzero":
			made.omitZero = true
		case "", "inline":
		default:
			return made, false, fmt.Errorf("json option %q", option)
		}
	}
	if name == "" && f.Anonymous {
		made.shape = inline
		if f.Type.Kind() != reflect.Struct || custom(f.Type) {
			return made, false, fmt.Errorf("type %s is inline", f.Type)
		}
		made.value, err = c.value(f.Type)
		return made, false, err
	}
	if name == "" {
		name = f.Name
	}
	made.key = strconv.Quote(name) + ":"
	err = c.shape(&made, f.Type)
	return made, false, err
}

func (c compiler) shape(made *field, t reflect.Type) (err error) {
	switch {
	case t.Kind() == reflect.Pointer:
		made.shape, t = optional, t.Elem()
	case t.Kind() == reflect.Map:
		made.shape = mapping
		if t.Key().Kind() != reflect.String || custom(t.Key()) || custom(t) {
			return fmt.Errorf("type %s", t)
		}
		t = t.Elem()
	case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8 && !custom(t):
		made.shape, t = repeated, t.Elem()
	case t.Kind() == reflect.Slice:
		if custom(t) {
			return fmt.Errorf("type %s", t)
		}
		made.shape = optional // bytes: absent is null, and not the same as empty
	}
	if made.omitZero && made.shape != plain && made.shape != optional {
		return errors.New("omitzero of a list")
	}
	made.value, err = c.value(t)
	if made.shape == optional && t.Kind() == reflect.Slice && made.omitEmpty {
		made.shape = plain // an empty one is left out, too
	}
	if made.shape == plain && made.value.slice && custom(t) {
		return fmt.Errorf("type %s is neither a pointer nor in a map", t)
	}
	if made.omitZero && made.shape == plain && made.value.structural && made.value.message == nil && t != reflect.TypeFor[metav1.Time]() {
		return fmt.Errorf("omitzero of type %s", t)
	}
	return err
}

// unmarshaler is what generated types have.
type unmarshaler interface{ Unmarshal([]byte) error }

// custom says that a type has an encoding of its own, in JSON or in protobuf.
func custom(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[json.Marshaler]()) ||
		t.Kind() != reflect.Struct && p.Implements(reflect.TypeFor[unmarshaler]())
}

// value says how one value of a type is encoded.
func (c compiler) value(t reflect.Type) (value, error) {
	switch t {
	case reflect.TypeFor[metav1.Time]():
		return value{wire: protowire.BytesType, append: appendTime, zero: emptyBody, none: "null", structural: true}, nil
	case reflect.TypeFor[metav1.FieldsV1]():
		return value{wire: protowire.BytesType, append: appendFieldsV1, zero: never, none: "null", structural: true}, nil
	case reflect.TypeFor[resource.Quantity]():
		return value{wire: protowire.BytesType, append: appendQuantity, zero: never, none: `"0"`, structural: true}, nil
	case reflect.TypeFor[intstr.IntOrString]():
		return value{wire: protowire.BytesType, append: appendIntOrString, zero: never, none: "0", structural: true}, nil
	}
	if custom(t) {
		return library(t)
	}
	switch t.Kind() {
	case reflect.String:
		return value{wire: protowire.BytesType, append: appendStringField, zero: emptyBody, none: `""`}, nil
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return value{wire: protowire.BytesType, append: appendBase64, zero: emptyBody, none: "null", slice: true}, nil
		}
	case reflect.Bool:
		return value{wire: protowire.VarintType, append: appendBool, zero: zeroNumber, none: "false"}, nil
	case reflect.Int32:
		return value{wire: protowire.VarintType, append: appendInt32, zero: zeroNumber, none: "0"}, nil
	case reflect.Int64, reflect.Int:
		return value{wire: protowire.VarintType, append: appendInt64, zero: zeroNumber, none: "0"}, nil
	case reflect.Struct:
		p, err := c.plan(t)
		return value{wire: protowire.BytesType, structural: true, message: p, zero: p.zero, append: func(dst []byte, _ uint64, body []byte) ([]byte, error) {
			return p.object(dst, body)
		}}, err
	}
	return value{}, fmt.Errorf("type %s", t)
}

// library leaves the values of a type to its own Unmarshal and MarshalJSON.
func library(t reflect.Type) (value, error) {
	if _, ok := reflect.New(t).Interface().(unmarshaler); !ok {
		return value{}, fmt.Errorf("type %s has no protobuf encoding", t)
	}
	none, err := json.Marshal(reflect.New(t).Interface())
	if err != nil {
		return value{}, fmt.Errorf("type %s: %w", t, err)
	}
	decode := func(body []byte) (reflect.Value, error) {
		v := reflect.New(t)
		if t.Kind() == reflect.Slice {
			v.Elem().Set(reflect.MakeSlice(t, 0, 0))
		}
		return v, v.Interface().(unmarshaler).Unmarshal(body)
	}
	return value{
		wire: protowire.BytesType, none: string(none), structural: t.Kind() == reflect.Struct, slice: t.Kind() == reflect.Slice,
		append: func(dst []byte, _ uint64, body []byte) ([]byte, error) {
			v, err := decode(body)
			if err != nil {
				return dst, err
			}
			doc, err := json.Marshal(v.Interface())
			return append(dst, doc...), err
		},
		zero: func(_ uint64, body []byte) bool {
			v, err := decode(body)
			return err == nil && isEmpty(v.Elem())
		},
	}, nil
}

// isEmpty is what omitempty means.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.String, reflect.Array:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}
