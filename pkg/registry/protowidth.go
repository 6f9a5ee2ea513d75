package registry

import (
	"bytes"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Bounds of what a protobuf body may become. Two bytes are an entry of a list,
// and an entry can be a struct of a kilobyte: only the types tell.
const (
	// maxDecoded bounds the memory that the fields take, without the growth of
	// lists, which takes some times as much.
	maxDecoded = 8 << 20
	// maxMessageDepth bounds the nesting of messages, which schemas alone have.
	maxMessageDepth = 256
)

// checkWidth refuses a body that would become too large an object. into is what
// it is decoded into, nil for a new object.
func (d *Decoder) checkWidth(body []byte, media MediaType, want schema.GroupVersionKind, into any) error {
	switch {
	case media == Protobuf:
		return d.checkProtoWidth(body, want, into)
	case want.Group == "apiextensions.k8s.io": // schemas are trees
		return checkWidth(body, media, maxNodes)
	}
	return checkWidth(body, media, maxObjects)
}

// checkProtoWidth refuses a protobuf body that would become too large an object,
// is nested too deeply or is malformed. into is what it is decoded into; nil for
// a new object of the kind that it names, or else of want.
func (d *Decoder) checkProtoWidth(body []byte, want schema.GroupVersionKind, into any) error {
	if !bytes.HasPrefix(body, protoPrefix) {
		return nil // the decoder says so
	}
	if err := checkDigits(body); err != nil {
		return err
	}
	env, err := openEnvelope(body)
	if err != nil {
		return errMalformed(err.Error())
	}
	gvk := want
	if gv, err := schema.ParseGroupVersion(env.apiVersion); err == nil && env.kind != "" {
		gvk = gv.WithKind(env.kind)
	}
	if into == nil {
		obj, err := d.scheme.New(gvk)
		if err != nil {
			return nil // nothing is decoded
		}
		into = obj
	}
	s := protoScan{shapes: &d.shapes, left: maxDecoded}
	return s.message(env.raw, d.shapes.of(reflect.TypeOf(into).Elem()), 0)
}

func errMalformed(what string) error {
	return apierrors.NewBadRequest("the body is not valid protobuf: " + what)
}

// shape is what the fields of a message cost when they are decoded.
type shape struct {
	once   sync.Once // guards the making of fields
	typ    reflect.Type
	fields map[protowire.Number]shapeField
}

// shapeField is one field: what each occurrence costs beside the bytes of it,
// and the message that it holds, which may be none.
type shapeField struct {
	cost    int
	entry   bool         // of a map: key is field 1, value field 2
	message reflect.Type // nil for what is no message
	listOf  int          // a type that wraps a list: what each entry costs
}

// shapes remembers the shapes of types. The zero value is ready.
type shapes struct{ known sync.Map }

func (s *shapes) of(t reflect.Type) *shape {
	v, ok := s.known.Load(t)
	if !ok {
		v, _ = s.known.LoadOrStore(t, &shape{typ: t})
	}
	sh := v.(*shape)
	sh.once.Do(func() { sh.fields = fieldsOf(sh.typ) })
	return sh
}

// fieldsOf reads the protobuf tags of a struct.
func fieldsOf(t reflect.Type) map[protowire.Number]shapeField {
	if t.Kind() != reflect.Struct {
		return nil
	}
	out := map[protowire.Number]shapeField{}
	for i := range t.NumField() {
		f := t.Field(i)
		parts := strings.Split(f.Tag.Get("protobuf"), ",")
		if len(parts) < 3 {
			continue
		}
		number, err := strconv.ParseInt(parts[1], 10, 32)
		if err != nil {
			continue
		}
		out[protowire.Number(number)] = fieldOf(f.Type)
	}
	return out
}

func fieldOf(t reflect.Type) (f shapeField) {
	switch t.Kind() {
	case reflect.Pointer:
		t = t.Elem()
		f.cost = int(t.Size())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return f
		}
		t = t.Elem()
		f.cost = int(t.Size())
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
			f.cost += int(t.Size())
		}
	case reflect.Map:
		f.cost, f.entry = 2*int(t.Key().Size()+t.Elem().Size()), true
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Struct:
		f.message = t
	case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8:
		f.listOf = int(t.Elem().Size())
	}
	return f
}

// protoScan adds up what a message costs.
type protoScan struct {
	shapes *shapes
	left   int
}

func (s *protoScan) spend(n int) error {
	if s.left -= n; s.left < 0 {
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("the body becomes an object of more than %d bytes: use fewer list entries", maxDecoded))
	}
	return nil
}

func (s *protoScan) message(msg []byte, sh *shape, depth int) error {
	if depth > maxMessageDepth {
		return apierrors.NewBadRequest(fmt.Sprintf("the body is nested more than %d levels deep", maxMessageDepth))
	}
	return s.each(msg, func(num protowire.Number, typ protowire.Type, body []byte) error {
		f, ok := sh.fields[num]
		if !ok {
			return nil // it is skipped
		}
		if typ != protowire.BytesType || f.message == nil && !f.entry && f.listOf == 0 {
			// A packed list of numbers has one in each byte at most.
			return s.spend(f.cost + max(len(body), 8))
		}
		if err := s.spend(f.cost); err != nil {
			return err
		}
		if f.entry {
			return s.entry(body, f, depth)
		}
		return s.nested(body, f, depth)
	})
}

// entry is one of a map.
func (s *protoScan) entry(msg []byte, f shapeField, depth int) error {
	return s.each(msg, func(num protowire.Number, typ protowire.Type, body []byte) error {
		if num == 2 && typ == protowire.BytesType {
			return s.nested(body, f, depth)
		}
		return s.spend(len(body))
	})
}

// nested is the content of a field.
func (s *protoScan) nested(body []byte, f shapeField, depth int) error {
	switch {
	case f.message != nil:
		return s.message(body, s.shapes.of(f.message), depth+1)
	case f.listOf > 0:
		return s.each(body, func(_ protowire.Number, _ protowire.Type, body []byte) error { return s.spend(f.listOf + len(body)) })
	}
	return s.spend(len(body))
}

// each walks the fields of a message. It refuses what is malformed, and groups,
// which no type has: a decoder that is less strict would go on behind them.
func (s *protoScan) each(msg []byte, f func(num protowire.Number, typ protowire.Type, body []byte) error) error {
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 || typ == protowire.StartGroupType || typ == protowire.EndGroupType {
			return errMalformed("a field has no valid tag")
		}
		msg = msg[n:]
		var body []byte
		size := 0
		if typ == protowire.BytesType {
			body, size = protowire.ConsumeBytes(msg)
		} else {
			size = protowire.ConsumeFieldValue(num, typ, msg)
		}
		if size < 0 {
			return errMalformed("a field is cut off")
		}
		if err := f(num, typ, body); err != nil {
			return err
		}
		msg = msg[size:]
	}
	return nil
}
