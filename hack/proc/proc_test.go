package proc

import "testing"

func TestProcFiles(t *testing.T) {
	u := parseStatus("Name:\tx\nVmRSS:\t   2000 kB\nRssAnon:\t   500 kB\nRssFile:\t  1500 kB\nThreads:\t4\n")
	if want := (Usage{RSS: 2.048, Anon: 0.512, File: 1.536}); u != want {
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
