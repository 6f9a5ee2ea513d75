package main

import (
	"bytes"
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

func TestParseProc(t *testing.T) {
	if d, err := parseSchedstat("76324518 1024 12\n"); err != nil || d != 76324518 {
		t.Errorf("schedstat: %v, %v", d, err)
	}
	const stat = "42 (a name) with blanks) S 1 42 42 0 -1 4194560 1 2 3 4 250 31 5 6 20 0 9 0 100 1 2"
	if d, err := parseStat(stat); err != nil || d != 2810*time.Millisecond {
		t.Errorf("stat: %v, %v", d, err)
	}
	if n, err := parseAnon("Name:\tx\nVmRSS:\t 9 kB\nRssAnon:\t  1024 kB\nRssFile:\t 3 kB\n"); err != nil || n != mebibyte {
		t.Errorf("status: %v, %v", n, err)
	}
	for name, parse := range map[string]func(string) error{
		"schedstat": func(s string) error { _, err := parseSchedstat(s); return err },
		"stat":      func(s string) error { _, err := parseStat(s); return err },
		"status":    func(s string) error { _, err := parseAnon(s); return err },
	} {
		for _, bad := range []string{"", "x y z", "1 (a", "1 2", "1 (a) S 1 1 1 0 1 1 1 1 1 1 x y 1 1", "RssAnon: many\n"} {
			if parse(bad) == nil {
				t.Errorf("%s: %q is read", name, bad)
			}
		}
	}
}

// TestOwnProcess: the kernel's files are read as they are.
func TestOwnProcess(t *testing.T) {
	before, err := cpuOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	own, err := ownCPU()
	if err != nil {
		t.Fatal(err)
	}
	for spent := own; spent < own+50*time.Millisecond; {
		if spent, err = ownCPU(); err != nil {
			t.Fatal(err)
		}
	}
	after, err := cpuOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// 50 ms of work, less what the kernel has not accounted for yet.
	if after-before < 20*time.Millisecond {
		t.Errorf("50 ms of work are %v in /proc", after-before)
	}
	if anon, err := anonOf(os.Getpid()); err != nil || anon < mebibyte/4 {
		t.Errorf("this program has %d bytes of its own: %v", anon, err)
	}
}

func TestVerdict(t *testing.T) {
	values := map[string]float64{laneOurs: 100, laneReference: 900, laneFloor: 50, laneEmbedded: 120}
	for _, c := range []struct {
		line          line
		goal, verdict string
	}{
		{line{Values: values}, "", ""},
		{line{Values: values, AtReference: 9, AtFloor: 2}, "/9 x2", "met"},
		{line{Values: values, AtReference: 10, AtFloor: 2}, "/10 x2", "missed: reference"},
		{line{Values: values, AtReference: 8, AtFloor: 1.5}, "/8 x1.50", "missed: floor"},
		{line{Values: values, AtMost: 99, Embedded: 120}, "<=99 embedded <=120", "missed: figure"},
		{line{Values: values, Embedded: 119}, "embedded <=119", "missed: embedded"},
		{line{Values: map[string]float64{laneOurs: 1}, AtReference: 10, AtFloor: 2}, "/10 x2", ""},
	} {
		if g, v := c.line.goals(), c.line.verdict(); g != c.goal || v != c.verdict {
			t.Errorf("%+v: %q %q, want %q %q", c.line, g, v, c.goal, c.verdict)
		}
	}
}

func TestPrint(t *testing.T) {
	r := &report{CPUs: 2, Load: 0.5, Rounds: 3, Notes: []string{"A note."}, Sections: []section{{
		Title: "Requests", Notes: []string{"below"},
		Lines: []line{
			{Name: "get", Unit: "us CPU", AtReference: 8, Values: map[string]float64{laneOurs: 80, laneReference: 716, laneFloor: 41.25},
				Rates: map[string]float64{laneOurs: 12000}},
			{Name: "memory", Unit: "MiB", AtMost: 80, Values: map[string]float64{laneOurs: 81}},
			{Name: "less", Unit: "ms", Values: map[string]float64{laneOurs: -1, laneReference: 2}},
		},
	}}}
	const want = `2 CPUs, load 0.5 when the run began, median of 3 rounds
A note.

Requests

          unit            ours  embedded  reference  floor  reference/ours  ours/floor  goal
  get     us CPU  80 (12000/s)                  716   41.2            8.95        1.94  /8    met
  memory  MiB               81                                                          <=80  missed: figure
  less    ms                -1                    2
  below
`
	var got bytes.Buffer
	r.print(&got)
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

func TestSamples(t *testing.T) {
	s := sample{ops: 1000, wall: time.Second, cpu: 400 * time.Millisecond, etcd: 100 * time.Millisecond, client: 500 * time.Millisecond}
	if got := s.perOp(); got != 400 {
		t.Errorf("CPU per operation: %v us", got)
	}
	// Two cores less half a second, over half a second for 1000.
	if got := s.full(2); got != 3000 {
		t.Errorf("the machine is full at %v/s", got)
	}
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{3, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2}, {[]float64{7}, 7}} {
		if got := median(c.values); got != c.want {
			t.Errorf("median of %v: %v", c.values, got)
		}
	}
	if !math.IsNaN(median(nil)) {
		t.Error("nothing has a median")
	}
}

func TestLateness(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(1000 + ms)) }
	out := []time.Time{at(0), at(100)}
	// The first watcher has the second event before its writer has the answer.
	arrivals := [][]time.Time{{at(1), at(95)}, {at(4), at(105)}}
	if got := lateness(out, arrivals); got != 10 {
		t.Errorf("%v ms, want 10", got)
	}
	if got := lateness(nil, arrivals); got != 0 {
		t.Errorf("nothing is %v ms late", got)
	}
}

// TestObjects: bodies have the size they are given and patches the form of
// their kind.
func TestObjects(t *testing.T) {
	for _, k := range []*kind{widgets(), configMaps(), pods()} {
		short, long := k.object("a", 10), k.object("a", 110)
		if len(long)-len(short) != 100 || !strings.Contains(long, filler(110)) {
			t.Errorf("%s: 100 more bytes of filler make %d more bytes", k.name, len(long)-len(short))
		}
		if r := k.of().patch("a", 7); r.contentType != mergeType || !strings.Contains(string(r.body), "7") || r.path != k.path+"/a" {
			t.Errorf("%s: patch %+v", k.name, r)
		}
		if r := k.canned(sizes{rowGet: 12}).get("a"); r.path != "/answer/12"+k.path+"/a" {
			t.Errorf("%s: the floor is asked for %s", k.name, r.path)
		}
	}
	if v, err := versionOf([]byte(`{"metadata":{"resourceVersion":"42","uid":"x"}}`)); err != nil || v != "42" {
		t.Errorf("version %q, %v", v, err)
	}
	for _, bad := range []string{`{}`, `{"resourceVersion":"4`} {
		if _, err := versionOf([]byte(bad)); err == nil {
			t.Errorf("%s has a version", bad)
		}
	}
}

// TestSafetyLine: rounds are compared with themselves, not with one another.
func TestSafetyLine(t *testing.T) {
	l := safetyLine("get", "us", map[string][]float64{laneOurs: {11, 110, 50}, laneBare: {10, 100, 10}}, same)
	if l.Values[laneOurs] != 1.1 || l.Name != "get: 50 to 10 us" || l.verdict() != "met" {
		t.Errorf("%+v", l)
	}
}

// TestPercentile: one slow request of a hundred is left out, two are not.
func TestPercentile(t *testing.T) {
	took := make([]time.Duration, 100)
	for i := range took {
		took[i] = time.Millisecond
	}
	took[7] = time.Second
	if got := percentile99(took); got != 1 {
		t.Errorf("with one slow request %v ms", got)
	}
	took[8] = time.Second
	if got := percentile99(took); got != 1000 {
		t.Errorf("with two slow requests %v ms", got)
	}
	if got := percentile99(nil); got != 0 {
		t.Errorf("of none %v ms", got)
	}
}

// TestRows: each row's name is known to the flag, and nothing else.
func TestRows(t *testing.T) {
	all := options{}
	one := options{only: rowGet}
	if !all.wants(rowList) || !one.wants(rowList, rowGet) || one.wants(rowList) {
		t.Error("-only is not obeyed")
	}
	if err := run(t.Context(), options{rounds: 1, ops: 100, only: "gets"}, nil, nil); err == nil || !strings.Contains(err.Error(), "choose one of create") {
		t.Errorf("an unknown row: %v", err)
	}
	if err := run(t.Context(), options{}, nil, nil); err == nil {
		t.Error("no rounds are measured")
	}
}
