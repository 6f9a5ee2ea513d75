package jsonvalue

import (
	"encoding/json"
	"slices"
	"strconv"
)

// Append appends the JSON of a decoded value as encoding/json writes it, names
// in order. Errors: those of encoding/json, of what is no decoded JSON.
func Append(dst []byte, v any) ([]byte, error) {
	var names [64]string
	w := writer{names: names[:0]}
	return w.value(dst, v)
}

// AppendFirst is Append of an object whose given fields, where it has them, come
// before the others.
func AppendFirst(dst []byte, m map[string]any, first ...string) ([]byte, error) {
	var names [64]string
	w := writer{names: names[:0]}
	for _, name := range first {
		if _, ok := m[name]; ok {
			w.names = append(w.names, name)
		}
	}
	n := len(w.names)
	for name := range m {
		if !slices.Contains(w.names[:n], name) {
			w.names = append(w.names, name)
		}
	}
	slices.Sort(w.names[n:])
	return w.fields(dst, m, 0)
}

// AppendString appends a string, as a name is written too.
func AppendString(dst []byte, s string) ([]byte, error) {
	if !plain(s) {
		return library(dst, s)
	}
	return append(append(append(dst, '"'), s...), '"'), nil
}

// Plain says that a string is written as it is, but for the quotation marks.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < ' ', c >= 0x7f, c == '"', c == '\\', c == '<', c == '>', c == '&':
			return false
		}
	}
	return true
}

// library leaves a value to encoding/json.
func library(dst []byte, v any) ([]byte, error) {
	text, err := json.Marshal(v)
	return append(dst, text...), err
}

// writer holds the names of the objects that are being written, those of an
// inner one behind those of the outer.
type writer struct{ names []string }

func (w *writer) value(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case string:
		return AppendString(dst, v)
	case bool:
		return strconv.AppendBool(dst, v), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case map[string]any:
		if v != nil {
			return w.object(dst, v)
		}
	case []any:
		if v != nil {
			return w.array(dst, v)
		}
	}
	return library(dst, v)
}

func (w *writer) object(dst []byte, m map[string]any) ([]byte, error) {
	first := len(w.names)
	for name := range m {
		w.names = append(w.names, name)
	}
	slices.Sort(w.names[first:])
	return w.fields(dst, m, first)
}

// fields writes an object whose names are those from first on, in their order.
func (w *writer) fields(dst []byte, m map[string]any, first int) (out []byte, err error) {
	last := len(w.names)
	dst = append(dst, '{')
	for i := first; i < last; i++ {
		if i > first {
			dst = append(dst, ',')
		}
		name := w.names[i]
		if dst, err = AppendString(dst, name); err != nil {
			return dst, err
		}
		if dst, err = w.value(append(dst, ':'), m[name]); err != nil {
			return dst, err
		}
	}
	w.names = w.names[:first]
	return append(dst, '}'), nil
}

func (w *writer) array(dst []byte, list []any) (out []byte, err error) {
	dst = append(dst, '[')
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = w.value(dst, v); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}
