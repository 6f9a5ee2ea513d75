package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"coracle/hack/proc"
	"coracle/hack/report"
)

// process is one program of the cluster.
type process struct {
	pid     int
	program string
	node    string // "control" for the control plane
}

// processes finds the control plane and each node's init, kubelet and containerd by
// the cgroups that the cluster keeps its processes in.
func processes(name string) ([]process, error) {
	cgroup, err := regexp.Compile(`/coracle-` + regexp.QuoteMeta(name) + `/([^/\n]+)`)
	if err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []process
	for _, dir := range dirs {
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue // it has ended
		}
		program := strings.TrimSpace(string(comm))
		if program != "apiserver" && program != "kubelet" && program != "containerd" && program != "ctl" {
			continue
		}
		groups, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if m := cgroup.FindSubmatch(groups); m != nil && err == nil {
			found = append(found, process{pid: pid, program: program, node: string(m[1])})
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no process of cluster %s is found", name)
	}
	return found, nil
}

// use reads what a process uses now.
func (p process) use() (proc.Usage, error) {
	u, err := proc.Of(p.pid)
	if err != nil {
		err = fmt.Errorf("%s on %s has ended while it was measured: %w", p.program, p.node, err)
	}
	return u, err
}

// idleOf is one program's use over a while, a sample per process.
type idleOf struct{ rss, anon, file, cpu []float64 }

// watchIdle lets the cluster rest and then measures each program.
func (l *lab) watchIdle(ctx context.Context) (map[string]*idleOf, error) {
	rest(ctx, l.settle)
	procs, err := processes(l.cluster)
	if err != nil {
		return nil, err
	}
	before := map[int]proc.Usage{}
	for _, p := range procs {
		if before[p.pid], err = p.use(); err != nil {
			return nil, err
		}
	}
	begin := time.Now()
	rest(ctx, l.idle)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out := map[string]*idleOf{"apiserver": {}, "kubelet": {}, "containerd": {}, "ctl": {}}
	for _, p := range procs {
		u, err := p.use()
		if err != nil {
			return nil, err
		}
		of := out[p.program]
		of.rss, of.anon, of.file = append(of.rss, u.RSS), append(of.anon, u.Anon), append(of.file, u.File)
		of.cpu = append(of.cpu, 100*(u.CPU-before[p.pid].CPU)/time.Since(begin).Seconds())
	}
	for program, of := range out {
		if len(of.rss) == 0 {
			return nil, fmt.Errorf("no process %s is found", program)
		}
	}
	return out, nil
}

// idleGoals are the bounds on a program; nil where there is none.
type idleGoals struct{ rss, cpu *float64 }

// rows are the lines of one program: the largest of its processes counts.
func (of *idleOf) rows(part, name string, goals idleGoals) []report.Row {
	top := func(samples []float64) float64 { return report.Quantile(samples, 1) }
	return []report.Row{
		{Part: part, Name: name + ": RSS", Unit: "MB", Value: top(of.rss), Samples: of.rss, Goal: goals.rss},
		{Part: part, Name: "- of it its own (RssAnon)", Unit: "MB", Value: top(of.anon), Samples: of.anon},
		{Part: part, Name: "- of it file pages, shared between nodes (RssFile)", Unit: "MB", Value: top(of.file), Samples: of.file},
		{Part: part, Name: name + ": CPU", Unit: "%", Value: top(of.cpu), Samples: of.cpu, Goal: goals.cpu},
	}
}

// measureIdle looks at a cluster that nobody uses.
func (l *lab) measureIdle(ctx context.Context, r *report.Report) error {
	fmt.Fprintf(l.log, "Watching the idle cluster for %s after a rest of %s\n", l.idle, l.settle)
	all, err := l.watchIdle(ctx)
	if err != nil {
		return err
	}
	part := "Idle, no pods (% of one core; the largest node counts)"
	r.Add(all["apiserver"].rows(part, "API server, scheduler, controllers, etcd", idleGoals{rss: report.Ptr(60), cpu: report.Ptr(0.5)})...)
	r.Add(all["kubelet"].rows(part, "kubelet with proxy, DNS, network", idleGoals{rss: report.Ptr(40)})...)
	r.Add(all["ctl"].rows(part, "the node's init (ctl), for information", idleGoals{})...)
	r.Add(all["containerd"].rows(part, "containerd, for information", idleGoals{})...)
	return nil
}

// measureDensity looks at a node whose pods do nothing.
func (l *lab) measureDensity(ctx context.Context, r *report.Report) error {
	if l.quick {
		return nil
	}
	w, err := l.watchPods(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	fmt.Fprintf(l.log, "Watching a node with %d idle pods for %s after a rest of %s\n", l.batch, l.idle, l.settle)
	pods := batchOf("idle", l.batch)
	if _, err := w.startAll(ctx, pods, l.parallel); err != nil {
		return err
	}
	all, err := l.watchIdle(ctx)
	if err != nil {
		return err
	}
	part := fmt.Sprintf("Idle, %d pods on one node", l.batch)
	r.Add(all["apiserver"].rows(part, "API server, scheduler, controllers, etcd", idleGoals{rss: report.Ptr(60), cpu: report.Ptr(0.5)})...)
	r.Add(all["kubelet"].rows(part, "kubelet with proxy, DNS, network", idleGoals{rss: report.Ptr(40), cpu: report.Ptr(1)})...)
	r.Add(all["containerd"].rows(part, "containerd, for information", idleGoals{})...)
	return w.removeAll(ctx, pods)
}
