package podenv

import (
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestExpand(t *testing.T) {
	env := []*runtimeapi.KeyValue{{Key: "A", Value: []byte("1")}, {Key: "EMPTY"}, {Key: "REF", Value: []byte("$(A)")}}
	tests := []struct{ in, want string }{
		{"plain", "plain"}, {"$(A)", "1"}, {"x$(A)y$(A)z", "x1y1z"}, {"$(EMPTY)", ""}, {"$(REF)", "$(A)"},
		{"$(B)", "$(B)"}, {"$$(A)", "$(A)"}, {"$$$(A)", "$1"}, {"$$$$(A)", "$$(A)"}, {"$A", "$A"}, {"$", "$"}, {"a$", "a$"},
		{"$(A", "$(A"}, {"$(", "$("}, {"$()", "$()"}, {"$($(A))", "$($(A))"}, {"`$(A)`", "`1`"}, {"", ""},
	}
	for _, tt := range tests {
		if got := Expand([]string{tt.in}, env)[0]; got != tt.want {
			t.Errorf("Expand(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
	if _, err := ExpandStrict("$(A)/$(B)", env); err == nil || !strings.Contains(err.Error(), `"B"`) {
		t.Errorf("ExpandStrict must name the variable that is missing, got %v", err)
	}
	if got, err := ExpandStrict("$(A)/$$(B)", env); err != nil || got != "1/$(B)" {
		t.Errorf("ExpandStrict = %q, %v", got, err)
	}
}

// FuzzExpand: text without a dollar sign is unchanged, and doubling every
// dollar sign is undone by expansion whatever the text.
func FuzzExpand(f *testing.F) {
	f.Add("$(A) $$ $(")
	f.Fuzz(func(t *testing.T, s string) {
		env := []*runtimeapi.KeyValue{{Key: "A", Value: []byte("1")}}
		if got := Expand([]string{strings.ReplaceAll(s, "$", "$$")}, env)[0]; got != s {
			t.Errorf("escaped %q came back as %q", s, got)
		}
	})
}

func TestEnvFileValue(t *testing.T) {
	const file = "# comment\n\n  A='1'\nB='two\nlines' # why\nC=\nD= 'x'\nA='last'\r\n"
	for key, want := range map[string]string{"A": "last", "B": "two\nlines", "C": "", "D": ""} {
		got, found, err := envFileValue([]byte(file), key)
		if err != nil || !found || got != want {
			t.Errorf("%s = %q, %v, %v; want %q", key, got, found, err, want)
		}
	}
	if _, found, err := envFileValue([]byte(file), "NONE"); found || err != nil {
		t.Errorf("a missing key: found %v, %v", found, err)
	}
	for _, bad := range []string{"A", "A ='1'", "='1'", "A=1", "A='1'x", "A='1", "X='1'\nY=\"2\"", strings.Repeat("#\n", maxEnvFile)} {
		if _, _, err := envFileValue([]byte(bad), "A"); err == nil {
			t.Errorf("%.20q must be refused", bad)
		}
	}
}

func FuzzEnvFile(f *testing.F) {
	f.Add([]byte("A='1'\n#\nB="), "A")
	f.Fuzz(func(t *testing.T, data []byte, key string) {
		value, found, err := envFileValue(data, key)
		if found && (err != nil || strings.Contains(value, "'")) {
			t.Errorf("value %q, error %v", value, err)
		}
	})
}
