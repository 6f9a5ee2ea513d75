package controllers_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"testing"

	"k8s.io/client-go/kubernetes"

	"coracle/pkg/reconcile"
)

// specimen is a small controller that is right until a bug is planted into it.
type specimen struct {
	script script
	make   func(env reconcile.Env, b bug) reconcile.Runner
	bugs   []planted
}

// planted is a bug and the class of faults that must bring it to light; the
// empty class is no fault at all.
type planted struct {
	bug   bug
	class string
}

// bug names what is wrong with a specimen; empty for nothing.
type bug string

// TestFaultsFindPlantedBugs: the enumerator passes small controllers that are
// right, and reports each of the bugs that such controllers typically have.
func TestFaultsFindPlantedBugs(t *testing.T) {
	for _, sp := range specimens() {
		t.Run(sp.script.name, func(t *testing.T) {
			writes := 0
			if !t.Run("sound", func(t *testing.T) {
				s := sp.with("")
				bubble(t, func(t *testing.T, c *cluster) { writes = s.runUndisturbed(c) })
				for _, f := range s.faults(writes, false) {
					t.Run(f.String(), func(t *testing.T) {
						bubble(t, func(t *testing.T, c *cluster) { f.run(c) })
					})
				}
			}) {
				return
			}
			for _, p := range sp.bugs {
				t.Run(string(p.bug), func(t *testing.T) {
					reports := sp.with(p.bug).reports(t, p.class)
					if len(reports) == 0 {
						t.Fatalf("no fault of class %q reports it", p.class)
					}
					t.Log(reports[0])
				})
			}
		})
	}
}

// with is the script over the specimen with a bug.
func (sp specimen) with(b bug) script {
	s := sp.script
	s.start = func(c *cluster, via transports) func() { return c.startSpecimen(via, b, sp.make) }
	return s
}

// reports runs the faults of one class and returns what they complain of.
func (s script) reports(t *testing.T, class string) []string {
	var out []string
	writes := 0
	one := func(f fault) {
		bubble(t, func(t *testing.T, c *cluster) {
			for _, complaint := range c.complaints(f.run) {
				out = append(out, f.String()+": "+complaint)
			}
		})
	}
	one(fault{class: "undisturbed", run: func(c *cluster) { writes = s.runUndisturbed(c) }})
	if class == "" {
		return out
	}
	out = nil // what counts is what the fault shows
	// Which write betrays the bug varies with the order of events.
	for _, f := range s.faults(max(writes, crashPoints), true) {
		if f.class == class && len(out) == 0 {
			one(f)
		}
	}
	return out
}

// complaints runs body and returns what would have failed the test.
func (c *cluster) complaints(body func(c *cluster)) []string {
	r := &reporter{TB: c.t}
	c.t = r
	done := make(chan struct{})
	go func() {
		defer close(done)
		body(c)
	}()
	<-done
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said
}

// reporter keeps what fails instead of failing the test.
type reporter struct {
	testing.TB
	mu   sync.Mutex
	said []string // guarded by mu
}

func (r *reporter) keep(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, text)
}

func (r *reporter) Error(args ...any)                 { r.keep(fmt.Sprint(args...)) }
func (r *reporter) Errorf(format string, args ...any) { r.keep(fmt.Sprintf(format, args...)) }
func (r *reporter) Fatal(args ...any)                 { r.keep(fmt.Sprint(args...)); runtime.Goexit() }
func (r *reporter) Fatalf(format string, args ...any) {
	r.keep(fmt.Sprintf(format, args...))
	runtime.Goexit()
}
func (r *reporter) Log(...any) {}

// startSpecimen runs one small controller until stop.
func (c *cluster) startSpecimen(via transports, b bug, construct func(reconcile.Env, bug) reconcile.Runner) (stop func()) {
	over := func(wrap func(http.RoundTripper) http.RoundTripper) kubernetes.Interface {
		config := c.Admin()
		if wrap != nil {
			config.Wrap(wrap)
		}
		return kubernetes.NewForConfigOrDie(config)
	}
	client, informers := over(via.write), reconcile.NewInformers(over(via.read))
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	runner := construct(reconcile.Env{Client: client, Informers: informers}.Defaulted(), b)
	informers.StartWithContext(ctx)
	done := make(chan error, 1)
	go func() { done <- runner.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Errorf("run the specimen: %v", err)
		}
		informers.Shutdown()
	}
}
