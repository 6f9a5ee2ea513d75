package component

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func TestValidate(t *testing.T) {
	for _, x := range []struct{ args, want string }{
		{"", ""},
		{"--leader-elect=false --leader-elect-retry-period=0s", ""},
		{"--tls-cert-file=a", "belong together"},
		{"--secure-port=70000", "is no port"},
		{"--leader-elect-renew-deadline=15s", "must be longer"},
		{"--leader-elect-retry-period=9s", "must be longer"},
		{"--leader-elect-resource-name=", "must not be empty"},
	} {
		o := Options{Name: "kube-scheduler"}
		f := pflag.NewFlagSet("scheduler", pflag.ContinueOnError)
		o.AddFlags(f, 10259)
		if err := f.Parse(strings.Fields(x.args)); err != nil {
			t.Fatal(err)
		}
		err := o.Validate()
		if (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%q: %v, want %q", x.args, err, x.want)
		}
	}
}

func TestMemory(t *testing.T) {
	var m memory[int]
	asked := 0
	get := func(key string, at time.Duration) int {
		v, err := m.get(key, time.Unix(0, 0).Add(at), func() (int, error) { asked++; return asked, nil })
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if get("a", 0) != 1 || get("a", remembered-1) != 1 {
		t.Error("an answer does not hold")
	}
	if get("a", remembered) != 2 {
		t.Error("an answer holds for ever")
	}
	for i := range 3 * maxRemembered {
		get(strings.Repeat("x", i+1), 0)
		if len(m.known) > maxRemembered {
			t.Fatalf("%d answers are kept", len(m.known))
		}
	}
}
