package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The columns of the table.
const (
	laneOurs      = "ours"
	laneEmbedded  = "embedded"
	laneReference = "reference"
	laneFloor     = "floor"
)

// lane is one server under load.
type lane struct {
	name  string
	prog  *program
	etcd  *program // nil for embedded etcd and the floor
	conns []*conn  // that the load goes over
	kind  *kind
	work  *workload
	sizes sizes // of its answers, by row
	id    *identities
	used  time.Time // when the connections were last taken up
}

// idleAfter is when a lane's connections are replaced before they are used: a
// server closes those that were quiet for long, while others had their turn.
const idleAfter = 20 * time.Second

// sample is one measurement of one row on one lane.
type sample struct {
	ops    int
	wall   time.Duration
	cpu    time.Duration // of the server alone
	etcd   time.Duration // of its etcd, when that is a process of its own
	client time.Duration // of this process
	bytes  int64         // of all answers
}

// perOp is the server's CPU time for one operation, in microseconds.
func (s sample) perOp() float64 { return float64(s.cpu.Nanoseconds()) / 1000 / float64(s.ops) }

// rate is operations in a second.
func (s sample) rate() float64 { return float64(s.ops) / s.wall.Seconds() }

// full is the rate at which a machine with so many cores would be full: what
// the load program leaves of them, over what the server and its etcd need.
func (s sample) full(cores int) float64 {
	left := float64(cores)*s.wall.Seconds() - s.client.Seconds()
	return left / (s.cpu + s.etcd).Seconds() * s.rate()
}

// meter takes the CPU times at the beginning of a measurement.
type meter struct {
	lane              *lane
	began             time.Time
	cpu, etcd, client time.Duration
}

func ownCPU() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

func (l *lane) begin() (m meter, err error) {
	m = meter{lane: l}
	if m.cpu, err = cpuOf(l.prog.pid()); err != nil {
		return m, l.prog.died()
	}
	if l.etcd != nil {
		if m.etcd, err = cpuOf(l.etcd.pid()); err != nil {
			return m, l.etcd.died()
		}
	}
	m.client, err = ownCPU()
	m.began = time.Now()
	return m, err
}

// end returns what ops operations took since begin.
func (m meter) end(ops int) (sample, error) {
	wall := time.Since(m.began)
	after, err := m.lane.begin()
	return sample{ops: ops, wall: wall, cpu: after.cpu - m.cpu, etcd: after.etcd - m.etcd, client: after.client - m.client}, err
}

// connect opens the lane's connections as user bench.
func (l *lane) connect(id *identities, n int) error {
	l.id, l.used = id, time.Now()
	for range n {
		c, err := dial(l.prog.address, id.client(id.bench))
		if err != nil {
			return fmt.Errorf("connect to %s: %w", l.name, err)
		}
		l.conns = append(l.conns, c)
	}
	return nil
}

// awake replaces connections that may have been closed for being idle.
func (l *lane) awake() error {
	if time.Since(l.used) < idleAfter {
		l.used = time.Now()
		return nil
	}
	n := len(l.conns)
	for _, c := range l.conns {
		c.close()
	}
	l.conns = nil
	return l.connect(l.id, n)
}

// run sends requests from so many workers, spread over the lane's connections,
// and measures. make makes the i-th request before the measurement begins.
// Each is answered with a status below 300, or the run ends.
func (l *lane) run(ctx context.Context, ops, workers int, make_ func(i int) *request) (sample, error) {
	requests := make([]*request, ops)
	for i := range requests {
		requests[i] = make_(i)
	}
	if err := l.awake(); err != nil {
		return sample{}, err
	}
	m, err := l.begin()
	if err != nil {
		return sample{}, err
	}
	var next, bytes atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for w := range workers {
		c := l.conns[w%len(l.conns)]
		wg.Go(func() {
			for ctx.Err() == nil && failed.Load() == nil {
				i := int(next.Add(1)) - 1
				if i >= ops {
					return
				}
				a, err := l.call(c, requests[i])
				if err != nil {
					failed.Store(&err)
					return
				}
				bytes.Add(a.bytes)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return sample{}, *err
	}
	if err := ctx.Err(); err != nil {
		return sample{}, err
	}
	s, err := m.end(ops)
	s.bytes = bytes.Load()
	return s, err
}

// call sends one request, which must be answered with a status below 300.
func (l *lane) call(c *conn, r *request) (answer, error) {
	a, err := c.do(r, false)
	if err == nil && (a.status < 200 || a.status > 299) {
		again, _ := c.do(r, true) // for what it says
		err = fmt.Errorf("it answered %d; asked again, %d %.300s", a.status, again.status, again.body)
	}
	if err != nil {
		return a, fmt.Errorf("%s: %s %s: %w", l.name, r.method, r.path, err)
	}
	return a, nil
}

// populate creates n objects that are not measured.
func (l *lane) populate(ctx context.Context, n, workers int) error {
	if l.name == laneFloor {
		return nil
	}
	_, err := l.run(ctx, n, workers, func(i int) *request { return l.work.create(member(i)) })
	return err
}

// member is the name of an object that is there for the whole phase.
func member(i int) string { return fmt.Sprintf("object-%06d", i) }

// passing is the name of an object that a round creates and deletes.
func passing(round, i int) string { return fmt.Sprintf("passing-%03d-%06d", round, i) }
