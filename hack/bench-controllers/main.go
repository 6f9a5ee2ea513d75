// Command bench-controllers measures how fast controllers work, and how much
// they write.
//
//	go run ./hack/bench-controllers [-only PART,...] [-scale F] [-json FILE]
//
// One process holds the API server over an embedded etcd that syncs each write,
// the scheduler and the controllers, as a local cluster does, and simulated
// nodes. Rates stand beside those of clients that make the same requests over
// the same transport, as many at a time as the controller, right before. Writes
// are counted from the audit log, by who made them. Parts:
//
//   - deployment: a Deployment of 10,000 replicas that no scheduler places, from
//     its creation to its last pod's;
//   - rollout: a rolling update of 1,000 replicas behind a Service on simulated
//     nodes;
//   - collection: 100,000 objects whose owner is deleted;
//   - idle: three nodes that nobody uses, run by the real agent over a runtime
//     that pretends.
//
// Whether a goal is met is printed and decides nothing: the exit code is 0
// whenever everything was measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"

	"coracle/hack/report"
)

// options are the flags.
type options struct {
	only         string
	dir          string
	scale        float64
	settle, idle time.Duration
	json         string
}

// clients is how many requests the controllers have under way for one owner.
const clients = 64

func main() {
	klog.SetLogger(logr.Discard()) // client-go logs what it also returns
	o := options{}
	flag.StringVar(&o.only, "only", "", "parts to measure, separated by commas: deployment, rollout, collection, idle; all if empty")
	flag.StringVar(&o.dir, "dir", "", "folder for the stores; its disk is what etcd syncs to")
	flag.Float64Var(&o.scale, "scale", 1, "multiplies numbers of objects: below 1 to see that everything can be measured")
	flag.DurationVar(&o.settle, "settle", 30*time.Second, "rest before the idle cluster is measured")
	flag.DurationVar(&o.idle, "idle", 2*time.Minute, "how long the idle cluster is measured")
	flag.StringVar(&o.json, "json", "", "also write the results to this file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-controllers:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	options
	log io.Writer
	r   *report.Report
}

func run(ctx context.Context, o options, out, log io.Writer) error {
	if o.scale <= 0 {
		return errors.New("-scale must be above 0")
	}
	b := &bench{options: o, log: log, r: &report.Report{Started: time.Now().UTC(), Machine: report.Describe()}}
	parts := []struct {
		name string
		do   func(context.Context) error
	}{{"deployment", b.deployment}, {"rollout", b.rollout}, {"collection", b.collection}, {"idle", b.rest}}
	for name := range strings.SplitSeq(o.only, ",") {
		if name != "" && !slices.ContainsFunc(parts, func(p struct {
			name string
			do   func(context.Context) error
		}) bool {
			return p.name == name
		}) {
			return fmt.Errorf("there is no part %q: there are deployment, rollout, collection and idle", name)
		}
	}
	for _, p := range parts {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), p.name) {
			continue
		}
		fmt.Fprintln(log, "Measuring", p.name)
		if err := p.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	b.r.Print(out)
	if o.json != "" {
		return b.r.Save(o.json)
	}
	return nil
}

func (b *bench) scaled(n int) int { return max(1, int(float64(n)*b.scale)) }
