package main

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestQuantile(t *testing.T) {
	samples := []float64{5, 1, 4, 2, 3}
	for _, tt := range []struct{ q, want float64 }{{0, 1}, {0.2, 1}, {0.5, 3}, {0.8, 4}, {0.99, 5}, {1, 5}} {
		if got := quantile(samples, tt.q); got != tt.want {
			t.Errorf("quantile %v = %v, want %v", tt.q, got, tt.want)
		}
	}
	if !math.IsNaN(quantile(nil, 0.5)) {
		t.Error("the median of nothing is a number")
	}
	if diff := cmp.Diff([]float64{5, 1, 4, 2, 3}, samples); diff != "" {
		t.Errorf("the samples changed: %s", diff)
	}
}

func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		name string
		row  row
		want string
	}{
		{"no goal", row{Value: 1}, ""},
		{"below an upper bound", row{Value: 1, Goal: ptr(2)}, "met"},
		{"at an upper bound", row{Value: 2, Goal: ptr(2)}, "met"},
		{"above an upper bound", row{Value: 3, Goal: ptr(2)}, "missed"},
		{"above a lower bound", row{Value: 3, Goal: ptr(2), AtLeast: true}, "met"},
		{"below a lower bound", row{Value: 1, Goal: ptr(2), AtLeast: true}, "missed"},
		{"not a number", row{Value: math.NaN(), Goal: ptr(2)}, "missed"},
	} {
		if got := tt.row.verdict(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestStepTimes(t *testing.T) {
	names, took := stepTimes(`Creating cluster bench: 3 nodes on 10.89.2.0/24
  Issue certificates                   0.01 s
  Load images                          was done
  Start 3 nodes                        1.10 s
Cluster bench is ready after 1.49 s: 3 nodes, API server https://127.0.0.1:6445
`)
	if diff := cmp.Diff([]string{"Issue certificates", "Start 3 nodes"}, names); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]float64{"Issue certificates": 0.01, "Start 3 nodes": 1.1}, took); diff != "" {
		t.Error(diff)
	}
}

func TestProcFiles(t *testing.T) {
	u := parseStatus("Name:\tx\nVmRSS:\t   2000 kB\nRssAnon:\t   500 kB\nRssFile:\t  1500 kB\nThreads:\t4\n")
	if want := (usage{rss: 2.048, anon: 0.512, file: 1.536}); u != want {
		t.Errorf("memory is %+v, want %+v", u, want)
	}
	cpu, err := parseCPU("17 (a (b) c) S 1 1 1 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 9 0 573667 1 1")
	if err != nil || cpu != 2 {
		t.Errorf("CPU time is %v, %v; want 2 s", cpu, err)
	}
	if _, err := parseCPU("17 (x) S"); err == nil {
		t.Error("a cut stat file is read")
	}
}

func TestConfigOf(t *testing.T) {
	got := &runtimeapi.PodSandboxConfig{}
	info := map[string]string{"info": `{"pid":7,"config":{"hostname":"h","linux":{"cgroup_parent":"/p","security_context":{"namespace_options":{"pid":1}}}}}`}
	if err := configOf(info, got); err != nil {
		t.Fatal(err)
	}
	if got.GetHostname() != "h" || got.GetLinux().GetCgroupParent() != "/p" ||
		got.GetLinux().GetSecurityContext().GetNamespaceOptions().GetPid() != runtimeapi.NamespaceMode_CONTAINER {
		t.Errorf("read %v", got)
	}
	if err := configOf(nil, got); err == nil {
		t.Error("no information gives no error")
	}
}

func TestPrint(t *testing.T) {
	r := &report{Machine: machine{CPUs: 2, Kernel: "6", Load: 0.5}}
	r.add(row{Part: "Start", Name: "ready", Unit: "s", Value: 1.5, Reference: ptr(19.9), Source: "peer", Goal: ptr(5)},
		row{Part: "Start", Name: "- a step", Unit: "s", Value: 0.25})
	var out strings.Builder
	r.print(&out)
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
