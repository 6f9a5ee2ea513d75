package apiserver

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"coracle/pkg/registry"
)

// A binding is the one write that every pod gets at the same rate at which the
// scheduler decides, and it changes three fields: it is written into the encoded
// pod. The result is, byte for byte, what encoding the changed pod would give.

// Field numbers of Pod, PodSpec, PodStatus, PodCondition and ObjectMeta
// (k8s.io/api/core/v1/generated.proto).
const (
	podMeta   protowire.Number = 1
	podSpec   protowire.Number = 2
	podStatus protowire.Number = 3

	specNodeName protowire.Number = 10
	specGates    protowire.Number = 38

	statusConditions protowire.Number = 2
	statusNominated  protowire.Number = 11

	conditionType protowire.Number = 1

	metaDeletion protowire.Number = 9
	metaLabels   protowire.Number = 11
)

// bindSplice is assign as a change of the encoded pod; nil for a binding that
// brings what the decoded pod has to be checked with.
func bindSplice(b *corev1.Binding, now metav1.Time) registry.Splice {
	if len(b.Annotations) > 0 {
		return nil
	}
	for key, value := range b.Labels { // admission brings these two
		known := key == corev1.LabelTopologyZone || key == corev1.LabelTopologyRegion
		if !known || len(validation.IsValidLabelValue(value)) > 0 {
			return nil
		}
	}
	scheduled := scheduledCondition(now)
	condition, err := scheduled.Marshal()
	if err != nil {
		return nil
	}
	return func(raw []byte) ([]byte, bool) {
		out, want := make([]byte, 0, len(raw)+len(b.Target.Name)+len(condition)+256), podMeta
		ok := eachField(raw, func(f wireField) bool {
			if f.num != want {
				return false
			}
			want++
			var room [4 << 10]byte
			body, ok := f.body, true
			switch f.num {
			case podMeta:
				body, ok = withLabels(room[:0], f.body, b.Labels)
			case podSpec:
				body, ok = withNode(room[:0], f.body, b.Target.Name)
			case podStatus:
				body, ok = withCondition(room[:0], f.body, condition)
			}
			out = protowire.AppendBytes(protowire.AppendTag(out, f.num, protowire.BytesType), body)
			return ok
		})
		return out, ok && want == podStatus+1
	}
}

// wireField is a field of an encoded message.
type wireField struct {
	num   protowire.Number
	whole []byte
	body  []byte // what is in it, when it is of a length of its own
}

// eachField goes over the fields of a message. It is false as soon as f is, and
// for what is no message.
func eachField(msg []byte, f func(wireField) bool) bool {
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return false
		}
		size := protowire.ConsumeFieldValue(num, typ, msg[n:])
		if size < 0 {
			return false
		}
		field := wireField{num: num, whole: msg[:n+size]}
		if typ == protowire.BytesType {
			field.body, _ = protowire.ConsumeBytes(msg[n:])
		}
		if !f(field) {
			return false
		}
		msg = msg[n+size:]
	}
	return true
}

func appendText(dst []byte, num protowire.Number, text string) []byte {
	return protowire.AppendString(protowire.AppendTag(dst, num, protowire.BytesType), text)
}

// withNode appends a PodSpec with its node; false when the pod may not get one.
func withNode(dst, spec []byte, node string) ([]byte, bool) {
	written := false
	ok := eachField(spec, func(f wireField) bool {
		if f.num == specNodeName {
			if written || len(f.body) > 0 {
				return false
			}
			dst, written = appendText(dst, specNodeName, node), true
			return true
		}
		if f.num > specNodeName && !written {
			dst, written = appendText(dst, specNodeName, node), true
		}
		dst = append(dst, f.whole...)
		return f.num != specGates
	})
	if !written {
		dst = appendText(dst, specNodeName, node)
	}
	return dst, ok
}

// withCondition appends a PodStatus with the condition PodScheduled and without
// a nomination.
func withCondition(dst, status, condition []byte) ([]byte, bool) {
	written := false
	write := func() {
		dst = protowire.AppendBytes(protowire.AppendTag(dst, statusConditions, protowire.BytesType), condition)
		written = true
	}
	ok := eachField(status, func(f wireField) bool {
		if f.num == statusConditions && !written && isScheduled(f.body) {
			write()
			return true
		}
		if f.num > statusConditions && !written {
			write()
		}
		if f.num == statusNominated {
			dst = appendText(dst, statusNominated, "")
			return true
		}
		dst = append(dst, f.whole...)
		return true
	})
	if !written {
		write()
	}
	return dst, ok
}

// isScheduled says that an encoded condition is PodScheduled.
func isScheduled(condition []byte) bool {
	is := false
	eachField(condition, func(f wireField) bool {
		if f.num == conditionType {
			is = string(f.body) == string(corev1.PodScheduled)
		}
		return true
	})
	return is
}

// withLabels appends an ObjectMeta with more labels; false when the object is
// being deleted.
func withLabels(dst, meta []byte, more map[string]string) ([]byte, bool) {
	left := make([]string, 0, len(more)) // keys to be written, in order
	for key := range more {
		left = append(left, key)
	}
	slices.Sort(left)
	write := func() {
		var entry [256]byte
		text := appendText(appendText(entry[:0], 1, left[0]), 2, more[left[0]])
		dst = protowire.AppendBytes(protowire.AppendTag(dst, metaLabels, protowire.BytesType), text)
		left = left[1:]
	}
	last := ""
	ok := eachField(meta, func(f wireField) bool {
		if f.num != metaLabels || len(more) == 0 {
			for f.num > metaLabels && len(left) > 0 {
				write()
			}
			dst = append(dst, f.whole...)
			return f.num != metaDeletion
		}
		key := labelKey(f.body)
		if key <= last {
			return false // not in the order of Kubernetes' own encoding
		}
		for last = key; len(left) > 0 && left[0] < key; {
			write()
		}
		if len(left) > 0 && left[0] == key {
			write()
			return true
		}
		dst = append(dst, f.whole...)
		return true
	})
	for len(left) > 0 {
		write()
	}
	return dst, ok
}

// labelKey is the key of an encoded label.
func labelKey(entry []byte) (key string) {
	eachField(entry, func(f wireField) bool {
		if f.num == 1 {
			key = string(f.body)
		}
		return true
	})
	return key
}
