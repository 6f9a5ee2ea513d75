package expression

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIdentity(t *testing.T) {
	c := New(0)
	values := map[string]map[string]any{
		claimsName: {"sub": "jane", "exp": 20.0, "nbf": 10.0, "roles": []any{"a", "b"}, "mixed": []any{"a", 1.0}, "org": map[string]any{"name": "x"}},
		userName:   {"username": "jane", "uid": "", "groups": []string{"devs"}, "extra": map[string][]string{"example.com/a": {"b"}}},
	}
	for _, tc := range []struct {
		variable, text string
		want           any
		err            string
	}{
		{claimsName, `claims.sub + "@" + claims.org.name`, "jane@x", ""},
		{claimsName, `claims.roles.map(r, "role:" + r)`, []string{"role:a", "role:b"}, ""},
		{claimsName, `claims.exp - claims.nbf <= 86400`, true, ""},
		{claimsName, `claims.?missing.orValue("")`, "", ""},
		{claimsName, `has(claims.missing) ? claims.missing : null`, nil, ""},
		{claimsName, `claims.missing`, nil, "no such key"},
		{claimsName, `claims.mixed`, nil, "in it"},
		{claimsName, `claims.exp`, nil, "evaluates to double"},
		{claimsName, `claims.roles.all(a, claims.roles.all(b, claims.roles.all(c, claims.roles.all(d, a+b+c+d != ""))))`, true, ""},
		{userName, `!user.username.startsWith("system:")`, true, ""},
		{userName, `user.groups.all(g, g == "devs") && user.extra["example.com/a"] == ["b"]`, true, ""},
	} {
		p, err := c.Identity(tc.variable, tc.text, false)
		if err != nil {
			t.Errorf("%s: %v", tc.text, err)
			continue
		}
		got, err := p.Eval(t.Context(), values[tc.variable])
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: %v, %v; want %s", tc.text, got, err, tc.err)
			}
			continue
		}
		if d := cmp.Diff(tc.want, got); err != nil || d != "" {
			t.Errorf("%s: %v %s", tc.text, err, d)
		}
	}
	for text, variable := range map[string]string{`claims.sub ==`: claimsName, `user.name == ""`: userName, `claims.sub == ""`: userName, `user.uid`: userName, `1`: claimsName} {
		if _, err := c.Identity(variable, text, true); err == nil {
			t.Errorf("%s compiles as a condition on %s", text, variable)
		}
	}
}

// TestIdentityCost: an expression that would take long is cut off.
func TestIdentityCost(t *testing.T) {
	p, err := New(0).Identity(claimsName, `claims.l.all(a, claims.l.all(b, claims.l.all(c, a+b+c != "")))`, true)
	if err != nil {
		t.Fatal(err)
	}
	list := make([]any, 1000)
	for i := range list {
		list[i] = "x"
	}
	if _, err := p.Eval(t.Context(), map[string]any{"l": list}); err == nil || !strings.Contains(err.Error(), "cost") {
		t.Errorf("a billion steps: %v", err)
	}
}

func TestIdentitySelects(t *testing.T) {
	for text, want := range map[string]bool{
		`claims.email`: true, `claims.?email.orValue("")`: true, `has(claims.email) ? "a" : "b"`: true, `[claims.email + "x"]`: true,
		`claims.sub`: false, `claims.org.email`: false, `"claims.email"`: false,
	} {
		p, err := New(0).Identity(claimsName, text, false)
		if err != nil || p.Selects("email") != want {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
	}
}
