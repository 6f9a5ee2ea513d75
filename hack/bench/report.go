package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
)

// report is everything that was measured, in the order of the tables.
type report struct {
	CPUs     int       `json:"cpus"`
	Load     float64   `json:"load"` // of the last minute when the run began
	Rounds   int       `json:"rounds"`
	Notes    []string  `json:"notes,omitempty"`
	Sections []section `json:"sections"`
}

// section is one table.
type section struct {
	Title string `json:"title"`
	Lines []line `json:"lines"`
	// Notes stand below the table.
	Notes []string `json:"notes,omitempty"`
}

// line is one row: figures by lane, smaller is better.
type line struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	// Values are the figures by lane.
	Values map[string]float64 `json:"values"`
	// Rates are operations in a second by lane, empty where there are none.
	Rates map[string]float64 `json:"rates,omitempty"`
	// Goals are bounds on ours; 0 is none. AtReference is how many times less
	// than the reference, AtFloor how many times the floor, AtMost the figure
	// itself, Embedded that of the embedded column.
	AtReference float64 `json:"atReference,omitempty"`
	AtFloor     float64 `json:"atFloor,omitempty"`
	AtMost      float64 `json:"atMost,omitempty"`
	Embedded    float64 `json:"embedded,omitempty"`
}

func newReport(o options) *report {
	r := &report{CPUs: runtime.NumCPU(), Rounds: o.rounds}
	if data, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(data), &r.Load) // 0 when it cannot be read
	}
	if o.quick {
		r.Notes = append(r.Notes, "A quick run: too short for figures to be trusted.")
	}
	if o.profiles != "" {
		r.Notes = append(r.Notes, "Profiles were taken: the figures of the project's server are higher by their cost.")
	}
	r.Notes = append(r.Notes,
		"CPU is the API server's process alone (embedded: with its etcd). A goal \"/10\" is ten times less than the reference, \"x1.5\" one and a half times the floor.",
		"The reference allows every request without RBAC and runs without priority and fairness; ours authorizes by RBAC.")
	return r
}

// ratio is a to b, NaN when one is missing or not above zero.
func ratio(values map[string]float64, a, b string) float64 {
	x, ok := values[a]
	y, ok2 := values[b]
	if !ok || !ok2 || x <= 0 || y <= 0 {
		return math.NaN()
	}
	return x / y
}

// goals are the line's bounds in words.
func (l line) goals() string {
	var parts []string
	if l.AtReference > 0 {
		parts = append(parts, "/"+figure(l.AtReference))
	}
	if l.AtFloor > 0 {
		parts = append(parts, "x"+figure(l.AtFloor))
	}
	if l.AtMost > 0 {
		parts = append(parts, "<="+figure(l.AtMost))
	}
	if l.Embedded > 0 {
		parts = append(parts, "embedded <="+figure(l.Embedded))
	}
	return strings.Join(parts, " ")
}

// verdict says which bounds are missed; a bound whose figures are missing is
// not judged.
func (l line) verdict() string {
	judged, missed := 0, []string(nil)
	judge := func(bound, is float64, what string) {
		if bound == 0 || math.IsNaN(is) {
			return
		}
		judged++
		if is > bound {
			missed = append(missed, what)
		}
	}
	// "At least so many times less" is turned round to "at most".
	judge(1/orInf(l.AtReference), ratio(l.Values, laneOurs, laneReference), "reference")
	judge(l.AtFloor, ratio(l.Values, laneOurs, laneFloor), "floor")
	judge(l.AtMost, valueOr(l.Values, laneOurs), "figure")
	judge(l.Embedded, valueOr(l.Values, laneEmbedded), "embedded")
	switch {
	case judged == 0:
		return ""
	case len(missed) == 0:
		return "met"
	}
	return "missed: " + strings.Join(missed, ", ")
}

// orInf turns "no bound" into one that judge leaves out.
func orInf(v float64) float64 {
	if v == 0 {
		return math.Inf(1)
	}
	return v
}

func valueOr(values map[string]float64, lane string) float64 {
	if v, ok := values[lane]; ok {
		return v
	}
	return math.NaN()
}

// cells are the line's columns.
func (l line) cells() []string {
	out := []string{l.Name, l.Unit}
	for _, lane := range []string{laneOurs, laneEmbedded, laneReference, laneFloor} {
		cell := ""
		if v, ok := l.Values[lane]; ok {
			cell = figure(v)
			if rate, ok := l.Rates[lane]; ok {
				cell += " (" + figure(rate) + "/s)"
			}
		}
		out = append(out, cell)
	}
	for _, r := range []float64{ratio(l.Values, laneReference, laneOurs), ratio(l.Values, laneOurs, laneFloor)} {
		cell := ""
		if !math.IsNaN(r) {
			cell = figure(r)
		}
		out = append(out, cell)
	}
	return append(out, l.goals(), l.verdict())
}

// print writes the tables. Columns are as wide as their widest cell.
func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "%d CPUs, load %.1f when the run began, median of %d rounds\n", r.CPUs, r.Load, r.Rounds)
	for _, n := range r.Notes {
		fmt.Fprintln(out, n)
	}
	for _, s := range r.Sections {
		fmt.Fprintf(out, "\n%s\n\n", s.Title)
		table := [][]string{{"", "unit", "ours", "embedded", "reference", "floor", "reference/ours", "ours/floor", "goal", ""}}
		for _, l := range s.Lines {
			table = append(table, l.cells())
		}
		printTable(out, table)
		for _, n := range s.Notes {
			fmt.Fprintln(out, "  "+n)
		}
	}
}

func printTable(out io.Writer, table [][]string) {
	width := make([]int, len(table[0]))
	for _, cells := range table {
		for i, c := range cells {
			width[i] = max(width[i], len(c))
		}
	}
	for _, cells := range table {
		var b strings.Builder
		for i, c := range cells {
			if i < 2 || i > 7 {
				fmt.Fprintf(&b, "  %-*s", width[i], c)
			} else {
				fmt.Fprintf(&b, "  %*s", width[i], c)
			}
		}
		fmt.Fprintln(out, strings.TrimRight(b.String(), " "))
	}
}

// figure writes a number with three digits that count.
func figure(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100 || a == math.Trunc(a):
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func (r *report) save(file string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

// median is the middle one of the values, or the lower of the two; NaN of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	return slices.Sorted(slices.Values(values))[(len(values)-1)/2]
}

// medians are those of each lane.
func medians[T any](of map[string][]T, value func(T) float64) map[string]float64 {
	out := map[string]float64{}
	for lane, all := range of {
		var values []float64
		for _, v := range all {
			values = append(values, value(v))
		}
		out[lane] = median(values)
	}
	return out
}

func same(v float64) float64 { return v }
