package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestParseHierarchies(t *testing.T) {
	const v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	const hybrid = "31 30 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
		"32 31 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
		"33 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
		"34 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n" +
		"35 31 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	const container = "33 31 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
	for _, c := range []struct {
		name, mounts, own string
		want              []hierarchy
	}{
		{"v2", v2, "0::/user.slice/session.scope\n", []hierarchy{
			{Mount: "/sys/fs/cgroup", V2: true, Own: "/user.slice/session.scope"},
		}},
		{"hybrid", hybrid, "4:cpu,cpuacct:/a\n3:memory:/\n2:name=systemd:/s\n1:freezer:/not-mounted\n0::/u\n", []hierarchy{
			{Mount: "/sys/fs/cgroup/cpu,cpuacct", Options: "cpu,cpuacct", Own: "/a"},
			{Mount: "/sys/fs/cgroup/memory", Options: "memory", Own: "/"},
			{Mount: "/sys/fs/cgroup/systemd", Options: "name=systemd", Own: "/s"},
			{Mount: "/sys/fs/cgroup/unified", V2: true, Own: "/u"},
		}},
		{"inside a container", container, "3:memory:/docker/abc/x\n", []hierarchy{
			{Mount: "/sys/fs/cgroup/memory", Options: "memory", Own: "/x"},
		}},
		{"outside of what is mounted", container, "3:memory:/elsewhere\n", []hierarchy{
			{Mount: "/sys/fs/cgroup/memory", Options: "memory", Own: "/"},
		}},
		{"none", "", "", nil},
	} {
		if diff := cmp.Diff(c.want, parseHierarchies([]byte(c.mounts), []byte(c.own))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// TestUnifiedParent: a session's slice hands out memory and pids, but no cpu.
func TestUnifiedParent(t *testing.T) {
	top := t.TempDir()
	h := hierarchy{Mount: top, V2: true, Own: "/user.slice/user-0.slice/session-1.scope"}
	control := func(dir, controllers string) {
		must(t, os.MkdirAll(filepath.Join(top, dir), 0o755))
		must(t, os.WriteFile(filepath.Join(top, dir, "cgroup.subtree_control"), []byte(controllers+"\n"), 0o644))
	}
	control("", "memory pids")
	control("user.slice", "memory pids")
	control("user.slice/user-0.slice", "memory pids")
	control("user.slice/user-0.slice/session-1.scope", "")
	if got := h.parent(); got != top {
		t.Errorf("parent %s, want the top", got)
	}
	control("user.slice", "cpu io memory pids")
	if got := h.parent(); got != filepath.Join(top, "user.slice") {
		t.Errorf("parent %s, want user.slice", got)
	}
	h.V2 = false
	if got := h.parent(); got != filepath.Join(top, h.Own) {
		t.Errorf("version 1: parent %s", got)
	}
}

func FuzzParseHierarchies(f *testing.F) {
	f.Add([]byte("32 31 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"), []byte("4:cpu:/a\n"))
	f.Fuzz(func(t *testing.T, mounts, own []byte) {
		for _, h := range parseHierarchies(mounts, own) {
			if !strings.HasPrefix(h.Mount, "/sys/fs/cgroup") || strings.Contains(h.Own, "..") && !strings.HasPrefix(h.Own, "/") {
				t.Errorf("hierarchy %+v", h)
			}
		}
	})
}

func TestFreeSubnet(t *testing.T) {
	for _, c := range []struct {
		used []string
		want string
	}{
		{nil, "10.89.0.0/24"},
		{[]string{"10.89.0.1/24", "192.168.0.0/16"}, "10.89.1.0/24"},
		{[]string{"10.89.0.0/23", "10.89.2.128/25"}, "10.89.3.0/24"},
		{[]string{"10.0.0.0/8"}, ""},
	} {
		var used []netip.Prefix
		for _, u := range c.used {
			used = append(used, netip.MustParsePrefix(u))
		}
		got, err := freeSubnet(used)
		if (err != nil) != (c.want == "") || err == nil && got.String() != c.want {
			t.Errorf("freeSubnet(%v) = %s, %v, want %q", c.used, got, err, c.want)
		}
	}
}

func TestParseRoutes(t *testing.T) {
	const table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n" +
		"eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
		"eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n" +
		"x\t0000590A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
	var got []string
	for _, p := range parseRoutes(table) {
		got = append(got, p.String())
	}
	if diff := cmp.Diff([]string{"192.0.2.0/24", "10.89.0.0/16"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestChoosePort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	busy := l.Addr().(*net.TCPAddr).Port
	if _, err := choosePort(busy, nil); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("a busy port: %v", err)
	}
	other := &Spec{Name: "other", Port: firstPort}
	if _, err := choosePort(firstPort, []*Spec{other}); err == nil || !strings.Contains(err.Error(), "other") {
		t.Errorf("another cluster's port: %v", err)
	}
	if p, err := choosePort(0, []*Spec{other}); err != nil || p <= firstPort {
		t.Errorf("the next free port is %d, %v", p, err)
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"coracle": true, "a": true, "a-1": true,
		"": false, "-a": false, "a-": false, "1a": false, "A": false, "a.b": false, "a/b": false, "..": false,
		strings.Repeat("a", maxName): true, strings.Repeat("a", maxName+1): false,
	} {
		if err := checkName(name); (err == nil) != ok {
			t.Errorf("checkName(%q) = %v", name, err)
		}
	}
}

func TestHostRules(t *testing.T) {
	f := folder("/f/a-b")
	s := &Spec{Name: "a-b", Port: 6443, Subnet: netip.MustParsePrefix("10.89.3.0/24")}
	closed := hostRules(f, s)
	s.Egress = true
	open := hostRules(f, s)
	if !strings.Contains(closed, "table inet coracle_cluster_a_b") || strings.Contains(closed, "masquerade") || strings.Count(closed, "drop") != 2 || !strings.Contains(closed, "ip daddr 10.89.3.1 tcp dport 6443 accept") {
		t.Errorf("closed cluster:\n%s", closed)
	}
	if !strings.Contains(open, "ip saddr 10.89.3.0/24 masquerade") {
		t.Errorf("open cluster:\n%s", open)
	}
}

func TestLinkNamesFit(t *testing.T) {
	a, b := folder("/x/a"), folder("/y/a")
	if len(a.linkName()) > 15 || a.linkName() == b.linkName() {
		t.Errorf("link names %q and %q", a.linkName(), b.linkName())
	}
	if len(portName(maxNodes)) > 15 {
		t.Errorf("port name %q is too long", portName(maxNodes))
	}
}

func TestProcessIdentity(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	must(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	p, err := identify(cmd.Process.Pid)
	must(t, err)
	if !p.alive() {
		t.Fatal("a running process is not alive")
	}
	// The same number, another process: it must be left alone.
	for _, other := range []runningProcess{
		{PID: p.PID, StartTime: p.StartTime + 1, BootID: p.BootID},
		{PID: p.PID, StartTime: p.StartTime, BootID: "another boot"},
		{},
	} {
		if other.alive() {
			t.Errorf("%+v is alive", other)
		}
		if err := other.kill(t.Context(), nil); err != nil {
			t.Errorf("kill %+v: %v", other, err)
		}
	}
	if !p.alive() {
		t.Fatal("another process's signal reached this one")
	}
	if gone, err := p.signalAndWait(t.Context(), unix.SIGWINCH, 20*time.Millisecond); gone || err != nil {
		t.Errorf("a process that ignores a signal: gone %t, %v", gone, err)
	}
	must(t, p.stop(t.Context(), 5*time.Second))
	if p.alive() {
		t.Error("the process outlived stop")
	}
}

func TestStopKillsTheStubborn(t *testing.T) {
	cmd := exec.Command("sh", "-c", `trap "" TERM; echo ready; while :; do sleep 1; done`)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	go func() { _ = cmd.Wait() }()
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	p, err := identify(cmd.Process.Pid)
	must(t, err)
	must(t, p.stop(t.Context(), 50*time.Millisecond))
	if p.alive() {
		t.Error("the process outlived stop")
	}
}

func TestProcessFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	if p, err := readProcess(file); err != nil || p.alive() {
		t.Errorf("no file: %+v, %v", p, err)
	}
	want := runningProcess{PID: 7, StartTime: 8, BootID: "b"}
	must(t, writeJSON(file, want))
	if got, err := readProcess(file); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	must(t, os.WriteFile(file, []byte("{"), 0o600))
	if _, err := readProcess(file); err == nil {
		t.Error("a damaged file was read")
	}
}

func TestLockDir(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockDir(t.Context(), dir)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := lockDir(ctx, dir); err == nil || !strings.Contains(err.Error(), "another command") {
		t.Errorf("a second lock: %v", err)
	}
	unlock()
	unlock, err = lockDir(t.Context(), dir)
	must(t, err)
	// Whoever waits for the lock of a deleted folder must not get it.
	done := make(chan error, 1)
	go func() {
		_, err := lockDir(t.Context(), dir)
		done <- err
	}()
	must(t, os.Remove(dir))
	unlock()
	if err := <-done; !errors.Is(err, os.ErrNotExist) {
		t.Errorf("lock of a deleted folder: %v", err)
	}
}

func TestSupervisorDelays(t *testing.T) {
	now := time.Unix(1000, 0)
	c := &child{delay: restartMin}
	var got []time.Duration
	for range 8 {
		c.started = now
		c.ended(now)
		got = append(got, c.next.Sub(now))
	}
	want := []time.Duration{200e6, 400e6, 800e6, 1600e6, 3200e6, 6400e6, restartMax, restartMax}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("delays (-want +got):\n%s", diff)
	}
	c.started = now
	c.ended(now.Add(steadyAfter))
	if d := c.next.Sub(now.Add(steadyAfter)); d != restartMin {
		t.Errorf("after a steady run the delay is %s", d)
	}
}

func TestTrimLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	must(t, trimLog(file))
	must(t, os.WriteFile(file, make([]byte, maxLogBytes-1), 0o600))
	must(t, trimLog(file))
	if there, _ := exists(file + ".1"); there {
		t.Error("a small log was moved aside")
	}
	must(t, os.WriteFile(file, make([]byte, maxLogBytes), 0o600))
	must(t, trimLog(file))
	a, errA := os.Stat(file)
	b, errB := os.Stat(file + ".1")
	if errA != nil || errB != nil || a.Size() != 0 || b.Size() != maxLogBytes {
		t.Errorf("after trimming: %v %v, %v %v", a, errA, b, errB)
	}
}

func TestTail(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	must(t, os.WriteFile(file, []byte("first line\nsecond\nthird\n"), 0o600))
	for max, want := range map[int64]string{100: "first line\nsecond\nthird\n", 16: "second\nthird\n", 6: ""} {
		if got := tail(file, max); got != want {
			t.Errorf("tail %d: %q, want %q", max, got, want)
		}
	}
	if got := lastLines(file, 2); got != "second\nthird" {
		t.Errorf("last lines %q", got)
	}
	if got := lastLines(file+"x", 2); got != "" {
		t.Errorf("last lines of no file %q", got)
	}
}

// TestNodeFailureReachesTheServer: a dead node's pods run elsewhere in 30 s unless
// the user wants it otherwise, and clusters of before stay as they were.
func TestNodeFailureReachesTheServer(t *testing.T) {
	for _, tc := range []struct {
		opts CreateOptions
		want []string
	}{
		{CreateOptions{Name: "a"}, []string{"--node-monitor-grace-period=26s", "--node-monitor-period=1s",
			"--default-not-ready-toleration-seconds=30", "--default-unreachable-toleration-seconds=0"}},
		{CreateOptions{Name: "a", NodeFailure: &NodeFailure{Grace: metav1.Duration{Duration: 50 * time.Second}, NotReadySeconds: 300, UnreachableSeconds: 300}},
			[]string{"--node-monitor-grace-period=50s", "--default-not-ready-toleration-seconds=300", "--default-unreachable-toleration-seconds=300"}},
	} {
		s, err := newSpec(tc.opts, Programs{}, nil)
		must(t, err)
		data, err := json.Marshal(s)
		must(t, err)
		var read Spec
		must(t, json.Unmarshal(data, &read))
		args := controlPlaneArgs(folder("/f/a"), &read)
		for _, want := range tc.want {
			if !slices.Contains(args, want) {
				t.Errorf("no %s in %v", want, args)
			}
		}
	}
	s := &Spec{Name: "a", Subnet: netip.MustParsePrefix("10.89.3.0/24")}
	if args := strings.Join(controlPlaneArgs(folder("/f/a"), s), " "); strings.Contains(args, "toleration") || strings.Contains(args, "node-monitor") {
		t.Errorf("a cluster of before: %v", args)
	}
}

// TestHardenedReachesTheServer: what the user asked for is what the API server is
// started with, at every start.
func TestHardenedReachesTheServer(t *testing.T) {
	s := &Spec{Name: "a", Subnet: netip.MustParsePrefix("10.89.3.0/24")}
	if args := controlPlaneArgs(folder("/f/a"), s); slices.Contains(args, "--hardened") {
		t.Errorf("unasked: %v", args)
	}
	s.Hardened = true
	if args := controlPlaneArgs(folder("/f/a"), s); !slices.Contains(args, "--hardened") {
		t.Errorf("asked: %v", args)
	}
}
