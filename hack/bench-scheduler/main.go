// Command bench-scheduler measures how fast the scheduler binds pods, with the
// workload shapes of upstream's scheduler_perf.
//
//	go run ./hack/bench-scheduler [-shape NAME,...] [-nodes N] [-scale F] [-json FILE]
//
// One process holds the API server over an embedded etcd that syncs each write
// to disk, as a local cluster does, and the scheduler, which reaches it by the
// in-memory transport: requests are authorized, admitted, validated and audited,
// and not encrypted. Nodes are plain objects. Each shape has a control plane of
// its own.
//
// What is printed for a shape:
//
//   - pods/s: the measured pods are all created while no scheduler runs; then
//     the scheduler's informers are filled ("sync") and it is run; bindings over
//     the time from then to the last binding's answer;
//   - floor: upstream's threshold for the shape, of Kubernetes v1.37.2;
//   - of raw: pods/s over the rate at which as many clients post Bindings to the
//     same API server with nothing else to do ("raw binds", measured first);
//   - cpu: processor time of the whole process for each pod bound. The part of
//     the API server for the binding alone is in the line of the raw binds;
//   - heap: what the scheduler keeps for each pod placed, without and with the
//     informers' decoded pods and nodes;
//   - events: Scheduled Events written when the last pod was bound, and a moment
//     after;
//   - violations: bindings that a replay in the order of the store finds against
//     the rules (resources, taints, affinities, ports, spreading);
//   - balance: standard deviation of the nodes' CPU utilisation, beside that of
//     an exhaustive scorer.
//
// No figure decides anything: the exit code is 0 whenever all was measured.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// options are the flags.
type options struct {
	shapes   string
	dir      string // for the stores
	nodes    int
	scale    float64
	clients  int // requests under way while creating, and for raw binds
	timeout  time.Duration
	profiles string
	json     string
	noRaw    bool
}

// result is a line of the table, for the file.
type result struct {
	Shape       string   `json:"shape"`
	Nodes       int      `json:"nodes"`
	Pods        int      `json:"pods"`
	Bound       int      `json:"bound"`
	PodsPerS    float64  `json:"podsPerSecond"`
	Floor       float64  `json:"floor,omitempty"`
	OfRaw       float64  `json:"ofRawBinds,omitempty"`
	SyncS       float64  `json:"syncSeconds"`
	CPUMicros   float64  `json:"cpuMicrosPerPod"`
	OwnBytes    float64  `json:"ownBytesPerPod"`
	AllBytes    float64  `json:"allBytesPerPod"`
	EventsThen  int64    `json:"eventsAtLastBinding"`
	Events      int64    `json:"events"`
	Violations  int      `json:"violations"`
	Balance     *float64 `json:"balance,omitempty"`
	BestBalance *float64 `json:"exhaustiveBalance,omitempty"`
}

func main() {
	klog.SetLogger(logr.Discard()) // client-go logs what it also returns
	o := options{}
	flag.StringVar(&o.shapes, "shape", "", "shapes to measure, separated by commas; all if empty")
	flag.StringVar(&o.dir, "dir", "", "folder for the stores; its disk is what etcd syncs to")
	flag.IntVar(&o.nodes, "nodes", 0, "nodes of shapes that have one kind of node, instead of upstream's number")
	flag.Float64Var(&o.scale, "scale", 1, "multiplies numbers of nodes and pods: below 1 to see that everything can be measured")
	flag.IntVar(&o.clients, "clients", 64, "requests under way at a time when objects are created and in the raw binds; the scheduler has 64 bindings under way")
	flag.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long pods of a shape may take to be bound; what was bound until then is reported")
	flag.StringVar(&o.profiles, "cpuprofile", "", "folder for profiles of each shape while it is measured: processor time and allocations")
	flag.StringVar(&o.json, "json", "", "also write the results to this file")
	flag.BoolVar(&o.noRaw, "no-raw", false, "leave out the raw binds")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-scheduler:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) error {
	list, err := chosen(o.shapes)
	if err != nil {
		return err
	}
	if o.scale <= 0 || o.clients < 1 {
		return errors.New("-scale and -clients must be above 0")
	}
	if o.profiles != "" {
		if err := os.MkdirAll(o.profiles, 0o755); err != nil {
			return err
		}
	}
	load := ""
	if data, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(data), &load) // empty when it cannot be read
	}
	fmt.Fprintf(out, "%d CPUs, load %s when the run began; API server and etcd (synced) in this process\n", runtime.NumCPU(), load)
	var raw ceiling
	if !o.noRaw {
		if raw, err = bindCeiling(ctx, o); err != nil {
			return fmt.Errorf("raw binds: %w", err)
		}
		fmt.Fprintf(out, "raw binds %.0f/s, %d us of CPU each; raw creates %.0f/s, %d us; %d at a time\n",
			raw.bind, raw.bindCPU.Microseconds(), raw.create, raw.createCPU.Microseconds(), o.clients)
	}
	var results []result
	for i := range list {
		sh := &list[i]
		f, err := measure(ctx, o, sh)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil { // the others can still be measured
			fmt.Fprintf(out, "%-26s not measured: %v\n", sh.name, err)
			continue
		}
		r := f.result(sh, raw)
		results = append(results, r)
		fmt.Fprintln(out, r.line(sh.live, raw))
	}
	summary(out, results)
	if o.json == "" {
		return nil
	}
	data, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.json, append(data, '\n'), 0o644)
}

func (f *figures) result(sh *shape, raw ceiling) result {
	r := result{Shape: sh.name, Nodes: f.nodes, Pods: f.wanted, Bound: f.bound, PodsPerS: f.rate, Floor: sh.floor, SyncS: f.synced.Seconds(),
		CPUMicros: float64(f.cpu.Microseconds()), OwnBytes: f.ownBytes, AllBytes: f.allBytes, EventsThen: f.eventsThen, Events: f.events, Violations: f.violations}
	if raw.bind > 0 {
		r.OfRaw = f.rate / raw.bind
	}
	if !math.IsNaN(f.spread) {
		r.Balance, r.BestBalance = &f.spread, &f.best
	}
	return r
}

// line is the shape's line of the table.
func (r result) line(live bool, raw ceiling) string {
	s := fmt.Sprintf("%-26s %6d nodes %6d pods %8.0f pods/s", r.Shape, r.Nodes, r.Pods, r.PodsPerS)
	if r.Bound < r.Pods {
		s += fmt.Sprintf("  (only %d bound)", r.Bound)
	}
	if r.Floor > 0 {
		s += fmt.Sprintf("  floor %4.0f x %5.1f", r.Floor, r.PodsPerS/r.Floor)
	} else {
		s += "  floor    -        "
	}
	if r.OfRaw > 0 {
		s += fmt.Sprintf("  %4.2f of raw", r.OfRaw)
	}
	s += fmt.Sprintf("  sync %.2f s  cpu %.0f us/pod  heap %.1f + %.1f KB/pod  events %d then %d  violations %d",
		r.SyncS, r.CPUMicros, r.OwnBytes/1e3, (r.AllBytes-r.OwnBytes)/1e3, r.EventsThen, r.Events, r.Violations)
	if r.Balance != nil {
		s += fmt.Sprintf("  balance %.3f %% (exhaustive %.3f %%)", *r.Balance, *r.BestBalance)
	}
	if cost := raw.createCPU + raw.bindCPU; live && cost > 0 {
		s += fmt.Sprintf("  (created meanwhile; create and bind alone cost %d us, %.0f/s on %d CPUs)", cost.Microseconds(), float64(runtime.NumCPU())/cost.Seconds(), runtime.NumCPU())
	}
	return s
}

// summary compares shapes with each other.
func summary(out io.Writer, all []result) {
	by := map[string]result{}
	slow, fast, dear, cheap, fat := -1, -1, -1, -1, -1
	for i, r := range all {
		by[r.Shape] = r
		if dear < 0 || r.CPUMicros > all[dear].CPUMicros {
			dear = i
		}
		if cheap < 0 || r.CPUMicros < all[cheap].CPUMicros {
			cheap = i
		}
		if fat < 0 || r.OwnBytes > all[fat].OwnBytes {
			fat = i
		}
		if slow < 0 || r.PodsPerS < all[slow].PodsPerS {
			slow = i
		}
		if fast < 0 || r.PodsPerS > all[fast].PodsPerS {
			fast = i
		}
	}
	if slow >= 0 && slow != fast {
		fmt.Fprintf(out, "flatness: %s at %.2f of %s\n", all[slow].Shape, all[slow].PodsPerS/all[fast].PodsPerS, all[fast].Shape)
		fmt.Fprintf(out, "flatness by CPU: %s at %.2f of %s\n", all[dear].Shape, all[cheap].CPUMicros/all[dear].CPUMicros, all[cheap].Shape)
		fmt.Fprintf(out, "memory: at most %.1f KB of the scheduler's own for each pod placed (%s)\n", all[fat].OwnBytes/1e3, all[fat].Shape)
	}
	ratio := func(what, a, b string) {
		if x, y := by[a], by[b]; x.PodsPerS > 0 && y.PodsPerS > 0 {
			fmt.Fprintf(out, "%s: %s takes %.2f times as long per pod as %s, %.2f times the CPU\n", what, a, y.PodsPerS/x.PodsPerS, b, x.CPUMicros/y.CPUMicros)
		}
	}
	ratio("growth", "basic-15k-nodes", "basic-1k-nodes")
	ratio("pods that fit nowhere", "unschedulable-queue", "basic")
	ratio("pods that fit nowhere, five a second", "unschedulable", "basic")
}
