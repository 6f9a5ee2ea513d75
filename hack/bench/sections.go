package main

import (
	"fmt"
	"runtime"
)

// requestGoals are the bounds: against the reference and the floor.
var requestGoals = []struct {
	row, name             string
	atReference, atFloor  float64
	milliseconds, wallToo bool
}{
	{rowCreate, "create", 10, 3.7, false, false},
	{rowGet, "get", 8, 2.2, false, false},
	{rowList, "list, JSON", 20, 1.5, true, true},
	{rowListProto, "list, protobuf", 0, 1.5, true, true},
	{rowPatch, "merge patch", 10, 0, false, false},
	{rowDelete, "delete", 10, 0, false, false},
}

// requests adds the table of plain requests.
func (r *report) requests(p *phase) {
	s := section{Title: p.title}
	for _, g := range requestGoals {
		samples, ok := p.samples[g.row]
		if !ok || !p.wants(g.row) {
			continue
		}
		l := line{Name: g.name, Unit: "us CPU", AtReference: g.atReference, AtFloor: g.atFloor,
			Values: medians(samples, sample.perOp), Rates: medians(samples, sample.rate)}
		if g.milliseconds {
			l.Unit, l.Rates = "ms CPU", nil
			l.Values = medians(samples, func(s sample) float64 { return s.perOp() / 1000 })
		}
		s.Lines = append(s.Lines, l)
		if g.wallToo {
			wall := line{Name: g.name, Unit: "ms wall", AtFloor: g.atFloor,
				Values: medians(samples, func(s sample) float64 { return s.wall.Seconds() * 1000 / float64(s.ops) })}
			s.Lines = append(s.Lines, wall)
		}
	}
	s.Notes = p.createNotes()
	r.Sections = append(r.Sections, s)
}

// createNotes are what stands beside the creates: the same transactions
// without a server, and where this machine would be full.
func (p *phase) createNotes() []string {
	bare := median(p.figures[rowCreate]["etcd"])
	ours := medians(p.samples[rowCreate], sample.rate)[laneOurs]
	if len(p.samples[rowCreate]) == 0 || !p.wants(rowCreate) {
		return nil
	}
	full := medians(p.samples[rowCreate], func(s sample) float64 { return s.full(runtime.NumCPU()) })[laneOurs]
	verdict := "met"
	if ours < bare/2 {
		verdict = "missed"
	}
	return []string{
		fmt.Sprintf("create: the same transactions straight to etcd: %s/s; ours reaches %.2f of them (goal 0.5: %s)", figure(bare), ours/bare, verdict),
		fmt.Sprintf("create: this machine would be full at %s/s: what the load program leaves of its cores, over what server and etcd need", figure(full)),
	}
}

// watches adds the table of the fan-out.
func (r *report) watches(p *phase) {
	s := section{Title: fmt.Sprintf("Watch: %d watchers over %d connections, objects as above; the cost of the patches themselves is taken off", watchers, watchConns)}
	if samples, ok := p.samples[rowWatch]; ok {
		s.Lines = append(s.Lines,
			line{Name: fmt.Sprintf("delivery, %d patches by %d unpaced writers", p.events, watchWriters), Unit: "us CPU", AtFloor: 1.5,
				Values: medians(samples, sample.perOp), Rates: medians(samples, sample.rate)},
			line{Name: "- with the patches", Unit: "us CPU", Values: medians(p.figures[rowWatch], same)})
	}
	if samples, ok := p.samples[rowWatchPaced]; ok && p.wants(rowWatchPaced) {
		s.Lines = append(s.Lines,
			line{Name: fmt.Sprintf("delivery, paced at %d events/s", pacedRate), Unit: "us CPU", AtFloor: 1.3, Values: medians(samples, sample.perOp)})
	}
	if late, ok := p.figures[rowWatchPaced]; ok {
		s.Lines = append(s.Lines, line{Name: "p99 from the event being out to a watcher having it", Unit: "ms", Values: medians(late, same)})
	}
	if dead, ok := p.figures[rowDeadWatcher]; ok {
		s.Lines = append(s.Lines, line{Name: "- more of it with one dead watcher", Unit: "ms", AtMost: 1, Values: medians(dead, same)})
	}
	if len(s.Lines) > 0 {
		r.Sections = append(r.Sections, s)
	}
}

// memory adds what the servers hold after the load.
func (r *report) memory(p *phase) {
	if values, ok := p.figures[rowMemory]; ok {
		r.Sections = append(r.Sections, section{
			Title: fmt.Sprintf("Anonymous memory with those %d objects, after that load", p.objects),
			Lines: []line{{Name: "RssAnon", Unit: "MiB", AtMost: 80, Values: medians(values, same)}},
		})
	}
}

func (r *report) bigLists(p *phase) {
	notes := []string{"what a server's heap has free after it was filled is used first and not counted: beside it, look at the CPU of one list"}
	r.Sections = append(r.Sections, section{Title: p.title, Notes: notes, Lines: []line{
		{Name: "more anonymous memory, all together", Unit: "MiB", AtMost: 64, Values: medians(p.figures[rowBigLists], same)},
		{Name: "until all are read", Unit: "ms wall", Values: medians(p.samples[rowBigLists], func(s sample) float64 { return s.wall.Seconds() * 1000 })},
		{Name: "one list", Unit: "ms CPU", Values: medians(p.samples[rowBigLists], func(s sample) float64 { return s.perOp() / 1000 })},
	}})
}

func (r *report) starts(p *phase) {
	r.Sections = append(r.Sections, section{Title: p.title, Lines: []line{
		{Name: "empty store", Unit: "ms", AtMost: 150, Embedded: 500, Values: medians(p.figures[rowStart], same)},
		{Name: "with what the first start left", Unit: "ms", AtMost: 150, Embedded: 500, Values: medians(p.figures["start-again"], same)},
	}})
}
