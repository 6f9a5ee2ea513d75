package main

import (
	"context"
	"fmt"
	"time"
)

// starts measures from the start of each program to its first answer.
func (l *lab) starts(ctx context.Context) (*phase, error) {
	p := &phase{lab: l, title: "Start to the first answer", samples: map[string]map[string][]sample{}, figures: map[string]map[string][]float64{}}
	for round := range max(3, l.rounds) {
		fmt.Fprintf(l.log, "%s: round %d\n", p.title, round+1)
		for _, one := range []struct {
			row, lane, path string
			start           func(dir string, etcd *program) (*program, error)
		}{
			{rowStart, laneOurs, "/api/v1/namespaces/default", func(_ string, etcd *program) (*program, error) { return l.ours(etcd) }},
			{rowStart, laneReference, crdPath, func(_ string, etcd *program) (*program, error) { return l.reference(etcd) }},
			{rowStart, laneEmbedded, "/api/v1/namespaces/default", func(dir string, _ *program) (*program, error) { return l.embedded(dir) }},
		} {
			if one.lane == laneReference && l.noReference || one.lane == laneEmbedded && l.noEmbedded {
				continue
			}
			first, again, err := l.twoStarts(ctx, one.lane != laneEmbedded, one.path, one.start)
			if err != nil {
				return nil, err
			}
			p.figure(rowStart, one.lane, first)
			p.figure("start-again", one.lane, again)
		}
	}
	return p, nil
}

// twoStarts starts a server with an empty store and then once more with what
// the first left, and returns how many milliseconds each took.
func (l *lab) twoStarts(ctx context.Context, external bool, path string, start func(dir string, etcd *program) (*program, error)) (first, again float64, err error) {
	dir, err := l.folder("data")
	if err != nil {
		return 0, 0, err
	}
	var etcd *program
	if external {
		if etcd, err = l.etcd(ctx); err != nil {
			return 0, 0, err
		}
	}
	took := [2]float64{}
	for i := range took {
		began := time.Now()
		prog, err := start(dir, etcd)
		if err != nil {
			return 0, 0, err
		}
		d, err := l.answers(ctx, prog, &request{method: "GET", path: path, accept: jsonType}, began)
		if err != nil {
			return 0, 0, err
		}
		took[i] = d.Seconds() * 1000
		if err := l.stop(prog); err != nil {
			return 0, 0, err
		}
	}
	if etcd != nil {
		err = l.stop(etcd)
	}
	return took[0], took[1], err
}
