package jsonvalue

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds the nesting of what Read takes.
const maxDepth = 200

// Read decodes a JSON object. Whole numbers are int64. ok is false for all that
// is not a valid object of moderate depth without repeated names.
func Read(data []byte) (object map[string]any, ok bool) {
	r := reader{text: string(data)}
	if r.next() != '{' {
		return nil, false
	}
	object, ok = r.object(0)
	return object, ok && r.next() == 0 && r.at == len(r.text)
}

// reader goes over a text from left to right.
type reader struct {
	text string
	at   int
}

// next is the next byte that is no space, 0 at the end.
func (r *reader) next() byte {
	for ; r.at < len(r.text); r.at++ {
		switch c := r.text[r.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// object reads an object, at whose brace the reader is.
func (r *reader) object(depth int) (map[string]any, bool) {
	r.at++
	out := map[string]any{}
	if r.next() == '}' {
		r.at++
		return out, true
	}
	for depth < maxDepth {
		if r.next() != '"' {
			return nil, false
		}
		name, ok := r.string()
		if !ok || r.next() != ':' {
			return nil, false
		}
		r.at++
		v, ok := r.value(depth + 1)
		if !ok {
			return nil, false
		}
		before := len(out)
		if out[name] = v; len(out) == before {
			return nil, false // twice
		}
		switch r.next() {
		case ',':
			r.at++
		case '}':
			r.at++
			return out, true
		default:
			return nil, false
		}
	}
	return nil, false
}

func (r *reader) array(depth int) ([]any, bool) {
	r.at++
	out := []any{}
	if r.next() == ']' {
		r.at++
		return out, true
	}
	for depth < maxDepth {
		v, ok := r.value(depth + 1)
		if !ok {
			return nil, false
		}
		out = append(out, v)
		switch r.next() {
		case ',':
			r.at++
		case ']':
			r.at++
			return out, true
		default:
			return nil, false
		}
	}
	return nil, false
}

func (r *reader) value(depth int) (v any, ok bool) {
	switch r.next() {
	case '{':
		return r.object(depth)
	case '[':
		return r.array(depth)
	case '"':
		return r.string()
	case 't':
		return true, r.word("true")
	case 'f':
		return false, r.word("false")
	case 'n':
		return nil, r.word("null")
	}
	return r.number()
}

func (r *reader) word(word string) bool {
	if !strings.HasPrefix(r.text[r.at:], word) {
		return false
	}
	r.at += len(word)
	return true
}

// string reads a string, at whose quotation mark the reader is.
func (r *reader) string() (string, bool) {
	start := r.at + 1
	ascii, escaped := true, false
	for i := start; i < len(r.text); i++ {
		switch c := r.text[i]; {
		case c == '"':
			r.at = i + 1
			s := r.text[start:i]
			if !ascii && !utf8.ValidString(s) {
				return "", false
			}
			if escaped {
				return unescaped(r.text[start-1 : r.at])
			}
			return s, true
		case c == '\\':
			escaped = true
			i++
		case c < ' ':
			return "", false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return "", false
}

// unescaped reads a string with escapes, quotation marks included.
func unescaped(quoted string) (s string, ok bool) {
	err := json.Unmarshal([]byte(quoted), &s)
	return s, err == nil
}

func (r *reader) number() (any, bool) {
	start := r.at
	r.take('-')
	if !r.take('0') && !r.digits() {
		return nil, false
	}
	point := r.take('.')
	if point && !r.digits() {
		return nil, false
	}
	exponent := r.take('e') || r.take('E')
	if exponent {
		if !r.take('+') {
			r.take('-')
		}
		if !r.digits() {
			return nil, false
		}
	}
	text := r.text[start:r.at]
	if !point && !exponent {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n, true
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	return f, err == nil
}

// take takes one character if it comes next.
func (r *reader) take(c byte) bool {
	if r.at < len(r.text) && r.text[r.at] == c {
		r.at++
		return true
	}
	return false
}

func (r *reader) digits() bool {
	start := r.at
	for r.at < len(r.text) && r.text[r.at] >= '0' && r.text[r.at] <= '9' {
		r.at++
	}
	return r.at > start
}
