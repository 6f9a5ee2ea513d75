package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	watchers     = 200
	watchConns   = 4
	watchWriters = 16
	pacedRate    = 50 // events in a second
	// stuckAfter is how many events are sent so that a client that reads
	// nothing has no room left: its window is 64 KiB.
	stuckAfter = 100
)

// errLost says that a server has ended a watch of a client that reads.
var errLost = errors.New("the server ended a watch")

// audience is a set of open watches of one lane.
type audience struct {
	conns     []*conn
	request   *request     // of each watch
	got       atomic.Int64 // events that arrived at all of them
	target    atomic.Int64
	complete  chan struct{} // gets a value when got reaches target
	lost      chan struct{} // gets a value when a watch ends
	mu        sync.Mutex
	recording bool
	arrivals  [][]time.Time // by watcher, while recording; guarded by mu
}

// watch opens watches from now on.
func (l *lane) watch(id *identities, n int) (*audience, error) {
	a := &audience{complete: make(chan struct{}, 1), lost: make(chan struct{}, n), arrivals: make([][]time.Time, n)}
	r, err := l.watchFromNow()
	if err != nil {
		return nil, err
	}
	a.request = r
	for range watchConns {
		c, err := dial(l.prog.address, id.client(id.bench))
		if err != nil {
			return nil, err
		}
		a.conns = append(a.conns, c)
	}
	for i := range n {
		s := &stream{data: func(b []byte) { a.arrived(i, b) }}
		if err := a.conns[i%watchConns].open(r, s); err != nil {
			a.close()
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
		go func() {
			<-s.done // at the latest when the audience is closed
			a.lost <- struct{}{}
		}()
	}
	return a, nil
}

// watchFromNow is the request of a watch that begins after all that has
// happened.
func (l *lane) watchFromNow() (*request, error) {
	if l.name == laneFloor {
		return l.work.watch(""), nil
	}
	if err := l.awake(); err != nil {
		return nil, err
	}
	a, err := l.conns[0].do(l.work.patch(member(0), 0), true)
	if err != nil {
		return nil, err
	}
	version, err := versionOf(a.body)
	return l.work.watch(version), err
}

// arrived counts the events in b; each ends with a newline.
func (a *audience) arrived(watcher int, b []byte) {
	n := bytes.Count(b, []byte("\n"))
	if n == 0 {
		return
	}
	a.mu.Lock()
	if a.recording {
		at := time.Now()
		for range n {
			a.arrivals[watcher] = append(a.arrivals[watcher], at)
		}
	}
	a.mu.Unlock()
	if a.got.Add(int64(n)) == a.target.Load() {
		a.complete <- struct{}{}
	}
}

// expect prepares for n more events at each watcher.
func (a *audience) expect(n int, record bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.recording = record
	for i := range a.arrivals {
		a.arrivals[i] = nil
	}
	a.got.Store(0)
	a.target.Store(int64(n * len(a.arrivals)))
}

// wait blocks until all that is expected has come.
func (a *audience) wait(ctx context.Context) error {
	select {
	case <-a.complete:
		return nil
	case <-a.lost:
		return errLost
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(answerTimeout):
		return fmt.Errorf("of %d watch events %d came", a.target.Load(), a.got.Load())
	}
}

func (a *audience) close() {
	for _, c := range a.conns {
		c.close()
	}
}

// fanOut measures the watch rows of one round on every lane in turn.
func (p *phase) fanOut(ctx context.Context) error {
	if !p.wants(rowWatch, rowWatchPaced, rowDeadWatcher) {
		return nil
	}
	// The floor sends events as large as ours are.
	for _, ln := range p.lanes {
		if ln.name == laneOurs {
			s, err := ln.run(ctx, watchWriters, watchWriters, p.patches(ln))
			if err != nil {
				return err
			}
			ln.sizes[rowPatch] = int(s.bytes)/s.ops + len(`{"type":"MODIFIED","object":}`)
			p.tellFloor(ln)
		}
	}
	for _, measure := range []func(context.Context, *lane) error{p.burst, p.pacedRows} {
		for _, ln := range p.lanes {
			err := measure(ctx, ln)
			if errors.Is(err, errLost) && ln.name == laneReference {
				// It does that to clients that it finds too slow; the round then
				// has no figure of it.
				fmt.Fprintln(p.log, "  the reference ended watches of clients that read")
				continue
			}
			if err != nil {
				return fmt.Errorf("%s: %s: %w", rowWatch, ln.name, err)
			}
		}
	}
	return nil
}

// patches are ones that change something: a patch that leaves its object as it
// is makes no event.
func (p *phase) patches(ln *lane) func(i int) *request {
	return func(i int) *request {
		p.patched++
		return ln.work.patch(member(i%p.objects), p.patched)
	}
}

// burst is many patches at once. What the same patches cost without anybody
// watching is taken off.
func (p *phase) burst(ctx context.Context, ln *lane) error {
	if !p.wants(rowWatch) {
		return nil
	}
	alone, err := ln.run(ctx, p.events, watchWriters, p.patches(ln))
	if err != nil {
		return err
	}
	a, err := ln.watch(p.id, watchers)
	if err != nil {
		return err
	}
	defer a.close()
	s, err := p.profiled(ln, rowWatch, func() (sample, error) {
		a.expect(p.events, false)
		m, err := ln.begin()
		if err != nil {
			return sample{}, err
		}
		if _, err := ln.run(ctx, p.events, watchWriters, p.patches(ln)); err != nil {
			return sample{}, err
		}
		if err := a.wait(ctx); err != nil {
			return sample{}, err
		}
		return m.end(p.events * watchers)
	})
	if err != nil {
		return err
	}
	p.figure(rowWatch, ln.name, s.perOp()) // patches and all
	s.cpu -= alone.cpu
	p.add(rowWatch, ln.name, s)
	return nil
}

// pacedRows are patches at an even rate: without watchers, with them, and
// with one more that has stopped reading.
func (p *phase) pacedRows(ctx context.Context, ln *lane) error {
	if !p.wants(rowWatchPaced, rowDeadWatcher) {
		return nil
	}
	m, err := ln.begin()
	if err != nil {
		return err
	}
	if _, err := p.paced(ctx, ln, p.pacedEvents); err != nil {
		return err
	}
	alone, err := m.end(p.pacedEvents)
	if err != nil {
		return err
	}
	a, err := ln.watch(p.id, watchers)
	if err != nil {
		return err
	}
	defer a.close()
	var early float64
	healthy, err := p.profiled(ln, rowWatchPaced, func() (sample, error) {
		s, late, err := p.pacedWatch(ctx, ln, a)
		early = late
		return s, err
	})
	if err != nil {
		return err
	}
	healthy.cpu -= alone.cpu
	p.add(rowWatchPaced, ln.name, healthy)
	p.figure(rowWatchPaced, ln.name, early)
	if !p.wants(rowDeadWatcher) {
		return nil
	}
	dead, err := a.deadWatcher(ln.prog.address, p.id)
	if err != nil {
		return err
	}
	defer dead.close()
	a.expect(stuckAfter, false)
	if _, err := p.paced(ctx, ln, stuckAfter); err != nil {
		return err
	}
	if err := a.wait(ctx); err != nil {
		return err
	}
	_, late, err := p.pacedWatch(ctx, ln, a)
	if err == nil {
		p.figure(rowDeadWatcher, ln.name, late-early)
	}
	return err
}

// deadWatcher opens one more watch, on a connection of its own, and never gives
// the server room for more than the first 64 KiB.
func (a *audience) deadWatcher(address string, id *identities) (*conn, error) {
	c, err := dialWindow(address, id.client(id.bench), firstWindow)
	if err != nil {
		return nil, err
	}
	return c, c.open(a.request, &stream{dead: true})
}

// paced sends patches at an even rate and returns when each was answered.
func (p *phase) paced(ctx context.Context, ln *lane, n int) ([]time.Time, error) {
	if err := ln.awake(); err != nil {
		return nil, err
	}
	patch := p.patches(ln)
	answered := make([]time.Time, n)
	tick := time.NewTicker(time.Second / pacedRate)
	defer tick.Stop()
	for i := range answered {
		r := patch(i)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if _, err := ln.call(ln.conns[0], r); err != nil {
			return nil, err
		}
		answered[i] = time.Now()
	}
	return answered, nil
}

// pacedWatch measures paced patches with an audience. late is the 99th
// percentile, in milliseconds, of how long after the event was out (its writer
// had the answer, or the first watcher the event) a watcher had it.
func (p *phase) pacedWatch(ctx context.Context, ln *lane, a *audience) (s sample, late float64, err error) {
	a.expect(p.pacedEvents, true)
	m, err := ln.begin()
	if err != nil {
		return s, 0, err
	}
	out, err := p.paced(ctx, ln, p.pacedEvents)
	if err != nil {
		return s, 0, err
	}
	if err := a.wait(ctx); err != nil {
		return s, 0, err
	}
	if s, err = m.end(p.pacedEvents * watchers); err != nil {
		return s, 0, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return s, lateness(out, a.arrivals), nil
}

// lateness is the 99th percentile in milliseconds of arrivals[w][i] after
// event i was out.
func lateness(out []time.Time, arrivals [][]time.Time) float64 {
	var all []float64
	for i, at := range out {
		for _, w := range arrivals {
			if w[i].Before(at) {
				at = w[i]
			}
		}
		for _, w := range arrivals {
			all = append(all, w[i].Sub(at).Seconds()*1000)
		}
	}
	slices.Sort(all)
	if len(all) == 0 {
		return 0
	}
	return all[(len(all)*99+99)/100-1]
}
