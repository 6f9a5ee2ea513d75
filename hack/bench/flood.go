package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// floodWorkers send one after another without a pause, whatever they are
	// answered, over floodConns connections of one user.
	floodWorkers = 400
	floodConns   = 8
	// quietRate is how many requests in a second each of the others sends, due at
	// even times whether or not those before were answered.
	quietRate = 20
	// floodGoal is what the 99th of a hundred of their requests may take, in
	// milliseconds.
	floodGoal = 1000
)

// quiet is a client that must not notice the flood.
type quiet struct {
	name string
	user tls.Certificate
	make func(i int) *request
}

// quietClients are another user, a node that renews its lease, and the
// controllers.
func (l *lab) quietClients(k *kind) []quiet {
	work := k.of()
	lease := "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/" + floodNode
	return []quiet{
		{"another client's gets and patches", l.id.other, func(i int) *request {
			if i%2 == 0 {
				return work.get(member(i % l.objects))
			}
			return work.patch(member(i%l.objects), i)
		}},
		{"a node's renewals of its lease", l.id.node, func(i int) *request {
			return &request{method: "PATCH", path: lease, contentType: mergeType, accept: jsonType, body: fmt.Appendf(nil, `{"spec":{"leaseDurationSeconds":%d}}`, 40+i%2)}
		}},
		{"the controllers' gets", l.id.manager, func(int) *request {
			return &request{method: "GET", path: "/api/v1/namespaces/default", accept: jsonType}
		}},
	}
}

// flood measures how long others wait while one client sends all that it can.
func (l *lab) flood(ctx context.Context, r *report) error {
	k := configMaps()
	fmt.Fprintln(l.log, "flood: starting the server")
	ln, err := l.oursWith(ctx, laneOurs, k)
	if err != nil {
		return err
	}
	if err := ln.connect(l.id, connections); err != nil {
		return err
	}
	if err := l.ready(ctx, ln, "/api/v1/namespaces/default", roleForOther(), &request{
		method: "POST", path: "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", contentType: jsonType, accept: jsonType,
		body: []byte(`{"metadata":{"name":"` + floodNode + `"},"spec":{"holderIdentity":"` + floodNode + `","leaseDurationSeconds":40}}`),
	}); err != nil {
		return err
	}
	if err := l.prepare(ctx, ln, 1400, l.objects); err != nil {
		return err
	}
	s := section{Title: fmt.Sprintf("A flood: one client with %d requests at once, all the time; p99 of others, at %d/s each", floodWorkers, quietRate)}
	for _, f := range []struct {
		name string
		make func(i int) *request
	}{
		{"no flood", nil},
		{fmt.Sprintf("lists of %d objects", l.objects), func(int) *request { return ln.work.list(jsonType) }},
		{"creates", func(i int) *request { return ln.work.create(fmt.Sprintf("flood-%09d", i)) }},
	} {
		fmt.Fprintf(l.log, "  %s\n", f.name)
		if err := l.underFlood(ctx, ln, f.name, f.make, &s); err != nil {
			return err
		}
	}
	r.Sections = append(r.Sections, s)
	return l.stopAll()
}

// underFlood measures the quiet clients while one flood lasts.
func (l *lab) underFlood(ctx context.Context, ln *lane, name string, flooding func(i int) *request, s *section) error {
	flooded, stop := context.WithCancel(ctx)
	defer stop()
	answered, refused, ended := &atomic.Int64{}, &atomic.Int64{}, func() error { return nil }
	if flooding != nil {
		var err error
		if ended, err = l.sendFlood(flooded, ln, flooding, answered, refused); err != nil {
			return err
		}
		if err := rest(ctx, settle); err != nil { // until the queues are full
			return err
		}
	}
	clients := l.quietClients(ln.kind)
	took, failures := make([][]time.Duration, len(clients)), make([]int, len(clients))
	errs := make([]error, len(clients)+1)
	began := time.Now()
	before := answered.Load()
	var wg sync.WaitGroup
	for i, q := range clients {
		wg.Go(func() { took[i], failures[i], errs[i] = l.sendQuiet(ctx, ln, q) })
	}
	wg.Wait()
	rate := float64(answered.Load()-before) / time.Since(began).Seconds()
	stop()
	errs[len(clients)] = ended()
	for i, q := range clients {
		s.Lines = append(s.Lines, line{Name: name + ": " + q.name, Unit: "ms", AtMost: floodGoal, Values: map[string]float64{laneOurs: percentile99(took[i])}})
		if failures[i] > 0 {
			s.Notes = append(s.Notes, fmt.Sprintf("%s: %s: %d of %d were refused", name, q.name, failures[i], len(took[i])+failures[i]))
		}
	}
	if flooding != nil {
		s.Notes = append(s.Notes, fmt.Sprintf("%s: of the flood %s/s were served, and %d requests refused", name, figure(rate), refused.Load()))
	}
	return errors.Join(errs...)
}

// sendFlood sends until ctx ends; the function returned waits for that.
func (l *lab) sendFlood(ctx context.Context, ln *lane, flooding func(i int) *request, answered, refused *atomic.Int64) (func() error, error) {
	var conns []*conn
	for range floodConns {
		c, err := dial(ln.prog.address, l.id.client(l.id.bench))
		if err != nil {
			return nil, err
		}
		conns = append(conns, c)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	failed := make(chan error, floodWorkers)
	for w := range floodWorkers {
		wg.Go(func() {
			for ctx.Err() == nil {
				a, err := conns[w%floodConns].do(flooding(int(next.Add(1))), false)
				switch {
				case ctx.Err() != nil:
					return
				case err != nil:
					failed <- fmt.Errorf("the flood: %w", err)
					return
				case a.status < 300:
					answered.Add(1)
				case a.status == 429:
					refused.Add(1)
				default:
					failed <- fmt.Errorf("the flood is answered %d", a.status)
					return
				}
			}
		})
	}
	return func() error {
		for _, c := range conns {
			c.close()
		}
		wg.Wait()
		close(failed)
		return <-failed // nil when nothing has failed
	}, nil
}

// sendQuiet sends a client's requests, each at its time, and returns how long
// those took that were served, and how many were refused.
func (l *lab) sendQuiet(ctx context.Context, ln *lane, q quiet) (took []time.Duration, refused int, err error) {
	c, err := dial(ln.prog.address, l.id.client(q.user))
	if err != nil {
		return nil, 0, err
	}
	defer c.close()
	var mu sync.Mutex // guards the results
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Second / quietRate)
	defer tick.Stop()
	for i := range l.pacedEvents {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
		wg.Go(func() {
			began := time.Now()
			a, e := c.do(q.make(i), false)
			d := time.Since(began)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case e != nil:
				err = errors.Join(err, fmt.Errorf("%s: %w", q.name, e))
			case a.status == 429:
				refused++
			case a.status > 299:
				err = errors.Join(err, fmt.Errorf("%s are answered %d", q.name, a.status))
			default:
				took = append(took, d)
			}
		})
	}
	wg.Wait()
	return took, refused, err
}

// percentile99 is in milliseconds; 0 of none.
func percentile99(took []time.Duration) float64 {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[(len(took)*99+99)/100-1].Seconds() * 1000
}
