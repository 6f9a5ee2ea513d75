package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// connections and workers are those of the load.
	connections = 4
	workers     = 32
)

func now() time.Time { return time.Now() }

// pause lets a program go on that does not answer yet.
func pause() { time.Sleep(time.Millisecond) }

// crud measures one round of requests on every lane in turn.
func (p *phase) crud(ctx context.Context, round int) error {
	o := &p.options
	member := func(i int) string { return member(i % o.objects) }
	steps := []struct {
		row  string
		also string // another row that needs this one's effect
		ops  int
		by   int
		make func(w *workload, i int) *request
	}{
		{rowCreate, rowDelete, o.ops, workers, func(w *workload, i int) *request { return w.create(passing(round, i)) }},
		{rowGet, "", 4 * o.ops, workers, func(w *workload, i int) *request { return w.get(member(i)) }},
		{rowPatch, "", o.ops, workers, func(w *workload, i int) *request { p.patched++; return w.patch(member(i), p.patched) }},
		{rowDelete, rowCreate, o.ops, workers, func(w *workload, i int) *request { return w.remove(passing(round, i)) }},
		{rowList, "", o.lists, 1, func(w *workload, _ int) *request { return w.list(jsonType) }},
		{rowListProto, "", o.lists, 1, func(w *workload, _ int) *request { return w.list(protoType) }},
	}
	for _, step := range steps {
		if !p.wants(step.row, step.also, rowMemory) { // memory is looked at after all of them
			continue
		}
		for _, ln := range p.lanes {
			if step.row == rowListProto && ln.kind.path == widgets().path {
				continue // custom resources have no protobuf; the floor's kind is ours
			}
			s, err := p.profiled(ln, step.row, func() (sample, error) {
				return ln.run(ctx, step.ops, step.by, func(i int) *request { return step.make(ln.work, i) })
			})
			if err != nil {
				return fmt.Errorf("%s: %w", step.row, err)
			}
			p.add(step.row, ln.name, s)
			if ln.name == laneOurs {
				ln.sizes[step.row] = int(s.bytes) / s.ops
				p.tellFloor(ln)
			}
		}
		if step.row == rowCreate {
			if err := p.ceiling(ctx, round); err != nil {
				return err
			}
		}
	}
	return nil
}

// tellFloor lets the floor answer as many bytes as the project's server did.
func (p *phase) tellFloor(ours *lane) {
	for _, ln := range p.lanes {
		if ln.name == laneFloor {
			ln.work = ours.kind.canned(ours.sizes)
		}
	}
}

// ceiling measures the transactions of the creates without a server.
func (p *phase) ceiling(ctx context.Context, round int) error {
	if p.bare == nil {
		return nil
	}
	client, err := p.bare.etcdClient()
	if err != nil {
		return err
	}
	defer client.Close()
	took, err := transactions(ctx, client, fmt.Sprintf("/bench/%d/", round), p.ops, workers, p.stored)
	if err == nil {
		p.figure(rowCreate, "etcd", float64(p.ops)/took.Seconds())
	}
	return err
}

// profiled measures, and writes a CPU profile of the project's server when
// that was asked for.
func (p *phase) profiled(ln *lane, row string, measure func() (sample, error)) (sample, error) {
	if p.profiles == "" || ln.name != laneOurs && ln.name != laneBare {
		return measure()
	}
	admin, err := dial(ln.prog.address, p.id.client(p.id.admin))
	if err != nil {
		return sample{}, err
	}
	defer admin.close()
	type result struct {
		answer
		err error
	}
	got := make(chan result, 1)
	go func() {
		a, err := admin.do(&request{method: "GET", path: fmt.Sprintf("/debug/pprof/profile?seconds=%d", p.profileSeconds)}, true)
		got <- result{a, err}
	}()
	s, err := measure()
	r := <-got
	if err = errors.Join(err, r.err); err != nil {
		return s, err
	}
	if r.status != 200 {
		return s, fmt.Errorf("the profile was answered %d: %.300s", r.status, r.body)
	}
	phase := p.title[:1]
	if p.all {
		phase = strings.ReplaceAll(p.title, ", ", "-") + "-" + ln.name
	}
	file := filepath.Join(p.profiles, phase+"-"+row+".pprof")
	return s, os.WriteFile(file, r.body, 0o644)
}
