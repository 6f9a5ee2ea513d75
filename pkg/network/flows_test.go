package network

import (
	"net/netip"
	"testing"
)

func TestStaleHostPort(t *testing.T) {
	at := netip.MustParseAddrPort
	old := []HostPort{
		{addr("0.0.0.0"), 17, 53, at("10.244.1.2:53")},
		{addr("0.0.0.0"), 17, 54, at("10.244.1.3:53")},
		{addr("0.0.0.0"), 17, 55, at("10.244.1.4:53")},
		{addr("0.0.0.0"), 6, 56, at("10.244.1.5:53")},
	}
	now := []HostPort{
		{addr("0.0.0.0"), 17, 53, at("10.244.1.9:53")},
		{addr("0.0.0.0"), 17, 54, at("10.244.1.3:53")},
		{addr("0.0.0.0"), 17, 57, at("10.244.1.7:53")},
	}
	match, changed := staleHostPort(old, now)
	if !changed {
		t.Fatal("no change seen")
	}
	for _, tt := range []struct {
		asked, answers string
		toNode, want   bool
	}{
		{"192.168.7.1:53", "10.244.1.2:53", true, true},
		{"192.168.7.1:53", "10.244.1.9:53", true, false},
		{"192.168.7.1:54", "10.244.1.3:53", true, false},
		{"192.168.7.1:55", "10.244.1.4:53", true, true},
		{"192.168.7.1:57", "192.168.7.1:57", true, true},
		{"192.168.7.9:53", "192.168.7.9:53", false, false},
		{"127.0.0.1:53", "127.0.0.1:53", true, false},
		{"192.168.7.1:99", "192.168.7.1:99", true, false},
	} {
		if got := match(Flow{at(tt.asked), at(tt.answers), tt.toNode}); got != tt.want {
			t.Errorf("flow to %s answered by %s: stale %v, want %v", tt.asked, tt.answers, got, tt.want)
		}
	}
	if _, changed := staleHostPort(now, now); changed {
		t.Error("a change seen where there is none")
	}
}
