package crifake

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	exit := func(code int32) step { return step{do: "exit", code: code} }
	sleep := func(d time.Duration) step { return step{do: "sleep", wait: d} }
	for _, tc := range []struct {
		argv []string
		want program
	}{
		{nil, program{steps: []step{{do: "forever"}}, termCode: 143}},
		{[]string{"nginx", "-g"}, program{steps: []step{{do: "forever"}}, termCode: 143}},
		{[]string{"/bin/sleep", "5"}, program{steps: []step{sleep(5 * time.Second)}, termCode: 143}},
		{[]string{"sleep", "infinity"}, program{steps: []step{{do: "forever"}}, termCode: 143}},
		{[]string{"false"}, program{status: 1, termCode: 143}},
		{[]string{"no-such-thing"}, program{broken: true, termCode: 143}},
		{[]string{"sh", "-c", "echo 'a; b' && sleep 0.5; exit 3"},
			program{steps: []step{{do: "print", text: "a; b"}, sleep(500 * time.Millisecond), exit(3)}, termCode: 143}},
		{[]string{"sh", "-ec", "echo x > /m\nsleep 1"}, program{steps: []step{{do: "write", text: "x", path: "/m"}, sleep(time.Second)}, termCode: 143}},
		{[]string{"sh", "-c", "trap '' TERM; sleep 1"}, program{steps: []step{sleep(time.Second)}, ignoresTerm: true, termCode: 143}},
		{[]string{"sh", "-c", "trap 'exit 7' TERM; sleep 1"}, program{steps: []step{sleep(time.Second)}, termCode: 7}},
	} {
		if diff := cmp.Diff(tc.want, parse(tc.argv), cmp.AllowUnexported(program{}, step{})); diff != "" {
			t.Errorf("%q: %s", tc.argv, diff)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("sh", "echo 'a' > b; sleep 1e300; exit x")
	f.Fuzz(func(t *testing.T, name, script string) {
		for _, argv := range [][]string{{name, "-c", script}, {"sh", "-c", script}, {name, script}} {
			for _, s := range parse(argv).steps {
				if s.wait < 0 {
					t.Errorf("%q waits %v", argv, s.wait)
				}
			}
		}
	})
}
