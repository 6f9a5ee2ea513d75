package registry

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// envelopeTail is what the library writes after the object's bytes: an empty
// contentEncoding and an empty contentType.
const envelopeTail = "\x1a\x00\x22\x00"

// AppendSealHead begins an envelope of a kind whose object has size bytes. The
// object's bytes and AppendSealTail follow.
func AppendSealHead(dst []byte, gvk schema.GroupVersionKind, size int) []byte {
	return appendSealHead(dst, gvk.GroupVersion().String(), gvk.Kind, size)
}

func appendSealHead(dst []byte, apiVersion, kind string, size int) []byte {
	dst = append(dst, protoPrefix...)
	dst = protowire.AppendTag(dst, unknownTypeMeta, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(2+protowire.SizeBytes(len(apiVersion))+protowire.SizeBytes(len(kind))))
	dst = protowire.AppendTag(dst, typeMetaAPIVersion, protowire.BytesType)
	dst = protowire.AppendString(dst, apiVersion)
	dst = protowire.AppendTag(dst, typeMetaKind, protowire.BytesType)
	dst = protowire.AppendString(dst, kind)
	dst = protowire.AppendTag(dst, unknownRaw, protowire.BytesType)
	return protowire.AppendVarint(dst, uint64(size))
}

// AppendSealTail ends what AppendSealHead began.
func AppendSealTail(dst []byte) []byte { return append(dst, envelopeTail...) }

// Raw returns the object's own bytes within a served value, as a protobuf list
// holds them. They alias the value.
func Raw(value []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(value, protoPrefix)
	if !ok {
		return nil, fmt.Errorf("the value does not begin with the protobuf prefix k8s\\0: %w", errWire)
	}
	return bytesField(rest, unknownRaw)
}

// RawMetadata returns the metadata field of a served value, which by itself is
// a PartialObjectMetadata in protobuf. It aliases the value.
func RawMetadata(value []byte) ([]byte, error) {
	if !bytes.HasPrefix(value, protoPrefix) {
		meta, err := jsonMetadata(value)
		if err != nil {
			return nil, err
		}
		return (&metav1.PartialObjectMetadata{ObjectMeta: *meta}).Marshal()
	}
	raw, err := Raw(value)
	if err != nil {
		return nil, err
	}
	num, typ, n := protowire.ConsumeTag(raw)
	if n < 0 || num != objectMeta || typ != protowire.BytesType {
		return nil, fmt.Errorf("the object does not begin with its metadata: %w", errWire)
	}
	_, size := protowire.ConsumeBytes(raw[n:])
	if size < 0 {
		return nil, fmt.Errorf("the object's metadata is cut off: %w", errWire)
	}
	return raw[:n+size], nil
}

// bytesField is the content of the first length-delimited field with the number; nil
// when there is none.
func bytesField(msg []byte, want protowire.Number) ([]byte, error) {
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return nil, fmt.Errorf("a field tag is cut off: %w", errWire)
		}
		if num == want && typ == protowire.BytesType {
			body, size := protowire.ConsumeBytes(msg[n:])
			if size < 0 {
				return nil, fmt.Errorf("field %d is cut off: %w", num, errWire)
			}
			return body, nil
		}
		size := protowire.ConsumeFieldValue(num, typ, msg[n:])
		if size < 0 {
			return nil, fmt.Errorf("field %d is cut off: %w", num, errWire)
		}
		msg = msg[n+size:]
	}
	return nil, nil
}
