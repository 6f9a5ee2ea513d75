package wirejson

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func emptyBody(_ uint64, body []byte) bool { return len(body) == 0 }
func zeroNumber(n uint64, _ []byte) bool   { return n == 0 }
func never(uint64, []byte) bool            { return false }
func appendBool(dst []byte, n uint64, _ []byte) ([]byte, error) {
	return strconv.AppendBool(dst, n != 0), nil
}

func appendInt32(dst []byte, n uint64, _ []byte) ([]byte, error) {
	return strconv.AppendInt(dst, int64(int32(n)), 10), nil
}

func appendInt64(dst []byte, n uint64, _ []byte) ([]byte, error) {
	return strconv.AppendInt(dst, int64(n), 10), nil
}

func appendBase64(dst []byte, _ uint64, body []byte) ([]byte, error) {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, body)
	return append(dst, '"'), nil
}

func appendStringField(dst []byte, _ uint64, body []byte) ([]byte, error) {
	return appendString(dst, body), nil
}

const hexDigits = "0123456789abcdef"

// asItIs are the bytes that a JSON string holds as they are.
var asItIs = func() (t [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return t
}()

// appendString writes a string as encoding/json does.
func appendString(dst, s []byte) []byte {
	dst = append(dst, '"')
	begin := 0
	for i := 0; i < len(s); {
		c := s[i]
		if asItIs[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			dst = append(dst, s[begin:i]...)
			dst = appendEscape(dst, c)
			i++
			begin = i
			continue
		}
		r, size := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, s[begin:i]...)
			dst = append(dst, `\ufffd`...)
			begin = i + 1
		case r == '\u2028' || r == '\u2029':
			dst = append(dst, s[begin:i]...)
			dst = append(dst, `\u202`...)
			dst = append(dst, hexDigits[r&0xf])
			begin = i + size
		}
		i += size
	}
	dst = append(dst, s[begin:]...)
	return append(dst, '"')
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
}

// appendTime writes a metav1.Time, which has whole seconds.
func appendTime(dst []byte, _ uint64, body []byte) ([]byte, error) {
	if len(body) == 0 {
		return append(dst, "null"...), nil
	}
	var seconds int64
	for len(body) > 0 {
		num, typ, n := protowire.ConsumeTag(body)
		if n < 0 || typ != protowire.VarintType {
			return dst, ErrUnusual
		}
		v, size := protowire.ConsumeVarint(body[n:])
		if size < 0 {
			return dst, ErrUnusual
		}
		if num == 1 {
			seconds = int64(v)
		}
		body = body[n+size:]
	}
	t := time.Unix(seconds, 0).UTC()
	if t.IsZero() || t.Year() < 0 || t.Year() > 9999 {
		return dst, ErrUnusual
	}
	dst = append(dst, '"')
	dst = t.AppendFormat(dst, time.RFC3339)
	return append(dst, '"'), nil
}

// single reads a message with one string or bytes field.
func single(body []byte) ([]byte, bool) {
	num, typ, n := protowire.ConsumeTag(body)
	if n < 0 || num != 1 || typ != protowire.BytesType {
		return nil, false
	}
	b, size := protowire.ConsumeBytes(body[n:])
	return b, size == len(body)-n
}

// appendFieldsV1 writes a set of fields, which is JSON already.
func appendFieldsV1(dst []byte, _ uint64, body []byte) ([]byte, error) {
	if raw, ok := single(body); ok && compact(raw) {
		return append(dst, raw...), nil
	}
	var f metav1.FieldsV1
	if err := f.Unmarshal(body); err != nil {
		return dst, err
	}
	doc, err := json.Marshal(f)
	return append(dst, doc...), err
}

// mostNested is how deep a set may be for compact: that of any object is not
// deeper.
const mostNested = 1000

// compact says that the text of a set is valid JSON that encoding/json would
// leave as it is. It knows sets as they are: objects within objects, without
// spaces, whose names hardly ever need an escape. Whatever else is left to the
// library.
func compact(raw []byte) bool {
	depth, i := 0, 0
	for depth < mostNested {
		if i >= len(raw) || raw[i] != '{' {
			return false
		}
		depth++
		i++
		if i < len(raw) && raw[i] == '}' {
			for i < len(raw) && raw[i] == '}' && depth > 0 {
				depth--
				i++
			}
			if depth == 0 {
				return i == len(raw)
			}
			if i >= len(raw) || raw[i] != ',' {
				return false
			}
			i++
		}
		if i = skipName(raw, i); i < 0 {
			return false
		}
	}
	return false
}

// skipName returns where the value of the name at i begins, less than 0 when
// there is none that is plain.
func skipName(raw []byte, i int) int {
	if i >= len(raw) || raw[i] != '"' {
		return -1
	}
	for i++; i < len(raw); i++ {
		switch c := raw[i]; {
		case asItIs[c]:
		case c == '"':
			if i++; i >= len(raw) || raw[i] != ':' {
				return -1
			}
			return i + 1
		case c == '\\' && i+1 < len(raw) && (raw[i+1] == '"' || raw[i+1] == '\\'):
			i++
		default:
			return -1
		}
	}
	return -1
}

// appendQuantity writes a quantity: as it is when it is canonical at a glance.
func appendQuantity(dst []byte, _ uint64, body []byte) ([]byte, error) {
	if text, ok := single(body); ok && canonical(text) {
		dst = append(append(dst, '"'), text...)
		return append(dst, '"'), nil
	}
	var q resource.Quantity
	if err := q.Unmarshal(body); err != nil {
		return dst, err
	}
	doc, err := json.Marshal(q)
	return append(dst, doc...), err
}

// canonical says that a quantity is surely written as the library would: a
// number without leading zeros that no larger suffix of its kind divides.
func canonical(text []byte) bool {
	n, i := uint64(0), 0
	for ; i < len(text) && text[i] >= '0' && text[i] <= '9'; i++ {
		n = n*10 + uint64(text[i]-'0')
	}
	if i == 0 || i > 15 || text[0] == '0' {
		return string(text) == "0"
	}
	switch string(text[i:]) {
	case "", "m", "k", "M", "G":
		return n%1000 != 0
	case "Ki", "Mi", "Gi":
		return n%1024 != 0
	}
	return false
}

// appendIntOrString writes {1: type, 2: int, 3: string}.
func appendIntOrString(dst []byte, _ uint64, body []byte) ([]byte, error) {
	var v intstr.IntOrString
	if err := v.Unmarshal(body); err != nil {
		return dst, err
	}
	switch v.Type {
	case intstr.Int:
		return strconv.AppendInt(dst, int64(v.IntVal), 10), nil
	case intstr.String:
		return appendString(dst, []byte(v.StrVal)), nil
	}
	return dst, ErrUnusual
}
