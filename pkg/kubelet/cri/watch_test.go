package cri

import (
	"context"
	"os/exec"
	"sync"
	"testing"
	"time"
)

func TestPidOf(t *testing.T) {
	for text, want := range map[string]int{
		`{"pid": 42, "runtimeSpec": {"process": {}}}`: 42, `{"pid": -3}`: 0, `{"pid": "x"}`: 0, ``: 0, `[]`: 0, `{"sandboxID":"a"}`: 0,
	} {
		if got := pidOf(map[string]string{"info": text}); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

func FuzzPidOf(f *testing.F) {
	f.Add(`{"pid": 42}`)
	f.Fuzz(func(t *testing.T, text string) {
		if pidOf(map[string]string{"info": text}) < 0 {
			t.Error("a negative process id")
		}
	})
}

// TestWatcherReportsTheEndOfProcesses tracks real processes: one before the
// watch begins, one during it, and one that is gone already.
func TestWatcherReportsTheEndOfProcesses(t *testing.T) {
	start := func() *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	end := func(cmd *exec.Cmd) {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	before, during, gone := start(), start(), start()
	end(gone)
	w := newWatcher()
	w.track("before", "u", before.Process.Pid)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan process, 10)
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.run(ctx, func(p process) { ended <- p }); err != nil {
			t.Error(err)
		}
	})
	expect := func(id string) {
		t.Helper()
		select {
		case p := <-ended:
			if p.id != id || p.podUID != "u" {
				t.Errorf("%+v ended, want %s", p, id)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("the end of %s is not reported", id)
		}
	}
	end(before)
	expect("before")
	w.track("during", "u", during.Process.Pid)
	w.track("during", "u", during.Process.Pid)
	if w.wants("during") || !w.wants("other") {
		t.Error("wants what it has")
	}
	end(during)
	expect("during")
	w.track("gone", "u", gone.Process.Pid)
	expect("gone")
	cancel()
	running.Wait()
	if len(ended) > 0 {
		t.Errorf("reported twice: %+v", <-ended)
	}
}

func TestDialRefusesWhatIsNoSocket(t *testing.T) {
	for _, endpoint := range []string{"", "tcp://127.0.0.1:1", "http://x"} {
		if _, err := Dial(Config{Endpoint: endpoint}); err == nil {
			t.Errorf("%q is accepted", endpoint)
		}
	}
}

// TestDeadRuntimeFailsFast asks a socket that nobody listens on.
func TestDeadRuntimeFailsFast(t *testing.T) {
	c, err := Dial(Config{Endpoint: t.TempDir() + "/none.sock"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	begin := time.Now()
	if _, err := c.Version(t.Context()); !IsUnavailable(err) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}
