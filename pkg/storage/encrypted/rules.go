package encrypted

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"coracle/pkg/storage"
)

// Key is one key of a cipher.
type Key struct {
	Cipher Cipher
	Name   string // appears in stored values, in plain
	Secret []byte
}

// Rule says how the values below some prefixes are kept.
type Rule struct {
	// Prefixes of storage keys; each ends with a slash.
	Prefixes []string
	// Keys read, and the first of all writes unless PlainFirst.
	Keys []Key
	// Plain accepts values that are not encrypted; PlainFirst also writes so.
	Plain, PlainFirst bool
}

// Rules are Rule by Rule; the first one with a fitting prefix counts. What none
// is about is stored and read as it is.
type Rules struct {
	rules []*rule
}

type rule struct {
	Rule
	boxes  []namedBox
	writer *namedBox // nil writes plain values
}

type namedBox struct {
	head []byte // what its values begin with
	box
}

// maxKeyName bounds names of keys, which are part of every value.
const maxKeyName = 128

// NewRules compiles rules. Errors name the key that is wrong, never its secret.
func NewRules(rules []Rule) (*Rules, error) {
	out := &Rules{}
	for _, r := range rules {
		compiled := &rule{Rule: r}
		for _, k := range r.Keys {
			if k.Name == "" || len(k.Name) > maxKeyName || strings.Contains(k.Name, ":") {
				return nil, fmt.Errorf("key name %q: it must have 1 to %d characters and no colon", k.Name, maxKeyName)
			}
			b, err := newBox(k.Cipher, k.Secret)
			if err != nil {
				return nil, fmt.Errorf("key %q: %w", k.Name, err)
			}
			head := []byte(storage.EncryptedPrefix + string(k.Cipher) + ":v1:" + k.Name + ":")
			for _, other := range compiled.boxes {
				if bytes.Equal(other.head, head) {
					return nil, fmt.Errorf("key %q of %s is there twice", k.Name, k.Cipher)
				}
			}
			compiled.boxes = append(compiled.boxes, namedBox{head, b})
		}
		if len(compiled.boxes) == 0 && !r.Plain {
			return nil, fmt.Errorf("the rule for %v has neither a key nor plain values", r.Prefixes)
		}
		if !r.PlainFirst && len(compiled.boxes) > 0 {
			compiled.writer = &compiled.boxes[0]
		}
		out.rules = append(out.rules, compiled)
	}
	return out, nil
}

// of is the rule for a key, nil when there is none.
func (rs *Rules) of(key string) *rule {
	for _, r := range rs.rules {
		for _, p := range r.Prefixes {
			if strings.HasPrefix(key, p) {
				return r
			}
		}
	}
	return nil
}

// seal is the stored form of a plain value.
func (rs *Rules) seal(key string, plain []byte, rand io.Reader) ([]byte, error) {
	r := rs.of(key)
	if r == nil || r.writer == nil {
		return plain, nil
	}
	w := r.writer
	out := make([]byte, 0, len(w.head)+w.overhead()+len(plain))
	sealed, err := w.seal(append(out, w.head...), plain, key, rand)
	if err != nil {
		return nil, fmt.Errorf("encrypt %s: %w", key, err)
	}
	return sealed, nil
}

var encryptedPrefix = []byte(storage.EncryptedPrefix)

// open is the plain form of a stored value, or storage.Unreadable.
func (rs *Rules) open(key string, stored []byte) []byte {
	plain, reason := rs.tryOpen(key, stored)
	if reason != "" {
		return storage.Unreadable(reason)
	}
	return plain
}

func (rs *Rules) tryOpen(key string, stored []byte) (plain []byte, reason string) {
	sealed := bytes.HasPrefix(stored, encryptedPrefix)
	r := rs.of(key)
	switch {
	case !sealed && (r == nil || r.Plain):
		return stored, ""
	case !sealed:
		return nil, "it is not encrypted, and the encryption configuration lists no identity provider for it"
	case r == nil:
		return nil, "it is encrypted, and the encryption configuration says nothing of its resource"
	}
	for i := range r.boxes {
		if body, ok := bytes.CutPrefix(stored, r.boxes[i].head); ok {
			plain, err := r.boxes[i].open(body, key)
			if err != nil {
				return nil, "it is encrypted with key " + keyOf(stored) + ": " + err.Error()
			}
			return plain, ""
		}
	}
	return nil, "it is encrypted with key " + keyOf(stored) + ", which the encryption configuration does not have: add the key again"
}

// keyOf names the provider and the key of a stored value.
func keyOf(stored []byte) string {
	parts := bytes.SplitN(stored[len(encryptedPrefix):min(len(stored), 2*maxKeyName)], []byte(":"), 4)
	if len(parts) < 4 {
		return "unknown"
	}
	return fmt.Sprintf("%q (%.16s)", parts[2], parts[0])
}

// current says whether a stored value is as it would be written now.
func (r *rule) current(stored []byte) bool {
	if r.writer == nil {
		return !bytes.HasPrefix(stored, encryptedPrefix)
	}
	return bytes.HasPrefix(stored, r.writer.head)
}
