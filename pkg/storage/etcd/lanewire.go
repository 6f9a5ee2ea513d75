package etcd

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"coracle/pkg/storage"
)

// Field numbers of etcdserverpb, and the target of a comparison.
const (
	rangeKey       = 1
	rangeCountOnly = 9

	putKey, putValue, putLease = 1, 2, 3
	deleteKey                  = 1

	opRange, opPut, opDelete = 1, 2, 3

	compareTarget, compareKey, compareMod = 2, 3, 6
	targetMod                             = 2

	txnCompare, txnSuccess, txnFailure = 1, 2, 3
	txnSucceeded                       = 2 // of the response

	responseHeader = 1
	headerRevision = 3
)

// change is what a transaction does to its key.
type change struct {
	delete bool
	value  []byte
	lease  int64
}

// transactionOf is the request that makes the change if the key is at revision
// expect, and reads the key otherwise. Its first five bytes are left free.
func transactionOf(key string, expect storage.Revision, ch change) []byte {
	keySize := protowire.SizeBytes(len(key)) + 1
	op, opSize := protowire.Number(opPut), keySize
	if ch.delete {
		op = opDelete
	} else {
		if len(ch.value) > 0 {
			opSize += 1 + protowire.SizeBytes(len(ch.value))
		}
		if ch.lease != 0 {
			opSize += 1 + protowire.SizeVarint(uint64(ch.lease))
		}
	}
	compare := 2 + keySize + 1 + protowire.SizeVarint(uint64(expect))
	success := 1 + protowire.SizeBytes(opSize)
	failure := 1 + protowire.SizeBytes(keySize)
	b := make([]byte, 5, 5+3+protowire.SizeBytes(compare)+protowire.SizeBytes(success)+protowire.SizeBytes(failure))

	b = open(b, txnCompare, compare)
	b = protowire.AppendTag(b, compareTarget, protowire.VarintType)
	b = protowire.AppendVarint(b, targetMod)
	b = text(b, compareKey, key)
	b = protowire.AppendTag(b, compareMod, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(expect))

	b = open(b, txnSuccess, success)
	b = open(b, op, opSize)
	b = text(b, putKey, key) // of a deletion as well
	if !ch.delete && len(ch.value) > 0 {
		b = protowire.AppendTag(b, putValue, protowire.BytesType)
		b = protowire.AppendBytes(b, ch.value)
	}
	if !ch.delete && ch.lease != 0 {
		b = protowire.AppendTag(b, putLease, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(ch.lease))
	}
	b = open(b, txnFailure, failure)
	b = open(b, opRange, keySize)
	return text(b, rangeKey, key)
}

// open begins a message of so many bytes.
func open(b []byte, num protowire.Number, size int) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(size))
}

func text(b []byte, num protowire.Number, s string) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendString(b, s)
}

// revisionIn returns the revision in the header of a response, and tells number
// of the response's own fields that are numbers.
func revisionIn(response []byte, number func(protowire.Number, uint64)) (storage.Revision, error) {
	rev := storage.Revision(0)
	err := numbers(response, number, func(num protowire.Number, body []byte) error {
		if num != responseHeader {
			return nil
		}
		return numbers(body, func(num protowire.Number, v uint64) {
			if num == headerRevision {
				rev = storage.Revision(v)
			}
		}, func(protowire.Number, []byte) error { return nil })
	})
	if err == nil && rev <= 0 {
		err = status.Error(codes.Internal, "etcd's answer has no revision")
	}
	return rev, err
}

// numbers walks the fields of a message.
func numbers(msg []byte, number func(protowire.Number, uint64), message func(protowire.Number, []byte) error) error {
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return status.Error(codes.Internal, "etcd's answer is cut off")
		}
		size := protowire.ConsumeFieldValue(num, typ, msg[n:])
		if size < 0 {
			return status.Error(codes.Internal, "etcd's answer is cut off")
		}
		switch typ {
		case protowire.VarintType:
			v, _ := protowire.ConsumeVarint(msg[n:])
			number(num, v)
		case protowire.BytesType:
			body, _ := protowire.ConsumeBytes(msg[n:])
			if err := message(num, body); err != nil {
				return err
			}
		}
		msg = msg[n+size:]
	}
	return nil
}
