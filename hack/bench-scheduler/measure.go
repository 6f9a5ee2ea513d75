package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"coracle/hack/lab"
)

// figures are what was measured of a shape.
type figures struct {
	nodes, wanted, bound int
	rate                 float64       // pods bound per second since the scheduler ran
	synced               time.Duration // before that: informers filled
	cpu                  time.Duration // of the process for each pod bound
	eventsThen, events   int64         // Scheduled Events when the last pod was bound, and in the end
	ownBytes, allBytes   float64       // of heap for each pod that was placed
	violations           int
	spread, best         float64 // of CPU utilisation, standard deviation in percent; best is an exhaustive scorer's
}

// ceiling is what the API server can do by itself, with the scheduler's client.
type ceiling struct {
	create, bind       float64 // per second
	createCPU, bindCPU time.Duration
}

// bindCeiling binds pods by posting Bindings, as many at a time as the scheduler.
func bindCeiling(ctx context.Context, o options) (c ceiling, err error) {
	s, err := newStage(ctx, o)
	if s != nil {
		defer func() { err = errors.Join(err, s.lab.Close()) }()
	}
	if err != nil {
		return c, err
	}
	if err := s.set(ctx, &shape{nodes: []nodes{{count: 5000, make: plainNode}}}); err != nil {
		return c, err
	}
	runtime.GC()
	begin, cpu := time.Now(), lab.CPU()
	n, err := s.create(ctx, "raw", pods{count: 10000, make: func() *corev1.Pod {
		p := pod()
		p.Spec.SchedulerName = "nobody"
		return p
	}}, nil)
	if err != nil {
		return c, err
	}
	c.create, c.createCPU = float64(n)/time.Since(begin).Seconds(), (lab.CPU()-cpu)/time.Duration(n)
	client, err := kubernetes.NewForConfig(s.lab.Config(schedulerUser, nil))
	if err != nil {
		return c, err
	}
	runtime.GC()
	begin, cpu = time.Now(), lab.CPU()
	err = s.each(ctx, n, func(ctx context.Context, i int) error {
		return client.CoreV1().Pods("default").Bind(ctx, &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("raw-%d", i)},
			Target:     corev1.ObjectReference{Kind: "Node", Name: s.nodeNames[i%len(s.nodeNames)]},
		}, metav1.CreateOptions{})
	})
	c.bind, c.bindCPU = float64(n)/time.Since(begin).Seconds(), (lab.CPU()-cpu)/time.Duration(n)
	return c, err
}

// measure runs one shape on a control plane of its own.
func measure(ctx context.Context, o options, sh *shape) (f figures, err error) {
	s, err := newStage(ctx, o)
	if s != nil {
		defer func() { err = errors.Join(err, s.lab.Close()) }()
	}
	if err != nil {
		return f, err
	}
	if err := s.set(ctx, sh); err != nil {
		return f, err
	}
	f.nodes = len(s.nodeNames)
	first, err := s.place(ctx, "first", sh.first)
	if err != nil {
		return f, err
	}
	for i, b := range sh.parked {
		if _, err := s.create(ctx, fmt.Sprintf("parked%d", i), b, nil); err != nil {
			return f, err
		}
	}
	if sh.refused {
		if err := s.refuse(ctx, sh); err != nil {
			return f, err
		}
	}
	f.wanted = s.scaled(sh.measured.count)
	eventsBefore, err := s.countEvents(ctx)
	if err != nil {
		return f, err
	}
	r, err := s.run(ctx, sh, &f)
	if err != nil {
		return f, err
	}
	if err := s.finish(ctx, sh, r, &f, first); err != nil {
		return f, err
	}
	f.events, f.eventsThen = f.events-eventsBefore, f.eventsThen-eventsBefore
	return f, nil
}

// run has the measured pods bound. The scheduler still runs when it returns.
func (s *stage) run(ctx context.Context, sh *shape, f *figures) (r *running, err error) {
	create := func() error {
		_, err := s.create(ctx, "measured", sh.measured, s.change)
		return err
	}
	if !sh.live {
		if err := create(); err != nil {
			return nil, err
		}
	}
	stopProfile := func() {}
	if r, err = s.start(ctx); err != nil {
		return nil, err
	}
	if s.profiles != "" {
		if stopProfile, err = profile(filepath.Join(s.profiles, sh.name)); err != nil {
			return r, err
		}
	}
	beside, stop := context.WithCancel(ctx)
	churned := make(chan error, 1)
	go func() { churned <- s.churn(beside, sh.beside) }()
	if sh.live {
		err = create()
	}
	s.await(ctx, "measured", f.wanted)
	stopProfile()
	cpu := lab.CPU() - r.cpu
	bound, last := s.bound.count("measured")
	stop()
	if err := errors.Join(err, <-churned); err != nil {
		return r, err
	}
	f.bound, f.synced = bound, r.synced
	if bound > 0 {
		f.rate, f.cpu = float64(bound)/last.Sub(r.began).Seconds(), cpu/time.Duration(bound)
	}
	f.eventsThen, err = s.countEvents(ctx)
	return r, err
}

func (s *stage) churn(ctx context.Context, c *churn) error {
	if c == nil {
		return nil
	}
	for i := 0; ; i++ {
		if err := c.do(ctx, s, i); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("beside the measurement: %w", err)
		}
		if lab.Rest(ctx, c.every); ctx.Err() != nil {
			return nil
		}
	}
}

// finish looks at what is left: Events, memory, and whether all is right.
func (s *stage) finish(ctx context.Context, sh *shape, r *running, f *figures, first int) error {
	for quiet := 0; quiet < 10 && ctx.Err() == nil; {
		n, err := s.countEvents(ctx)
		if err != nil {
			return err
		}
		if quiet++; n != f.events {
			quiet = 0
		}
		f.events = n
		lab.Rest(ctx, 100*time.Millisecond)
	}
	with := liveHeap()
	if err := r.stop(); err != nil {
		return err
	}
	r.factory = nil
	without := liveHeap()
	cached, err := s.cacheBytes(ctx)
	if err != nil {
		return err
	}
	if placed := float64(first + f.bound); placed > 0 {
		f.allBytes = (with - without) / placed
		f.ownBytes = (with - without - cached) / placed
	}
	list, err := s.admin.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	nodes, err := s.admin.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	namespaces, err := s.admin.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	against := replay(nodes.Items, namespaces.Items, list.Items, s.bound.at)
	f.violations = len(against)
	for _, why := range against[:min(3, len(against))] {
		fmt.Fprintln(os.Stderr, "against the rules:", why)
	}
	f.spread, f.best = math.NaN(), math.NaN()
	if sh.even {
		f.spread, f.best = balance(nodes.Items, list.Items)
	}
	return nil
}

// liveHeap is what lives, in bytes.
func liveHeap() float64 {
	runtime.GC()
	runtime.GC() // what the first one found to finalize
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// cacheBytes is what informers of pods and nodes alone take: the scheduler's own
// structures are the rest.
func (s *stage) cacheBytes(ctx context.Context) (float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	before := liveHeap()
	r, err := s.bareInformers(ctx)
	if err != nil {
		return 0, err
	}
	after := liveHeap()
	cancel()
	r.Shutdown()
	return after - before, nil
}

// countEvents is how many Events there are.
func (s *stage) countEvents(ctx context.Context) (int64, error) {
	list, err := s.admin.CoreV1().Events("").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return 0, err
	}
	n := int64(len(list.Items))
	if list.RemainingItemCount != nil {
		n += *list.RemainingItemCount
	}
	return n, nil
}

// profile writes NAME.cpu, and what had been allocated before and after to
// NAME.before and NAME.after (go tool pprof -sample_index=alloc_space -base).
func profile(name string) (stop func(), err error) {
	if err := allocations(name + ".before"); err != nil {
		return nil, err
	}
	out, err := os.Create(name + ".cpu")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		// A profile that cannot be written is seen to be missing.
		_ = out.Close()
		_ = allocations(name + ".after")
	}, nil
}

func allocations(file string) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("allocs").WriteTo(out, 0), out.Close())
}
