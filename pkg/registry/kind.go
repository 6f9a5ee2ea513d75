package registry

import (
	"bytes"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
)

// quickKind finds kind and apiVersion of a JSON body by looking at its
// top-level keys alone, where the library decodes the body a first time to
// find them. It does not see what is wrong with a body further down: the
// decode that follows does.
type quickKind struct{}

// Interpret is kjson.MetaFactory's.
func (quickKind) Interpret(data []byte) (*schema.GroupVersionKind, error) {
	if gvk, ok := scanKind(data); ok {
		return &gvk, nil
	}
	return kjson.DefaultMetaFactory.Interpret(data)
}

// scanKind reads the kind of a JSON object. ok is false for all but objects
// that name both plainly, once and in the right case, or not at all.
func scanKind(data []byte) (gvk schema.GroupVersionKind, ok bool) {
	s := scanner{data}
	var apiVersion, kind string
	var seenVersion, seenKind bool
	if !s.token('{') {
		return gvk, false
	}
	for first := true; !s.token('}'); first = false {
		if !first && !s.token(',') {
			return gvk, false
		}
		key, ok := s.text()
		if !ok || !s.token(':') {
			return gvk, false
		}
		into, seen := &apiVersion, &seenVersion
		switch {
		case key == "apiVersion":
		case key == "kind":
			into, seen = &kind, &seenKind
		case strings.EqualFold(key, "apiVersion"), strings.EqualFold(key, "kind"):
			return gvk, false // the library takes these too
		default:
			if !s.skip() {
				return gvk, false
			}
			continue
		}
		if *into, ok = s.text(); !ok || *seen {
			return gvk, false
		}
		*seen = true
	}
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil || len(bytes.TrimLeft(s.rest, " \t\r\n")) > 0 {
		return gvk, false
	}
	return gv.WithKind(kind), true
}

// scanner goes over JSON from the front of rest.
type scanner struct{ rest []byte }

// token takes one punctuation mark, after any space.
func (s *scanner) token(c byte) bool {
	for len(s.rest) > 0 {
		switch s.rest[0] {
		case c:
			s.rest = s.rest[1:]
			return true
		case ' ', '\t', '\r', '\n':
			s.rest = s.rest[1:]
		default:
			return false
		}
	}
	return false
}

// text takes a string of plain ASCII.
func (s *scanner) text() (string, bool) {
	if !s.token('"') {
		return "", false
	}
	for i, c := range s.rest {
		switch {
		case c == '"':
			text := string(s.rest[:i])
			s.rest = s.rest[i+1:]
			return text, true
		case c == '\\', c < 0x20, c >= 0x80:
			return "", false
		}
	}
	return "", false
}

// skip takes a value, whatever it is, up to the comma or brace after it.
func (s *scanner) skip() bool {
	depth := 0
	for i := 0; i < len(s.rest); i++ {
		switch s.rest[i] {
		case '"':
			end := stringEnd(s.rest[i+1:])
			if end < 0 {
				return false
			}
			i += 1 + end
		case '{', '[':
			depth++
		case '}', ']', ',':
			if depth == 0 {
				s.rest = s.rest[i:]
				return true
			}
			if s.rest[i] != ',' {
				depth--
			}
		}
	}
	return false
}

// stringEnd is the index of the quotation mark that ends the string whose
// inside data begins with, or -1.
func stringEnd(data []byte) int {
	for at := 0; ; {
		n := bytes.IndexByte(data[at:], '"')
		if n < 0 {
			return -1
		}
		at += n
		slashes := 0
		for slashes < at && data[at-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return at
		}
		at++
	}
}
