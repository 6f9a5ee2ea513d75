package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"coracle/pkg/registry/jsonvalue"
)

var (
	errBadPatch    = errors.New("it is not a JSON object")
	errBadDocument = errors.New("the object's JSON is cut off")
)

// mergePatch applies a JSON merge patch (RFC 7386) to a document that this
// server has encoded. It reads the patch once and the document once: members
// that the patch does not name are copied as they stand, in their order, so
// that a small patch of a large object costs little more than the copy. Nulls
// within new values are dropped as kube-apiserver drops them, in the objects of
// arrays too.
func mergePatch(doc, patch []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(patch))
	dec.UseNumber() // numbers stay as they are written
	var members map[string]any
	if err := dec.Decode(&members); err != nil {
		return nil, fmt.Errorf("%w: %w", errBadPatch, err)
	}
	if _, err := dec.Token(); members == nil || !errors.Is(err, io.EOF) {
		return nil, errBadPatch
	}
	m := merger{doc: doc, out: make([]byte, 0, len(doc)+len(patch))}
	m.space() // what another server stored may begin with some
	if err := m.object(members); err != nil {
		return nil, err
	}
	return m.out, nil
}

// merger copies a document while it changes what a patch names.
type merger struct {
	doc []byte
	at  int // how far doc has been read
	out []byte
}

// object copies the object that begins at m.at. It recurs as deep as patch and
// document both go, which the decoder of the patch bounds.
func (m *merger) object(patch map[string]any) error {
	if err := m.expect('{'); err != nil {
		return err
	}
	m.out = append(m.out, '{')
	rest := maps.Clone(patch)
	for first := true; ; first = false {
		m.space()
		if m.at < len(m.doc) && m.doc[m.at] == '}' {
			m.at++
			break
		}
		if !first {
			if err := m.expect(','); err != nil {
				return err
			}
			m.space()
		}
		if err := m.member(rest); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(rest)) {
		if v := rest[key]; v != nil {
			if err := m.set(key, jsonvalue.WithoutNulls(v)); err != nil {
				return err
			}
		}
	}
	m.out = append(m.out, '}')
	return nil
}

// member copies or changes one member, and takes it out of what the patch has
// still to add.
func (m *merger) member(patch map[string]any) error {
	start := m.at
	key, err := m.key()
	if err != nil {
		return err
	}
	value := m.at
	wanted, named := patch[string(key)]
	delete(patch, string(key))
	inner, both := wanted.(map[string]any)
	isObject := m.at < len(m.doc) && m.doc[m.at] == '{'
	if both && isObject {
		m.comma()
		m.out = append(m.out, m.doc[start:value]...)
		return m.object(inner)
	}
	if err := m.skip(); err != nil {
		return err
	}
	switch {
	case !named:
		m.comma()
		m.out = append(m.out, m.doc[start:m.at]...)
		return nil
	case wanted == nil:
		return nil
	case !isObject:
		wanted = jsonvalue.WithoutNulls(wanted)
	}
	return m.set(string(key), wanted)
}

// key reads a member's name and the colon.
func (m *merger) key() ([]byte, error) {
	start := m.at
	if m.at >= len(m.doc) || m.doc[m.at] != '"' {
		return nil, errBadDocument
	}
	if err := m.skip(); err != nil {
		return nil, err
	}
	name := m.doc[start+1 : m.at-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		var plain string
		if err := json.Unmarshal(m.doc[start:m.at], &plain); err != nil {
			return nil, errBadDocument
		}
		name = []byte(plain)
	}
	m.space()
	if err := m.expect(':'); err != nil {
		return nil, err
	}
	m.space()
	return name, nil
}

// set appends a member.
func (m *merger) set(key string, v any) error {
	name, err := json.Marshal(key)
	if err != nil {
		return err
	}
	value, err := json.Marshal(v)
	if err != nil {
		return err
	}
	m.comma()
	m.out = append(append(append(m.out, name...), ':'), value...)
	return nil
}

// comma separates a member from the one before it.
func (m *merger) comma() {
	if m.out[len(m.out)-1] != '{' {
		m.out = append(m.out, ',')
	}
}

func (m *merger) expect(c byte) error {
	if m.at >= len(m.doc) || m.doc[m.at] != c {
		return errBadDocument
	}
	m.at++
	return nil
}

func (m *merger) space() {
	for m.at < len(m.doc) && (m.doc[m.at] == ' ' || m.doc[m.at] == '\n' || m.doc[m.at] == '\t' || m.doc[m.at] == '\r') {
		m.at++
	}
}

// ends are the bytes that matter to whoever passes over an object or a list.
var ends = [256]bool{'"': true, '{': true, '}': true, '[': true, ']': true}

// skip passes over one value.
func (m *merger) skip() error {
	for depth := 0; m.at < len(m.doc); {
		if depth > 0 {
			for m.at < len(m.doc) && !ends[m.doc[m.at]] {
				m.at++
			}
			if m.at == len(m.doc) {
				break
			}
		}
		switch m.doc[m.at] {
		case '"':
			if err := m.skipString(); err != nil {
				return err
			}
		case '{', '[':
			depth++
			m.at++
			continue
		case '}', ']':
			depth--
			m.at++
		case ',', ':', ' ', '\n', '\t', '\r':
			return errBadDocument
		default:
			m.skipLiteral()
		}
		if depth <= 0 {
			if depth < 0 {
				return errBadDocument
			}
			return nil
		}
	}
	return errBadDocument
}

func (m *merger) skipString() error {
	begin := m.at + 1
	for m.at = begin; ; {
		i := bytes.IndexByte(m.doc[m.at:], '"')
		if i < 0 {
			return errBadDocument
		}
		quote := m.at + i
		m.at = quote + 1
		escapes := 0
		for quote-escapes > begin && m.doc[quote-escapes-1] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return nil
		}
	}
}

// skipLiteral passes over a number, true, false or null.
func (m *merger) skipLiteral() {
	for ; m.at < len(m.doc); m.at++ {
		switch m.doc[m.at] {
		case ',', '}', ']', ' ', '\n', '\t', '\r':
			return
		}
	}
}
