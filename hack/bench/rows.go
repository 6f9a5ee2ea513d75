package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// The rows' names, which -only takes.
const (
	rowCreate      = "create"
	rowGet         = "get"
	rowList        = "list"
	rowListProto   = "list-protobuf"
	rowPatch       = "patch"
	rowDelete      = "delete"
	rowWatch       = "watch"
	rowWatchPaced  = "watch-paced"
	rowDeadWatcher = "dead-watcher"
	rowMemory      = "memory"
	rowBigLists    = "ten-lists"
	rowStart       = "start"
	rowSafety      = "safety"
	rowFlood       = "flood"
)

func rowNames() []string {
	return []string{rowCreate, rowGet, rowList, rowListProto, rowPatch, rowDelete, rowWatch, rowWatchPaced,
		rowDeadWatcher, rowMemory, rowBigLists, rowStart, rowSafety, rowFlood}
}

// wants says whether any of the rows is asked for.
func (o *options) wants(rows ...string) bool {
	return o.only == "" || slices.Contains(rows, o.only)
}

// phase is a set of servers with one kind of object, and what was measured
// on them.
type phase struct {
	*lab
	title string
	lanes []*lane
	bare  *program // an etcd for transactions without a server; nil where they are not measured
	all   bool     // its rows are measured whatever -only says
	// patched counts the patches, so that none repeats another.
	patched int
	// samples are the measurements, by row and lane, one of each round.
	samples map[string]map[string][]sample
	// figures are further ones in the row's unit, by row and lane.
	figures map[string]map[string][]float64
}

// wants says whether any of the rows is asked for of this phase.
func (p *phase) wants(rows ...string) bool { return p.all || p.lab.wants(rows...) }

func (p *phase) add(row, lane string, s sample) {
	if p.samples[row] == nil {
		p.samples[row] = map[string][]sample{}
	}
	p.samples[row][lane] = append(p.samples[row][lane], s)
}

func (p *phase) figure(row, lane string, v float64) {
	if p.figures[row] == nil {
		p.figures[row] = map[string][]float64{}
	}
	p.figures[row][lane] = append(p.figures[row][lane], v)
}

// newPhase starts the servers, each with an etcd of its own, and fills them
// with count objects of stored bytes each.
func (l *lab) newPhase(ctx context.Context, title string, ours *kind, stored, count int) (*phase, error) {
	p := &phase{lab: l, title: title, samples: map[string]map[string][]sample{}, figures: map[string]map[string][]float64{}}
	fmt.Fprintf(l.log, "%s: starting the servers\n", title)
	for _, begin := range []func(context.Context, *kind) (*lane, error){l.oursLane, l.embeddedLane, l.referenceLane, l.floorLane} {
		ln, err := begin(ctx, ours)
		if err != nil {
			return nil, err
		}
		if ln == nil {
			continue
		}
		if err := ln.connect(l.id, connections); err != nil {
			return nil, err
		}
		if err := l.prepare(ctx, ln, stored, count); err != nil {
			return nil, err
		}
		p.lanes = append(p.lanes, ln)
	}
	var err error
	p.bare, err = l.etcd(ctx)
	return p, err
}

// prepare makes the lane's objects as large as they shall be and fills the
// server.
func (l *lab) prepare(ctx context.Context, ln *lane, stored, count int) error {
	switch {
	case ln.name == laneFloor:
		return nil
	case ln.etcd != nil:
		if err := l.calibrate(ctx, ln, stored); err != nil {
			return err
		}
	}
	fmt.Fprintf(l.log, "  %s: %d %s\n", ln.name, count, ln.kind.name)
	return ln.populate(ctx, count, workers)
}

// calibrate finds how much filler makes an object as large, as stored, as it
// shall be.
func (l *lab) calibrate(ctx context.Context, ln *lane, stored int) error {
	for range 3 {
		if _, err := ln.call(ln.conns[0], ln.work.create("calibrate")); err != nil {
			return err
		}
		size, err := ln.etcd.storedSize(ctx, "/calibrate")
		if err != nil {
			return err
		}
		if _, err := ln.call(ln.conns[0], ln.work.remove("calibrate")); err != nil {
			return err
		}
		if size == stored {
			return nil
		}
		if ln.kind.fill = ln.kind.fill + stored - size; ln.kind.fill < 0 {
			return fmt.Errorf("%s have %d bytes by themselves: %d are not enough", ln.kind.name, size, stored)
		}
	}
	return nil
}

// oursLane starts the project's server over an etcd of its own.
func (l *lab) oursLane(ctx context.Context, k *kind) (*lane, error) {
	return l.oursWith(ctx, laneOurs, k)
}

// oursWith is oursLane with further flags, under another name.
func (l *lab) oursWith(ctx context.Context, name string, k *kind, args ...string) (*lane, error) {
	etcd, err := l.etcd(ctx)
	if err != nil {
		return nil, err
	}
	prog, err := l.ours(etcd, args...)
	if err != nil {
		return nil, err
	}
	ln := &lane{name: name, prog: prog, etcd: etcd, kind: k, sizes: sizes{}}
	return ln, l.admit(ctx, ln)
}

func (l *lab) embeddedLane(ctx context.Context, k *kind) (*lane, error) {
	if l.noEmbedded {
		return nil, nil
	}
	dir, err := l.folder("data")
	if err != nil {
		return nil, err
	}
	prog, err := l.embedded(dir)
	if err != nil {
		return nil, err
	}
	ln := &lane{name: laneEmbedded, prog: prog, kind: k, sizes: sizes{}}
	return ln, l.admit(ctx, ln)
}

// admit waits for the project's server and lets the load's user in.
func (l *lab) admit(ctx context.Context, ln *lane) error {
	if err := l.ready(ctx, ln, "/api/v1/namespaces/default", roleForBench()...); err != nil {
		return err
	}
	if ln.kind.path == widgets().path {
		return l.define(ctx, ln)
	}
	ln.work = ln.kind.of()
	return nil
}

// ready waits until a server answers a path and sends it requests as
// administrator.
func (l *lab) ready(ctx context.Context, ln *lane, path string, then ...*request) error {
	if _, err := l.answers(ctx, ln.prog, &request{method: "GET", path: path, accept: jsonType}, now()); err != nil {
		return err
	}
	if len(then) == 0 {
		return nil
	}
	admin, err := dial(ln.prog.address, l.id.client(l.id.admin))
	if err != nil {
		return err
	}
	defer admin.close()
	for _, r := range then {
		if _, err := ln.call(admin, r); err != nil {
			return err
		}
	}
	return nil
}

// define makes the custom resource and waits until it is served.
func (l *lab) define(ctx context.Context, ln *lane) error {
	create := &request{method: "POST", path: crdPath, contentType: jsonType, accept: jsonType, body: []byte(customResource)}
	err := l.ready(ctx, ln, crdPath, create)
	if err != nil {
		return err
	}
	ln.work = ln.kind.of()
	_, err = l.answers(ctx, ln.prog, ln.work.list(jsonType), now())
	return err
}

func (l *lab) referenceLane(ctx context.Context, ours *kind) (*lane, error) {
	if l.noReference {
		return nil, nil
	}
	etcd, err := l.etcd(ctx)
	if err != nil {
		return nil, err
	}
	prog, err := l.reference(etcd)
	if err != nil {
		return nil, err
	}
	ln := &lane{name: laneReference, prog: prog, etcd: etcd, kind: widgets(), sizes: sizes{}}
	return ln, l.define(ctx, ln)
}

func (l *lab) floorLane(_ context.Context, ours *kind) (*lane, error) {
	prog, err := l.floor()
	if err != nil {
		return nil, err
	}
	ln := &lane{name: laneFloor, prog: prog, kind: ours, sizes: sizes{}}
	for range 1000 {
		c, err := dial(prog.address, l.id.client(l.id.bench))
		if err == nil {
			c.close()
			return ln, nil
		}
		pause()
	}
	return nil, prog.died()
}

// servesCustomResources asks the project's server whether it knows
// CustomResourceDefinitions.
func (l *lab) servesCustomResources(ctx context.Context) (_ bool, err error) {
	dir, err := l.folder("probe")
	if err != nil {
		return false, err
	}
	prog, err := l.embedded(dir)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, l.stop(prog)) }()
	if _, err := l.answers(ctx, prog, &request{method: "GET", path: "/api/v1/namespaces/default", accept: jsonType}, now()); err != nil {
		return false, err
	}
	admin, err := dial(prog.address, l.id.client(l.id.admin))
	if err != nil {
		return false, err
	}
	defer admin.close()
	a, err := admin.do(&request{method: "GET", path: crdPath, accept: jsonType}, false)
	return a.status == 200, err
}
