package nodeipam

import (
	"net/netip"
	"testing"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestRanges(t *testing.T) {
	r, err := newRanges(prefix("10.244.0.0/22"), 24)
	if err != nil {
		t.Fatal(err)
	}
	r.occupy(prefix("10.244.1.0/24"))
	r.occupy(prefix("192.168.0.0/24")) // not ours
	want := func(want string) {
		t.Helper()
		got, ok := r.allocate()
		if ok != (want != "") || (ok && got != prefix(want)) {
			t.Fatalf("allocated %v (%v), want %q", got, ok, want)
		}
	}
	want("10.244.0.0/24")
	want("10.244.2.0/24")
	r.release(prefix("10.244.0.0/24"))
	want("10.244.3.0/24") // what was just freed comes last
	want("10.244.0.0/24")
	want("")
	r.release(prefix("10.244.0.0/16"))
	want("10.244.1.0/24")
	r.occupy(prefix("10.244.2.0/23"))
	want("10.244.0.0/24")
	want("")
}

func TestRangesIPv6(t *testing.T) {
	r, err := newRanges(prefix("fd00:10:244::/48"), 64)
	if err != nil {
		t.Fatal(err)
	}
	r.occupy(prefix("fd00:10:244::/64"))
	if got, _ := r.allocate(); got != prefix("fd00:10:244:1::/64") {
		t.Errorf("allocated %v", got)
	}
}

func TestRangesRefuse(t *testing.T) {
	for _, tc := range []struct {
		cluster netip.Prefix
		bits    int
	}{{netip.Prefix{}, 24}, {prefix("10.0.0.0/16"), 8}, {prefix("10.0.0.0/16"), 33}, {prefix("fd00::/16"), 64}} {
		if _, err := newRanges(tc.cluster, tc.bits); err == nil {
			t.Errorf("%v with /%d is accepted", tc.cluster, tc.bits)
		}
	}
}

// TestRangesNeverOverlap allocates everything and checks each pair.
func TestRangesNeverOverlap(t *testing.T) {
	r, err := newRanges(prefix("10.244.0.0/18"), 24)
	if err != nil {
		t.Fatal(err)
	}
	var all []netip.Prefix
	for p, ok := r.allocate(); ok; p, ok = r.allocate() {
		for _, q := range all {
			if p.Overlaps(q) {
				t.Fatalf("%v overlaps %v", p, q)
			}
		}
		all = append(all, p)
	}
	if len(all) != 64 {
		t.Errorf("%d ranges of /24 in a /18, want 64", len(all))
	}
}
