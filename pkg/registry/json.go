package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"coracle/pkg/registry/jsonvalue"
)

var errJSON = errors.New("malformed JSON")

// maxJSONDepth bounds the nesting of a stored object.
const maxJSONDepth = 10000

// jsonMeta is what one pass over a stored JSON object finds. The slices alias
// the object.
type jsonMeta struct {
	apiVersion, kind     string
	name, namespace, uid string
	labels               map[string]string
	deleting             bool

	// metadata is the span of the metadata object, braces included.
	metadata span
	// version is the span of the value of metadata.resourceVersion, quotes
	// included; empty when there is none.
	version span
}

type span struct{ start, end int }

func (s span) of(data []byte) []byte { return data[s.start:s.end] }

// scanJSON reads a JSON object's type and metadata, and makes sure that all of
// it is valid.
func scanJSON(data []byte) (jsonMeta, error) {
	m := metaScan{s: jsonScanner{data: data}}
	if err := m.s.members(0, m.member); err != nil {
		return m.jsonMeta, err
	}
	if m.s.space(); m.s.pos != len(data) {
		return m.jsonMeta, m.s.fail("something follows the object")
	}
	return m.found()
}

// scanOwn is scanJSON of what this server has encoded, and goes no further than
// it needs: to the end of the metadata, which comes first, or with upTo to the
// end of the member of that name in it.
func scanOwn(data []byte, upTo string) (jsonMeta, error) {
	m := metaScan{s: jsonScanner{data: data}, own: true, upTo: upTo}
	if err := m.s.members(0, m.member); err != nil && err != errEnough {
		return m.jsonMeta, err
	}
	return m.found()
}

// errEnough ends a scan that has found what it looked for.
var errEnough = errors.New("enough has been read")

// metaScan is one pass over an object.
type metaScan struct {
	jsonMeta
	s    jsonScanner
	own  bool
	upTo string
}

// found is what the pass has found, if it is enough for an object.
func (m *metaScan) found() (jsonMeta, error) {
	if m.metadata.start == 0 || m.s.data[m.metadata.start] != '{' {
		return m.jsonMeta, fmt.Errorf("the object has no metadata: %w", errJSON)
	}
	return m.jsonMeta, nil
}

// member reads one member of the object.
func (m *metaScan) member(key []byte) error {
	s := &m.s
	start := s.pos
	if string(key) != "metadata" {
		err := s.value(1)
		switch {
		case err != nil:
		case string(key) == "apiVersion":
			m.apiVersion, err = text(s.data[start:s.pos])
		case string(key) == "kind":
			m.kind, err = text(s.data[start:s.pos])
		}
		return err
	}
	m.jsonMeta = jsonMeta{apiVersion: m.apiVersion, kind: m.kind, metadata: span{start: start}} // of two, the last counts
	if s.data[start] != '{' {
		return s.value(1)
	}
	if err := s.members(1, m.field); err != nil {
		return err
	}
	m.metadata.end = s.pos
	if m.own {
		return errEnough
	}
	return nil
}

// field reads one field of the metadata.
func (m *metaScan) field(key []byte) error {
	s := &m.s
	start := s.pos
	if err := s.value(2); err != nil {
		return err
	}
	value := span{start, s.pos}
	var err error
	switch string(key) {
	case "name":
		m.name, err = text(value.of(s.data))
	case "namespace":
		m.namespace, err = text(value.of(s.data))
	case "uid":
		m.uid, err = text(value.of(s.data))
	case "resourceVersion":
		m.version = value
	case "deletionTimestamp":
		m.deleting = s.data[value.start] != 'n'
	case "labels":
		if s.data[value.start] == '{' {
			m.labels, err = labelsOf(value.of(s.data))
		}
	}
	if err == nil && m.upTo != "" && string(key) == m.upTo {
		err = errEnough
	}
	return err
}

// labelsOf reads an object of strings.
func labelsOf(text []byte) (map[string]string, error) {
	object, ok := jsonvalue.Read(text)
	out := make(map[string]string, len(object))
	for name, v := range object {
		s, isText := v.(string)
		ok = ok && isText
		out[name] = s
	}
	if ok {
		return out, nil
	}
	out = nil
	err := json.Unmarshal(text, &out)
	return out, err
}

// text is the value of a JSON string.
func text(quoted []byte) (string, error) {
	if len(quoted) < 2 || quoted[0] != '"' {
		return "", fmt.Errorf("a string is needed, not %.20q: %w", quoted, errJSON)
	}
	if inner := quoted[1 : len(quoted)-1]; bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return string(inner), nil
	}
	var s string
	err := json.Unmarshal(quoted, &s)
	return s, err
}

// spliceJSON returns data with metadata.resourceVersion set to rev, whatever it
// was before.
func spliceJSON(data []byte, m jsonMeta, rev int64) []byte {
	var number [20]byte
	version := strconv.AppendInt(number[:0], rev, 10)
	const field = `"resourceVersion":`
	out := make([]byte, 0, len(data)+len(field)+len(version)+3)
	if m.version.end > 0 {
		out = append(out, data[:m.version.start]...)
		out = append(append(append(out, '"'), version...), '"')
		return append(out, data[m.version.end:]...)
	}
	start := m.metadata.start + 1
	out = append(append(out, data[:start]...), field...)
	out = append(append(append(out, '"'), version...), '"')
	if rest := bytes.TrimLeft(data[start:], " \t\r\n"); rest[0] != '}' {
		out = append(out, ',')
	}
	return append(out, data[start:]...)
}

// jsonScanner checks JSON from left to right (RFC 8259).
type jsonScanner struct {
	data []byte
	pos  int
}

func (s *jsonScanner) fail(what string) error {
	return fmt.Errorf("%s at offset %d: %w", what, s.pos, errJSON)
}

func (s *jsonScanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

// next is the next byte that is no space, 0 at the end.
func (s *jsonScanner) next() byte {
	s.space()
	if s.pos == len(s.data) {
		return 0
	}
	return s.data[s.pos]
}

// members reads an object; member, unless it is nil, reads the value of each of
// its members, whose name it gets without quotes and as it is written. The value
// begins at s.pos.
func (s *jsonScanner) members(depth int, member func(name []byte) error) error {
	if s.next() != '{' {
		return s.fail("an object is needed")
	}
	s.pos++
	if s.next() == '}' {
		s.pos++
		return nil
	}
	for {
		s.space()
		start := s.pos
		if err := s.string(); err != nil {
			return err
		}
		name := s.data[start+1 : s.pos-1]
		if s.next() != ':' {
			return s.fail("a colon is missing")
		}
		s.pos++
		if s.next() == 0 {
			return s.fail("a value is needed")
		}
		if member == nil {
			if err := s.value(depth + 1); err != nil {
				return err
			}
		} else if err := member(name); err != nil {
			return err
		}
		switch s.next() {
		case ',':
			s.pos++
		case '}':
			s.pos++
			return nil
		default:
			return s.fail("the object does not end")
		}
	}
}

func (s *jsonScanner) array(depth int) error {
	s.pos++ // the bracket
	if s.next() == ']' {
		s.pos++
		return nil
	}
	for {
		if err := s.value(depth + 1); err != nil {
			return err
		}
		switch s.next() {
		case ',':
			s.pos++
		case ']':
			s.pos++
			return nil
		default:
			return s.fail("the array does not end")
		}
	}
}

func (s *jsonScanner) value(depth int) error {
	if depth > maxJSONDepth {
		return s.fail("the nesting is too deep")
	}
	switch c := s.next(); {
	case c == '{':
		return s.members(depth, nil)
	case c == '[':
		return s.array(depth)
	case c == '"':
		return s.string()
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	default:
		return s.number()
	}
}

func (s *jsonScanner) word(word string) error {
	if !bytes.HasPrefix(s.data[s.pos:], []byte(word)) {
		return s.fail("a value is needed")
	}
	s.pos += len(word)
	return nil
}

func (s *jsonScanner) string() error {
	if s.pos == len(s.data) || s.data[s.pos] != '"' {
		return s.fail("a string is needed")
	}
	for s.pos++; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			return nil
		case c < ' ':
			return s.fail("a control character in a string")
		case c == '\\':
			if err := s.escape(); err != nil {
				return err
			}
		}
	}
	return s.fail("the string does not end")
}

// escape reads what follows a backslash, up to its last character.
func (s *jsonScanner) escape() error {
	s.pos++
	if s.pos == len(s.data) {
		return s.fail("the string does not end")
	}
	switch s.data[s.pos] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return nil
	case 'u':
		for range 4 {
			s.pos++
			if s.pos == len(s.data) || !isHex(s.data[s.pos]) {
				return s.fail("four digits must follow \\u")
			}
		}
		return nil
	}
	return s.fail("an unknown escape")
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func (s *jsonScanner) number() error {
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if err := s.digits(); err != nil {
		return err
	}
	if s.peek() == '.' {
		s.pos++
		if err := s.digits(); err != nil {
			return err
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		return s.digits()
	}
	return nil
}

func (s *jsonScanner) peek() byte {
	if s.pos == len(s.data) {
		return 0
	}
	return s.data[s.pos]
}

func (s *jsonScanner) digits() error {
	start := s.pos
	for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
		s.pos++
	}
	if s.pos == start {
		return s.fail("a value is needed")
	}
	return nil
}
