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
		{"objects", `{"data":[` + many + `{}]}`, JSON, true},
		{"objects after text", `{"a":"\\\"","data":[` + many + `{}]}`, JSON, true},
		{"objects sent as YAML", `{"data":[` + many + `{}]}`, YAML, true},
		{"a flow", "data: [" + strings.Repeat("a,", maxYAMLValues) + "]", YAML, true},
		{"a flow of its own", "{" + strings.Repeat("a,", maxYAMLValues) + "}", YAML, true},
		{"lines", "data:\n" + strings.Repeat("- a\n", maxYAMLValues), YAML, true},
		{"nested entries", strings.Repeat("- ", maxYAMLValues+1), YAML, true},
		{"lines of a file", "data:\n  f: |\n" + strings.Repeat("    some text\n", maxYAMLValues/2), YAML, false},
	} {
		if err := checkWidth([]byte(c.body), c.media); (err != nil) != c.refused || err != nil && !apierrors.IsRequestEntityTooLargeError(err) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
