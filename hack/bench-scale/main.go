// Command bench-scale fills a control plane with simulated nodes and running
// pods and watches what that costs, and what gives way.
//
//	go run ./hack/bench-scale [-nodes N] [-pods N] [-hold 2m] [-json FILE]
//
// It runs the project's own programs (build first) as processes of their own:
// bin/apiserver with scheduler, controllers and an embedded etcd that syncs each
// write, and bin/kubelet --simulated N. Pods come from Deployments of 1,000
// replicas. From the beginning to the end a client makes a few requests of each
// kind every second over TLS; their latencies are given for the time in which
// the cluster is filled and for that in which it is held.
//
// Whether a goal is met is printed and decides nothing: the exit code is 0
// whenever everything was measured, also when pods were missing at the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"

	"coracle/hack/report"
)

// options are the flags.
type options struct {
	bin         string
	dir         string
	nodes, pods int
	each        int // replicas of a Deployment
	fill, hold  time.Duration
	every       time.Duration // between two rounds of probes
	json        string
}

func main() {
	klog.SetLogger(logr.Discard()) // client-go logs what it also returns
	o := options{}
	flag.StringVar(&o.bin, "bin", "bin", "folder with apiserver and kubelet")
	flag.StringVar(&o.dir, "dir", "", "folder for the store and the logs; its disk is what etcd syncs to")
	flag.IntVar(&o.nodes, "nodes", 5000, "simulated nodes")
	flag.IntVar(&o.pods, "pods", 100_000, "pods")
	flag.IntVar(&o.each, "each", 1000, "replicas of each Deployment")
	flag.DurationVar(&o.fill, "fill", 30*time.Minute, "how long it may take until all pods run; what runs by then is held")
	flag.DurationVar(&o.hold, "hold", 2*time.Minute, "how long the full cluster is watched")
	flag.DurationVar(&o.every, "every", 50*time.Millisecond, "time between two probes")
	flag.StringVar(&o.json, "json", "", "also write the results to this file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-scale:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out, log io.Writer) (err error) {
	if o.nodes < 1 || o.pods < 1 || o.each < 1 {
		return errors.New("-nodes, -pods and -each must be at least 1")
	}
	r := &report.Report{Started: time.Now().UTC(), Machine: report.Describe()}
	c, err := start(ctx, o, log)
	if c != nil {
		defer func() { err = errors.Join(err, c.close()) }()
	}
	if err != nil {
		return err
	}
	if err := c.measure(ctx, r); err != nil {
		return err
	}
	r.Print(out)
	if o.json != "" {
		return r.Save(o.json)
	}
	return nil
}
