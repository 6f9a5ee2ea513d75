package podenv

import (
	"fmt"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Expand replaces $(NAME) in each string by the variable's value. A reference
// to an unknown variable stays as it is written, and "$$" stands for "$", so
// that "$$(NAME)" gives the text "$(NAME)".
func Expand(in []string, env []*runtimeapi.KeyValue) []string {
	if in == nil {
		return nil
	}
	vars := asMap(env)
	lookup := func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	}
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = expand(s, lookup)
	}
	return out
}

// ExpandStrict is Expand for one string, except that an unknown variable is an
// error: it serves paths, where a left-over reference would name a wrong folder.
func ExpandStrict(s string, env []*runtimeapi.KeyValue) (string, error) {
	vars := asMap(env)
	var missing []string
	out := expand(s, func(name string) (string, bool) {
		v, ok := vars[name]
		if !ok {
			missing = append(missing, name)
		}
		return v, ok
	})
	if len(missing) > 0 {
		return "", fmt.Errorf("%q refers to the variable %q, which the container does not define", s, missing[0])
	}
	return out, nil
}

func asMap(env []*runtimeapi.KeyValue) map[string]string {
	vars := make(map[string]string, len(env))
	for _, kv := range env {
		vars[kv.Key] = string(kv.Value)
	}
	return vars
}

// expand makes one pass: what a variable expands to is not expanded again.
func expand(s string, lookup func(string) (string, bool)) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i:], ')')
			if end < 0 {
				b.WriteByte('$')
				continue
			}
			if v, ok := lookup(s[i+2 : i+end]); ok {
				b.WriteString(v)
			} else {
				b.WriteString(s[i : i+end+1])
			}
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}
