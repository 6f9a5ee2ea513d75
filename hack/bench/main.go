// Command bench measures what an API server costs: the project's, beside a
// reference made of k8s.io/apiextensions-apiserver and beside a floor, an
// HTTP/2 server that has its answers ready.
//
//	make bench-api                      builds everything and runs it
//	go -C hack/bench run . [-quick] [-only ROW] [-rounds N] [-cpuprofile DIR]
//
// All run on this machine, in turn, round by round, under the same load: TLS
// with client certificates, 32 clients over 4 HTTP/2 connections, bodies made
// beforehand, answers read and dropped. Each API server has a stock etcd of its
// own that syncs every write. CPU and anonymous memory are the API server's
// process alone; the column of embedded etcd has the store in it. A figure is
// the median of the rounds. What counts are the ratios of one run: the
// microseconds are this machine's, today.
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
)

// options are the flags.
type options struct {
	bin, dir       string
	only           string
	rounds         int
	quick          bool
	noReference    bool
	noEmbedded     bool
	profiles       string
	profileSeconds int
	json           string

	// What -quick makes smaller.
	objects     int // that are there
	ops         int // creates, patches and deletes in a round; gets are four times as many
	lists       int
	events      int // of the burst
	pacedEvents int
	big         int // objects of a large list
	stored      int // bytes of an object in the store, set for each phase
}

func main() {
	o := options{objects: 10000, ops: 3000, lists: 10, events: 500, pacedEvents: 300, big: 1000}
	flag.StringVar(&o.bin, "bin", "../../bin", "folder with apiserver and bench/{etcd,floor,reference}")
	flag.StringVar(&o.dir, "dir", "", "folder on the disk to measure with; the system's for temporary files when empty")
	flag.StringVar(&o.only, "only", "", "measure one row: "+strings.Join(rowNames(), ", "))
	flag.IntVar(&o.rounds, "rounds", 3, "rounds")
	flag.IntVar(&o.ops, "ops", o.ops, "creates, patches and deletes in a round; gets are four times as many")
	flag.BoolVar(&o.quick, "quick", false, "fewer and shorter measurements: two minutes, enough to see that everything can be measured")
	flag.BoolVar(&o.noReference, "no-reference", false, "leave the reference out")
	flag.BoolVar(&o.noEmbedded, "no-embedded", false, "leave the column of embedded etcd out")
	flag.StringVar(&o.profiles, "cpuprofile", "", "write a CPU profile of the project's server for each row into this folder")
	flag.IntVar(&o.profileSeconds, "profile-seconds", 3, "length of such a profile")
	flag.StringVar(&o.json, "json", "", "also write the results to this file")
	flag.Parse()
	if o.quick {
		o.rounds, o.objects, o.ops, o.lists, o.events, o.pacedEvents, o.big = 1, 1000, 300, 5, 100, 50, 100
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures everything and prints the tables on out; progress goes to log.
func run(ctx context.Context, o options, out, log io.Writer) (err error) {
	if o.rounds < 1 || o.ops < workers {
		return fmt.Errorf("-rounds must be at least 1 and -ops at least %d", workers)
	}
	if o.only != "" && !slices.Contains(rowNames(), o.only) {
		return fmt.Errorf("-only %s is no row: choose one of %s", o.only, strings.Join(rowNames(), ", "))
	}
	if o.profiles != "" {
		if err := os.MkdirAll(o.profiles, 0o755); err != nil {
			return err
		}
	}
	l, err := newLab(o, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	r := newReport(o)
	if err := l.measure(ctx, r); err != nil {
		return err
	}
	r.print(out)
	if o.json != "" {
		return r.save(o.json)
	}
	return nil
}

// measure runs the phases one after another, each on fresh servers.
func (l *lab) measure(ctx context.Context, r *report) error {
	crds, err := l.servesCustomResources(ctx)
	if err != nil {
		return err
	}
	small := func() *kind {
		if crds {
			return widgets()
		}
		return configMaps()
	}
	if l.wants(rowCreate, rowGet, rowList, rowListProto, rowPatch, rowDelete, rowWatch, rowWatchPaced, rowDeadWatcher, rowMemory) {
		if err := l.smallObjects(ctx, r, small()); err != nil {
			return err
		}
	}
	if l.wants(rowCreate, rowGet, rowList, rowListProto, rowPatch, rowDelete) {
		if err := l.podObjects(ctx, r); err != nil {
			return err
		}
	}
	if l.wants(rowBigLists) {
		if err := l.largeLists(ctx, r, small()); err != nil {
			return err
		}
	}
	if l.wants(rowSafety) {
		if err := l.safety(ctx, r); err != nil {
			return err
		}
	}
	if l.wants(rowFlood) {
		if err := l.flood(ctx, r); err != nil {
			return err
		}
	}
	if l.wants(rowStart) {
		p, err := l.starts(ctx)
		if err != nil {
			return err
		}
		r.starts(p)
	}
	return nil
}

func (l *lab) smallObjects(ctx context.Context, r *report, k *kind) error {
	l.stored = 1400
	title := "1.4 KB as stored: ours and reference custom resources"
	if k.path != widgets().path {
		title = "1.4 KB as stored: ours ConfigMaps (it serves no CustomResourceDefinitions yet), reference custom resources"
	}
	p, err := l.newPhase(ctx, title, k, l.stored, l.objects)
	if err != nil {
		return err
	}
	for round := range l.rounds {
		fmt.Fprintf(l.log, "  round %d\n", round+1)
		if err := p.crud(ctx, round); err != nil {
			return err
		}
		if err := p.fanOut(ctx); err != nil {
			return err
		}
	}
	if err := p.memory(ctx); err != nil {
		return err
	}
	r.requests(p)
	r.watches(p)
	r.memory(p)
	return l.stopAll()
}

func (l *lab) podObjects(ctx context.Context, r *report) error {
	l.stored = 4600
	p, err := l.newPhase(ctx, "4.6 KB as stored: ours pods, reference custom resources of that size", pods(), l.stored, l.objects)
	if err != nil {
		return err
	}
	for round := range l.rounds {
		fmt.Fprintf(l.log, "  round %d\n", round+1)
		if err := p.crud(ctx, round); err != nil {
			return err
		}
	}
	r.requests(p)
	return l.stopAll()
}

func (l *lab) largeLists(ctx context.Context, r *report, k *kind) error {
	l.stored = bigObject
	title := fmt.Sprintf("Ten lists of %d objects of 100 KB at once", l.big)
	p, err := l.newPhase(ctx, title, k, l.stored, l.big)
	if err != nil {
		return err
	}
	if err := p.bigLists(ctx); err != nil {
		return err
	}
	r.bigLists(p)
	return l.stopAll()
}
