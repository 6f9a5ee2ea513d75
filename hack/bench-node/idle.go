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
)

// ticksPerSecond is the unit of CPU time in /proc, the same on every machine.
const ticksPerSecond = 100

// process is one program of the cluster.
type process struct {
	pid     int
	program string
	node    string // "control" for the control plane
}

// usage is what a process uses: memory in MB, CPU since its start in seconds.
type usage struct{ rss, anon, file, cpu float64 }

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
func (p process) use() (usage, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return usage{}, fmt.Errorf("%s on %s has ended while it was measured: %w", p.program, p.node, err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return usage{}, fmt.Errorf("%s on %s has ended while it was measured: %w", p.program, p.node, err)
	}
	u := parseStatus(string(status))
	u.cpu, err = parseCPU(string(stat))
	return u, err
}

// parseStatus reads the memory of /proc/PID/status.
func parseStatus(status string) usage {
	var u usage
	for line := range strings.Lines(status) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if len(fields) != 2 || fields[1] != "kB" {
			continue
		}
		kb, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			continue
		}
		switch mb := kb * 1024 / 1e6; name {
		case "VmRSS":
			u.rss = mb
		case "RssAnon":
			u.anon = mb
		case "RssFile":
			u.file = mb
		}
	}
	return u
}

// parseCPU reads user and system time of /proc/PID/stat.
func parseCPU(stat string) (float64, error) {
	// The second field is the program's name, which may itself hold blanks.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("a stat file in /proc is not readable: %q", stat)
	}
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("a stat file in /proc is not readable: %q", stat)
	}
	return (user + system) / ticksPerSecond, nil
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
	before := map[int]usage{}
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
		of.rss, of.anon, of.file = append(of.rss, u.rss), append(of.anon, u.anon), append(of.file, u.file)
		of.cpu = append(of.cpu, 100*(u.cpu-before[p.pid].cpu)/time.Since(begin).Seconds())
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
func (of *idleOf) rows(part, name string, goals idleGoals) []row {
	top := func(samples []float64) float64 { return quantile(samples, 1) }
	return []row{
		{Part: part, Name: name + ": RSS", Unit: "MB", Value: top(of.rss), Samples: of.rss, Goal: goals.rss},
		{Part: part, Name: "- of it its own (RssAnon)", Unit: "MB", Value: top(of.anon), Samples: of.anon},
		{Part: part, Name: "- of it file pages, shared between nodes (RssFile)", Unit: "MB", Value: top(of.file), Samples: of.file},
		{Part: part, Name: name + ": CPU", Unit: "%", Value: top(of.cpu), Samples: of.cpu, Goal: goals.cpu},
	}
}

// measureIdle looks at a cluster that nobody uses.
func (l *lab) measureIdle(ctx context.Context, r *report) error {
	fmt.Fprintf(l.log, "Watching the idle cluster for %s after a rest of %s\n", l.idle, l.settle)
	all, err := l.watchIdle(ctx)
	if err != nil {
		return err
	}
	part := "Idle, no pods (% of one core; the largest node counts)"
	r.add(all["apiserver"].rows(part, "API server, scheduler, controllers, etcd", idleGoals{rss: ptr(60), cpu: ptr(0.5)})...)
	r.add(all["kubelet"].rows(part, "kubelet with proxy, DNS, network", idleGoals{rss: ptr(40)})...)
	r.add(all["ctl"].rows(part, "the node's init (ctl), for information", idleGoals{})...)
	r.add(all["containerd"].rows(part, "containerd, for information", idleGoals{})...)
	return nil
}

// measureDensity looks at a node whose pods do nothing.
func (l *lab) measureDensity(ctx context.Context, r *report) error {
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
	r.add(all["apiserver"].rows(part, "API server, scheduler, controllers, etcd", idleGoals{rss: ptr(60), cpu: ptr(0.5)})...)
	r.add(all["kubelet"].rows(part, "kubelet with proxy, DNS, network", idleGoals{rss: ptr(40), cpu: ptr(1)})...)
	r.add(all["containerd"].rows(part, "containerd, for information", idleGoals{})...)
	return w.removeAll(ctx, pods)
}
