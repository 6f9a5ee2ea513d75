package registry

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// TestWidth: what is text does not count in JSON, however a string ends; what
// is structure counts in every form.
func TestWidth(t *testing.T) {
	many := strings.Repeat(`{"a":[1,2]},`, maxValues)
	for _, c := range []struct {
		name, body string
		media      MediaType
		refused    bool
	}{
		{"an object", `{"data":{"a":"b"}}`, JSON, false},
		{"text", `{"data":{"a":"` + strings.ReplaceAll(many, `"`, `\"`) + `"}}`, JSON, false},
		{"text sent as YAML", `{"data":{"a":"` + strings.ReplaceAll(many, `"`, `\"`) + `"}}`, YAML, false},
		{"a long number", `{"a":"` + strings.Repeat("7", maxDigits+600) + `"}`, JSON, true},
		{"a long number in escapes", `{"a":"` + strings.Repeat(`\u0037`, maxDigits) + `"}`, JSON, true},
		{"a long number on many lines", "a: \"" + strings.Repeat("777777\\\n   ", maxDigits/6) + `"`, YAML, true},
		{"a long number with room between its lines", "a: \"" + strings.Repeat(strings.Repeat("7", 500)+"\\\n"+strings.Repeat(" ", 700), maxDigits/400) + `"`, YAML, true},
		{"room", "a: \"" + strings.Repeat(" ", 1<<20) + `"`, YAML, false},
		{"long text", `{"a":"` + strings.Repeat("x", maxDigits*3) + strings.Repeat("ux1 ", maxDigits) + `"}`, JSON, false},
		{"aliases", "a: &a [" + strings.Repeat("x,", 300) + "]\nb: [" + strings.Repeat("*a,", 300) + "]", YAML, true},
		{"few aliases", "a: &a [" + strings.Repeat("x,", 30) + "]\nb: [" + strings.Repeat("*a,", 30) + "]", YAML, false},
		{"an alias of itself", "a: &a [*a]\n", YAML, true},
		{"objects", `{"data":[` + many + `{}]}`, JSON, true},
		{"objects after text", `{"a":"\\\"","data":[` + many + `{}]}`, JSON, true},
		{"objects sent as YAML", `{"data":[` + many + `{}]}`, YAML, true},
		{"a flow", "data: [" + strings.Repeat("a,", maxYAMLValues) + "]", YAML, true},
		{"a flow of its own", "{" + strings.Repeat("a,", maxYAMLValues) + "}", YAML, true},
		{"lines", "data:\n" + strings.Repeat("- a\n", maxYAMLValues), YAML, true},
		{"nested entries", strings.Repeat("- ", maxYAMLValues+1), YAML, true},
		{"lines of a file", "data:\n  f: |\n" + strings.Repeat("    some text\n", maxYAMLValues/2), YAML, false},
	} {
		if err := checkWidth([]byte(c.body), c.media, maxNodes); (err != nil) != c.refused || err != nil && !apierrors.IsRequestEntityTooLargeError(err) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
