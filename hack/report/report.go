// Package report is the table that benchmarks print: each figure beside its
// reference and its goal.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Report is everything that was measured, in the order of the table.
type Report struct {
	Started time.Time `json:"started"`
	Machine Machine   `json:"machine"`
	Rows    []Row     `json:"rows"`
}

// Machine is where it was measured.
type Machine struct {
	CPUs   int     `json:"cpus"`
	Kernel string  `json:"kernel"`
	Load   float64 `json:"load"` // of the last minute when the run began
	Note   string  `json:"note,omitempty"`
}

// Row is one line of the table.
type Row struct {
	Part string `json:"part"`
	Name string `json:"name"`
	Unit string `json:"unit"`
	// Value is what was measured.
	Value float64 `json:"value"`
	// Reference is what the same thing takes without the project, in the same
	// run or published; nil when there is none.
	Reference *float64 `json:"reference,omitempty"`
	// Source says what the reference is.
	Source string `json:"source,omitempty"`
	// Goal is the bound on the value, nil for a figure given for information.
	Goal *float64 `json:"goal,omitempty"`
	// AtLeast makes the goal a lower bound.
	AtLeast bool `json:"atLeast,omitempty"`
	// Samples are all values that Value sums up, in the order of measuring.
	Samples []float64 `json:"samples,omitempty"`
}

// ratio is value to reference, 0 without a reference.
func (r Row) ratio() float64 {
	if r.Reference == nil || *r.Reference == 0 {
		return 0
	}
	return r.Value / *r.Reference
}

// Verdict compares value and goal.
func (r Row) Verdict() string {
	switch {
	case r.Goal == nil:
		return ""
	case r.AtLeast && r.Value >= *r.Goal, !r.AtLeast && r.Value <= *r.Goal:
		return "met"
	}
	return "missed"
}

// Add appends rows.
func (r *Report) Add(rows ...Row) { r.Rows = append(r.Rows, rows...) }

// Print writes the table. Columns are as wide as their widest cell.
func (r *Report) Print(out io.Writer) {
	lines := [][]string{{"", "measured", "reference", "ratio", "goal", "verdict", "reference is"}}
	part := ""
	for _, row := range r.Rows {
		if row.Part != part {
			part = row.Part
			lines = append(lines, []string{part})
		}
		line := []string{"  " + row.Name, figure(row.Value) + " " + row.Unit, "", "", "", row.Verdict(), row.Source}
		if row.Reference != nil {
			line[2] = figure(*row.Reference) + " " + row.Unit
			line[3] = fmt.Sprintf("%.2f", row.ratio())
		}
		if row.Goal != nil {
			sign := "<= "
			if row.AtLeast {
				sign = ">= "
			}
			line[4] = sign + figure(*row.Goal) + " " + row.Unit
		}
		lines = append(lines, line)
	}
	var width []int
	for _, line := range lines {
		for i, cell := range line {
			if i == len(width) {
				width = append(width, 0)
			}
			if len(line) > 1 {
				width[i] = max(width[i], len(cell))
			}
		}
	}
	fmt.Fprintf(out, "%d CPUs, kernel %s, load %.1f when the run began\n\n", r.Machine.CPUs, r.Machine.Kernel, r.Machine.Load)
	for _, line := range lines {
		var b strings.Builder
		for i, cell := range line {
			if i == 0 || i >= 5 {
				fmt.Fprintf(&b, "%-*s  ", width[i], cell)
			} else {
				fmt.Fprintf(&b, "%*s  ", width[i], cell)
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

// Save writes all as JSON.
func (r *Report) Save(file string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

// Quantile returns the smallest sample that at least the share q of all samples
// does not exceed; NaN of nothing.
func Quantile(samples []float64, q float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(samples))
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// Median is the middle sample, NaN of nothing.
func Median(samples []float64) float64 { return Quantile(samples, 0.5) }

// Ptr is for references and goals.
func Ptr(v float64) *float64 { return &v }

// Millis is a duration in milliseconds.
func Millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Describe looks at this machine.
func Describe() Machine {
	m := Machine{CPUs: runtime.NumCPU(), Kernel: "unknown"}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if data, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(data), &m.Load) // 0 when it cannot be read
	}
	return m
}
