// Command bench-node measures what a cluster costs on this machine: how long it
// takes to come up, to start pods and to go, and what it uses while idle.
//
//	go run ./hack/bench-node [-quick] [-runs N] [-pods N] [-json FILE]
//
// It makes clusters of its own with bin/ctl (build first), as root, and deletes
// them whatever happens. Each figure stands beside a reference taken in the same
// run where there is one: pods take turns with bare calls to the same container
// runtime that ask for the same container. Whether a goal is met is printed and
// decides nothing: the exit code is 0 whenever everything was measured and
// nothing is left behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"

	"coracle/hack/report"
)

// options are the flags.
type options struct {
	cluster  string // name of the clusters made, one after another
	bin      string // folder of ctl, apiserver, kubelet and images/
	nodes    int
	runs     int           // clusters created; rounds of parallel starts
	pods     int           // pods started one after another
	parallel int           // pods starting at a time in the sustained part
	batch    int           // pods per round of the sustained part
	settle   time.Duration // rest before idle cost is looked at
	idle     time.Duration // how long idle CPU is counted
	quick    bool
	json     string
}

func main() {
	klog.SetLogger(logr.Discard()) // client-go logs what it also returns
	o := options{}
	flag.StringVar(&o.cluster, "cluster", "bench", "name of the cluster that is made and deleted")
	flag.StringVar(&o.bin, "bin", "bin", "folder with ctl, apiserver, kubelet and images/")
	flag.IntVar(&o.nodes, "nodes", 3, "nodes of the cluster")
	flag.IntVar(&o.runs, "runs", 5, "clusters to create, and rounds of parallel starts")
	flag.IntVar(&o.pods, "pods", 30, "pods to start one after another")
	flag.IntVar(&o.parallel, "parallel", 10, "pods that start at a time in a round of parallel starts")
	flag.IntVar(&o.batch, "batch", 50, "pods of a round of parallel starts")
	flag.DurationVar(&o.settle, "settle", 20*time.Second, "rest before the idle cost is measured")
	flag.DurationVar(&o.idle, "idle", 20*time.Second, "how long the idle cost is measured")
	flag.BoolVar(&o.quick, "quick", false, "fewer and shorter measurements: enough to see that everything can be measured")
	flag.StringVar(&o.json, "json", "", "also write the results to this file")
	flag.Parse()
	if o.quick {
		o.runs, o.pods, o.batch, o.settle, o.idle = 1, 5, 10, 2*time.Second, 5*time.Second
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-node:", err)
		os.Exit(1)
	}
}

// run measures everything and prints the table on out; progress goes to log.
func run(ctx context.Context, o options, out, log io.Writer) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("nodes are made of namespaces, mounts and cgroups: run this as root")
	}
	if o.runs < 1 || o.pods < 1 || o.batch < 1 || o.parallel < 1 || o.nodes < 1 {
		return errors.New("-runs, -pods, -batch, -parallel and -nodes must be at least 1")
	}
	dir, err := os.MkdirTemp("", "bench-node-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := newLab(ctx, o, filepath.Join(dir, "kubeconfig"), log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close(ctx)) }()
	r := &report.Report{Started: time.Now().UTC(), Machine: report.Describe()}
	for _, part := range []func(context.Context, *report.Report) error{l.measureClusters, l.measureIdle, l.measurePods, l.measureDensity} {
		if err := part(ctx, r); err != nil {
			return err
		}
	}
	if err := l.measureDelete(ctx, r); err != nil {
		return err
	}
	r.Print(out)
	if o.json != "" {
		return r.Save(o.json)
	}
	return nil
}
