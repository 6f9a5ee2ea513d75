package registry

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"coracle/pkg/storage"
)

// protoPrefix starts every value that is a runtime.Unknown in protobuf, in
// the store as well as on the wire (apimachinery, serializer/protobuf).
var protoPrefix = []byte{'k', '8', 's', 0}

// Field numbers of runtime.Unknown, runtime.TypeMeta and ObjectMeta that the
// splicing below reads.
const (
	unknownTypeMeta = 1
	unknownRaw      = 2

	typeMetaAPIVersion = 1
	typeMetaKind       = 2

	objectMeta = 1 // every API object has its metadata as field 1

	metaName            = 1
	metaNamespace       = 3
	metaUID             = 5
	metaResourceVersion = 6
	metaDeletion        = 9
	metaLabels          = 11
	metaFinalizers      = 14
)

var errWire = errors.New("malformed protobuf")

// envelope is an opened runtime.Unknown. The slices alias the value.
type envelope struct {
	apiVersion, kind string
	raw              []byte
}

// openEnvelope splits a protobuf value into its type and the object's bytes.
func openEnvelope(value []byte) (envelope, error) {
	var env envelope
	rest, ok := bytes.CutPrefix(value, protoPrefix)
	if !ok {
		return env, fmt.Errorf("the value does not begin with the protobuf prefix k8s\\0: %w", errWire)
	}
	err := eachField(rest, func(num protowire.Number, _, _ int, body []byte) error {
		switch num {
		case unknownTypeMeta:
			return eachField(body, func(num protowire.Number, _, _ int, body []byte) error {
				switch num {
				case typeMetaAPIVersion:
					env.apiVersion = string(body)
				case typeMetaKind:
					env.kind = string(body)
				}
				return nil
			})
		case unknownRaw:
			env.raw = body
		}
		return nil
	})
	return env, err
}

// sealEnvelope is the inverse of openEnvelope.
func sealEnvelope(apiVersion, kind string, raw []byte) []byte {
	out := make([]byte, 0, sealSize(apiVersion, kind, len(raw)))
	out = appendSealHead(out, apiVersion, kind, len(raw))
	return append(append(out, raw...), envelopeTail...)
}

// rawMeta is what one pass over an object's metadata finds.
type rawMeta struct {
	name, namespace, uid string
	labels               map[string]string
	deleting             bool

	metaStart, metaEnd int // the ObjectMeta's bytes within the object
	rvStart, rvEnd     int // the resourceVersion field, tag included, within the ObjectMeta
	rest               int // where the object's other fields begin
}

// findMeta finds the metadata of an encoded object, its first field.
func findMeta(raw []byte) (m rawMeta, meta []byte, err error) {
	num, typ, n := protowire.ConsumeTag(raw)
	if n < 0 || num != objectMeta || typ != protowire.BytesType {
		return m, nil, fmt.Errorf("the object does not begin with its metadata: %w", errWire)
	}
	meta, size := protowire.ConsumeBytes(raw[n:])
	if size < 0 {
		return m, nil, fmt.Errorf("the object's metadata is cut off: %w", errWire)
	}
	m.rest = n + size
	m.metaEnd = m.rest
	m.metaStart = m.rest - len(meta)
	return m, meta, nil
}

// scanMeta reads the metadata of an encoded object without decoding it.
func scanMeta(raw []byte) (rawMeta, error) {
	m, meta, err := findMeta(raw)
	if err != nil {
		return m, err
	}
	err = eachField(meta, func(num protowire.Number, start, end int, body []byte) error {
		switch num {
		case metaName:
			m.name = string(body)
		case metaNamespace:
			m.namespace = string(body)
		case metaUID:
			m.uid = string(body)
		case metaDeletion:
			m.deleting = true
		case metaLabels:
			key, value, err := mapEntry(body)
			if err != nil {
				return err
			}
			if m.labels == nil {
				m.labels = map[string]string{}
			}
			m.labels[key] = value
		}
		m.place(num, start, end)
		return nil
	})
	if m.rvEnd == 0 {
		m.rvEnd = m.rvStart
	}
	return m, err
}

// hasMetaField says that an encoded object's metadata has a field.
func hasMetaField(raw []byte, wanted protowire.Number) (has bool, err error) {
	_, meta, err := findMeta(raw)
	if err != nil {
		return false, err
	}
	err = eachField(meta, func(num protowire.Number, _, _ int, _ []byte) error {
		has = has || num == wanted
		return nil
	})
	return has, err
}

// placeOf is scanMeta for the places alone.
func placeOf(raw []byte) (rawMeta, error) {
	m, meta, err := findMeta(raw)
	if err != nil {
		return m, err
	}
	err = eachField(meta, func(num protowire.Number, start, end int, _ []byte) error {
		m.place(num, start, end)
		return nil
	})
	if m.rvEnd == 0 {
		m.rvEnd = m.rvStart
	}
	return m, err
}

// place takes note of where the resourceVersion is, or belongs when it is absent.
func (m *rawMeta) place(num protowire.Number, start, end int) {
	switch {
	case num == metaResourceVersion:
		m.rvStart, m.rvEnd = start, end
	case m.rvEnd == 0 && num < metaResourceVersion:
		m.rvStart = end
	}
}

// sameButVersion says that two values in their envelopes are the same but for the
// resourceVersion.
func sameButVersion(a, b []byte) (bool, error) {
	var parts [2][3][]byte
	var kinds [2]envelope
	for i, value := range [][]byte{a, b} {
		env, err := openEnvelope(value)
		if err != nil {
			return false, err
		}
		m, err := placeOf(env.raw)
		if err != nil {
			return false, err
		}
		meta := env.raw[m.metaStart:m.metaEnd]
		kinds[i], parts[i] = env, [3][]byte{meta[:m.rvStart], meta[m.rvEnd:], env.raw[m.rest:]}
	}
	same := kinds[0].apiVersion == kinds[1].apiVersion && kinds[0].kind == kinds[1].kind
	for i := range parts[0] {
		same = same && bytes.Equal(parts[0][i], parts[1][i])
	}
	return same, nil
}

// sealRevision returns an opened value, in its envelope again, with
// metadata.resourceVersion set to rev, whatever it was before.
func sealRevision(env envelope, m rawMeta, rev storage.Revision) []byte {
	var room [20]byte
	return sealVersion(env, m, strconv.AppendInt(room[:0], int64(rev), 10))
}

// sealVersion is sealRevision with the resourceVersion as text, which is empty in
// the store.
func sealVersion(env envelope, m rawMeta, rv []byte) []byte {
	meta := env.raw[m.metaStart:m.metaEnd]
	size := len(meta) - (m.rvEnd - m.rvStart) + 2 + len(rv)
	whole := 1 + protowire.SizeVarint(uint64(size)) + size + len(env.raw) - m.rest

	out := make([]byte, 0, sealSize(env.apiVersion, env.kind, whole))
	out = appendSealHead(out, env.apiVersion, env.kind, whole)
	out = protowire.AppendTag(out, objectMeta, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(size))
	out = append(out, meta[:m.rvStart]...)
	out = protowire.AppendTag(out, metaResourceVersion, protowire.BytesType)
	out = protowire.AppendBytes(out, rv)
	out = append(out, meta[m.rvEnd:]...)
	out = append(out, env.raw[m.rest:]...)
	return append(out, envelopeTail...)
}

// sealSize is the size of an envelope around so many bytes. Objects are kept as
// they are sealed: a byte too much would be kept for each of them.
func sealSize(apiVersion, kind string, size int) int {
	types := 2 + protowire.SizeBytes(len(apiVersion)) + protowire.SizeBytes(len(kind))
	return len(protoPrefix) + 2 + protowire.SizeBytes(types) + protowire.SizeVarint(uint64(size)) + size + len(envelopeTail)
}

// eachField walks the fields of a message. body is the content of a
// length-delimited field and nil for the others; start and end enclose the
// whole field.
func eachField(msg []byte, f func(num protowire.Number, start, end int, body []byte) error) error {
	for pos := 0; pos < len(msg); {
		num, typ, n := protowire.ConsumeTag(msg[pos:])
		if n < 0 {
			return fmt.Errorf("a field tag is cut off: %w", errWire)
		}
		size := protowire.ConsumeFieldValue(num, typ, msg[pos+n:])
		if size < 0 {
			return fmt.Errorf("field %d is cut off: %w", num, errWire)
		}
		var body []byte
		if typ == protowire.BytesType {
			body, _ = protowire.ConsumeBytes(msg[pos+n:])
		}
		if err := f(num, pos, pos+n+size, body); err != nil {
			return err
		}
		pos += n + size
	}
	return nil
}

func mapEntry(msg []byte) (key, value string, err error) {
	err = eachField(msg, func(num protowire.Number, _, _ int, body []byte) error {
		switch num {
		case 1:
			key = string(body)
		case 2:
			value = string(body)
		}
		return nil
	})
	return key, value, err
}
