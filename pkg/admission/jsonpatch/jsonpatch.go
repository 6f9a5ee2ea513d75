// Package jsonpatch applies JSON patches (RFC 6902) of clients, webhooks and
// policies within bounds: however a patch is made, what it costs follows from
// its length and the document's.
package jsonpatch

import (
	"errors"
	"fmt"

	patch "gopkg.in/evanphx/json-patch.v4"
)

// MaxOperations bounds the operations of one patch (upstream's limit,
// CVE-2019-1002100).
const MaxOperations = 10000

// Bounds of a patch's copy operations: by how much all of them may grow the
// document (the store takes no larger object anyway), and the sum of the
// documents they result in, which is what they cost.
const (
	maxCopyGrowth = 512 << 10
	maxCopyWork   = 4 << 20
)

// ErrSyntax marks a patch that is none, ErrTooLarge one that is beyond the
// bounds. All other errors say that the patch does not fit the document.
var (
	ErrSyntax   = errors.New("the JSON patch cannot be decoded")
	ErrTooLarge = errors.New("the JSON patch is too large")
)

// Patch is a decoded patch.
type Patch struct{ ops patch.Patch }

// Decode reads a patch. Errors: ErrSyntax, ErrTooLarge.
func Decode(data []byte) (Patch, error) {
	ops, err := patch.DecodePatch(data)
	if err != nil {
		return Patch{}, fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	if len(ops) > MaxOperations {
		return Patch{}, fmt.Errorf("%w: the allowed maximum operations in a JSON patch is %d, got %d", ErrTooLarge, MaxOperations, len(ops))
	}
	return Patch{ops}, nil
}

// Empty says that the patch changes nothing.
func (p Patch) Empty() bool { return len(p.ops) == 0 }

// Apply patches a document. A copy can double the document, so each is applied
// by itself and what all of them make is bounded; the others only add what the
// patch holds.
func (p Patch) Apply(doc []byte) ([]byte, error) {
	grown, work := 0, 0
	for ops := p.ops; len(ops) > 0; {
		n := 1
		copies := ops[0].Kind() == "copy"
		for !copies && n < len(ops) && ops[n].Kind() != "copy" {
			n++
		}
		out, err := ops[:n].Apply(doc)
		if err != nil {
			return nil, err
		}
		if copies {
			grown, work = grown+len(out)-len(doc), work+len(out)
			if grown > maxCopyGrowth || work > maxCopyWork {
				return nil, fmt.Errorf("%w: its copies make too large a document: write the values themselves", ErrTooLarge)
			}
		}
		doc, ops = out, ops[n:]
	}
	return doc, nil
}
