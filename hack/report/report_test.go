package report

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestQuantile(t *testing.T) {
	samples := []float64{5, 1, 4, 2, 3}
	for _, tt := range []struct{ q, want float64 }{{0, 1}, {0.2, 1}, {0.5, 3}, {0.8, 4}, {0.99, 5}, {1, 5}} {
		if got := Quantile(samples, tt.q); got != tt.want {
			t.Errorf("quantile %v = %v, want %v", tt.q, got, tt.want)
		}
	}
	if !math.IsNaN(Quantile(nil, 0.5)) {
		t.Error("the median of nothing is a number")
	}
	if diff := cmp.Diff([]float64{5, 1, 4, 2, 3}, samples); diff != "" {
		t.Errorf("the samples changed: %s", diff)
	}
}

func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		name string
		row  Row
		want string
	}{
		{"no goal", Row{Value: 1}, ""},
		{"below an upper bound", Row{Value: 1, Goal: Ptr(2)}, "met"},
		{"at an upper bound", Row{Value: 2, Goal: Ptr(2)}, "met"},
		{"above an upper bound", Row{Value: 3, Goal: Ptr(2)}, "missed"},
		{"above a lower bound", Row{Value: 3, Goal: Ptr(2), AtLeast: true}, "met"},
		{"below a lower bound", Row{Value: 1, Goal: Ptr(2), AtLeast: true}, "missed"},
		{"not a number", Row{Value: math.NaN(), Goal: Ptr(2)}, "missed"},
	} {
		if got := tt.row.Verdict(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestPrint(t *testing.T) {
	r := &Report{Machine: Machine{CPUs: 2, Kernel: "6", Load: 0.5}}
	r.Add(Row{Part: "Start", Name: "ready", Unit: "s", Value: 1.5, Reference: Ptr(19.9), Source: "peer", Goal: Ptr(5)},
		Row{Part: "Start", Name: "- a step", Unit: "s", Value: 0.25})
	var out strings.Builder
	r.Print(&out)
	want := `2 CPUs, kernel 6, load 0.5 when the run began

            measured  reference  ratio    goal  verdict  reference is
Start
  ready       1.50 s     19.9 s   0.08  <= 5 s  met      peer
  - a step    0.25 s
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("the table differs (-want +got):\n%s", diff)
	}
}
