package eviction

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestShort(t *testing.T) {
	const gib = 1 << 30
	for _, tc := range []struct {
		name   string
		levels map[Signal]Level
		want   []Signal
	}{
		{"plenty", map[Signal]Level{Memory: {4 * gib, 8 * gib}, Disk: {50 * gib, 100 * gib}, PIDs: {30000, 32768}}, nil},
		{"memory", map[Signal]Level{Memory: {50 << 20, 8 * gib}}, []Signal{Memory}},
		{"a large disk with one part in twenty left has enough", map[Signal]Level{Disk: {50 * gib, 1000 * gib}}, nil},
		{"a large disk with one gigabyte left has not", map[Signal]Level{Disk: {gib, 1000 * gib}}, []Signal{Disk}},
		{"a small disk goes by its fraction", map[Signal]Level{Disk: {gib / 2, 4 * gib}}, nil},
		{"a small disk that is full", map[Signal]Level{Disk: {gib / 4, 4 * gib}}, []Signal{Disk}},
		{"not measured", map[Signal]Level{Memory: {}}, nil},
		{"all", map[Signal]Level{PIDs: {10, 32768}, Memory: {1, gib}, Disk: {1, gib}}, []Signal{Memory, Disk, PIDs}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Short(tc.levels, Default()); !slices.Equal(got, tc.want) {
				t.Errorf("short of %v, want %v", got, tc.want)
			}
		})
	}
}

func TestPressureEndsLate(t *testing.T) {
	now := time.Unix(0, 0)
	p := Pressure(nil).Next([]Signal{Memory}, now)
	for _, tc := range []struct {
		after time.Duration
		want  bool
	}{{time.Minute, true}, {4 * time.Minute, true}, {6 * time.Minute, false}} {
		if got := p.Next(nil, now.Add(tc.after)).Under(Memory); got != tc.want {
			t.Errorf("after %v: %v", tc.after, got)
		}
	}
}

func TestVictim(t *testing.T) {
	const critical = 2_000_000_000
	for _, tc := range []struct {
		name string
		pods []Pod
		want string
	}{
		{"none", nil, ""},
		{"only critical", []Pod{{UID: "a", Priority: critical, Usage: 10}}, ""},
		{"the one above its request", []Pod{{UID: "a", Usage: 100, Request: 200}, {UID: "b", Usage: 20, Request: 10, Priority: 5}}, "b"},
		{"the lower priority", []Pod{{UID: "a", Usage: 100, Priority: 5}, {UID: "b", Usage: 20}}, "b"},
		{"the larger excess", []Pod{{UID: "a", Usage: 100, Request: 90}, {UID: "b", Usage: 50, Request: 10}}, "b"},
		{"what uses nothing frees nothing", []Pod{{UID: "a"}, {UID: "b", Usage: 1, Priority: 9}}, "b"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ok := Victim(tc.pods)
			if string(got) != tc.want || ok != (tc.want != "") {
				t.Errorf("%q, %v", got, ok)
			}
		})
	}
}

func TestRefuses(t *testing.T) {
	critical := int32(2_000_001_000)
	under := func(s Signal) Pressure { return Pressure{s: time.Time{}} }
	for _, tc := range []struct {
		p        Pressure
		class    corev1.PodQOSClass
		priority *int32
		refused  bool
	}{
		{nil, corev1.PodQOSBestEffort, nil, false},
		{under(Memory), corev1.PodQOSBestEffort, nil, true},
		{under(Memory), corev1.PodQOSBurstable, nil, false},
		{under(Disk), corev1.PodQOSGuaranteed, nil, true},
		{under(Disk), corev1.PodQOSGuaranteed, &critical, false},
	} {
		err := tc.p.Refuses(&corev1.Pod{Spec: corev1.PodSpec{Priority: tc.priority}}, tc.class)
		if (err != nil) != tc.refused {
			t.Errorf("%v, %s: %v", tc.p, tc.class, err)
		}
	}
}

func TestRemovable(t *testing.T) {
	now := time.Unix(10000, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	images := []Image{
		{ID: "used", Bytes: 100, LastUsed: ago(time.Hour), InUse: true}, {ID: "pinned", Bytes: 100, LastUsed: ago(time.Hour), Pinned: true},
		{ID: "new", Bytes: 100, LastUsed: ago(time.Second)}, {ID: "old", Bytes: 10, LastUsed: ago(time.Hour)},
		{ID: "older", Bytes: 10, LastUsed: ago(2 * time.Hour)}, {ID: "middle", Bytes: 10, LastUsed: ago(30 * time.Minute)},
	}
	for need, want := range map[int64][]string{0: nil, 5: {"older"}, 15: {"older", "old"}, 1000: {"older", "old", "middle"}} {
		if got := Removable(images, need, time.Minute, now); !slices.Equal(got, want) {
			t.Errorf("to free %d: %v, want %v", need, got, want)
		}
	}
}

func TestMessage(t *testing.T) {
	got := Message(Memory, Level{Available: 50 << 20, Capacity: 1 << 30}, Default())
	if !strings.HasPrefix(got, "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi.") {
		t.Errorf("message %q", got)
	}
}
