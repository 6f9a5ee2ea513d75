package bootstraptoken

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestLetIn: a token lets in as many machines as it is for, each as one node, and
// again those that it has let in; one without a number lets in all.
func TestLetIn(t *testing.T) {
	a, b, c := Machine{"n1", "k1"}, Machine{"n2", "k2"}, Machine{"n3", "k3"}
	stolen := Machine{"n1", "k9"}
	for name, tc := range map[string]struct {
		limits   Limits
		fallback int
		ask      []Machine
		want     string // of each: y(es) or -
	}{
		"one machine":               {Limits{Machines: 1}, 0, []Machine{a, b, a, stolen}, "y-y-"},
		"two machines":              {Limits{Machines: 2}, 0, []Machine{a, stolen, b, c, b}, "y-y-y"},
		"one node":                  {Limits{Machines: 1, Node: "n2"}, 0, []Machine{a, b}, "-y"},
		"one node, any machine":     {Limits{Node: "n1"}, 0, []Machine{a, stolen, b}, "yy-"},
		"everybody":                 {Limits{}, 0, []Machine{a, b, stolen, c}, "yyyy"},
		"everybody, but not here":   {Limits{}, 1, []Machine{a, b, a}, "y-y"},
		"no name":                   {Limits{Machines: 1}, 0, []Machine{{"", "k"}, {"n", ""}, {"n1 k9\nn2", "k"}, a}, "---y"},
		"the number is not doubled": {Limits{Machines: 1}, 5, []Machine{a, b}, "y-"},
	} {
		s := NewSecret("ABCDEFGHIJKLMNOPQRSTUVWXYZ", time.Time{}.AddDate(2029, 0, 0), tc.limits)
		var got strings.Builder
		for _, m := range tc.ask {
			if LetIn(s, m, tc.fallback) == nil {
				got.WriteByte('y')
			} else {
				got.WriteByte('-')
			}
			if _, err := Parse(s); err != nil {
				t.Errorf("%s: what is stored is no token: %v", name, err)
			}
		}
		if got.String() != tc.want {
			t.Errorf("%s: %s, want %s", name, got.String(), tc.want)
		}
	}
}

// TestLimitsFailClosed: a limit that cannot be read is none that is left out.
func TestLimitsFailClosed(t *testing.T) {
	for key, texts := range map[string][]string{keyMachines: {"", "0", "-1", "many", "1001"}, keyJoined: {"n1", " k", "n1 \n", strings.Repeat("n k\n", MaxMachines+1)}} {
		for _, text := range texts {
			s := NewSecret("ABCDEFGHIJKLMNOPQRSTUVWXYZ", time.Time{}.AddDate(2029, 0, 0), Limits{})
			s.Data[key] = []byte(text)
			if _, err := Parse(s); err == nil {
				t.Errorf("%s %q is a token", key, text)
			}
			if err := LetIn(s, Machine{"n1", "k1"}, 0); err == nil {
				t.Errorf("%s %q lets in", key, text)
			}
		}
	}
}

func FuzzLetIn(f *testing.F) {
	f.Add("1", "", "n1 k1\n", "n2", "k2")
	f.Add("2", "n1", "", "n1", "k1")
	f.Fuzz(func(t *testing.T, machines, only, joined, node, key string) {
		s := &corev1.Secret{Data: map[string][]byte{keyMachines: []byte(machines), keyNode: []byte(only), keyJoined: []byte(joined)}}
		l, before, err := parseLimits(s)
		refused := LetIn(s, Machine{node, key}, 0)
		if err != nil && refused == nil {
			t.Fatal("lets in what cannot be read")
		}
		_, after, now := parseLimits(s)
		if refused == nil && (now != nil || !slices.Contains(after, Machine{node, key}) || len(after) > max(l.Machines, len(before))) {
			t.Errorf("%q: %v, %v", s.Data[keyJoined], after, now)
		}
	})
}
