package auth

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTokenFileKnowsItsUsers(t *testing.T) {
	f, err := ParseTokenFile([]byte(strings.Join([]string{
		`root-token,root,u1,"system:masters,ops"`,
		`plain-token,jane,`,
		`,nobody,`,
		`twice,first,`,
		`twice,second,`,
		`no-groups,max,u2,""`,
	}, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]*User{
		"root-token":  {Name: "root", UID: "u1", Groups: []string{"system:masters", "ops"}},
		"plain-token": {Name: "jane"},
		"twice":       {Name: "second"},
		"no-groups":   {Name: "max", UID: "u2"},
		"":            nil,
		"root-toke":   nil,
		"root":        nil,
	} {
		info, ok, err := f.AuthenticateToken(t.Context(), token, nil)
		if err != nil {
			t.Errorf("token %q: %v", token, err)
		}
		if ok != (want != nil) {
			t.Errorf("token %q: known is %v", token, ok)
		} else if ok {
			if d := cmp.Diff(want, info.User); d != "" {
				t.Errorf("token %q (-want +got):\n%s", token, d)
			}
		}
	}
}

func TestTokenFileSaysWhichLineIsWrong(t *testing.T) {
	_, err := ParseTokenFile([]byte("a,b,c\n\nonly,two\n"))
	if err == nil || !strings.Contains(err.Error(), "line 3 has 2 columns") {
		t.Errorf("error is %v, which does not name the line", err)
	}
	if _, err := ParseTokenFile([]byte("a,\"b,c\n")); err == nil {
		t.Error("a quote without an end was read")
	}
}

func FuzzTokenFile(f *testing.F) {
	f.Add([]byte(`token,user,uid,"a,b"`), "token")
	f.Fuzz(func(t *testing.T, data []byte, token string) {
		tokens, err := ParseTokenFile(data)
		if err != nil {
			return
		}
		info, ok, err := tokens.AuthenticateToken(t.Context(), token, nil)
		if err != nil || ok != (info != nil) || ok && token == "" {
			t.Errorf("token %q: %v, %v, %v", token, info, ok, err)
		}
	})
}
