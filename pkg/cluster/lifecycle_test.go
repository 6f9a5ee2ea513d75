package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/tools/clientcmd"

	"coracle/pkg/image"
	"coracle/pkg/network"
)

// testMachine returns a machine with its own folder and kubeconfig, whose
// clusters are deleted when the test ends, however it ends.
func testMachine(t *testing.T, clusters ...string) (*Machine, *bytes.Buffer) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes namespaces, bridges and mounts: run it as root")
	}
	if missing := MissingPackages(); len(missing) > 0 {
		t.Fatalf("this test runs real nodes and the machine lacks %v: run hack/install-packages", missing)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	out := &bytes.Buffer{}
	m := &Machine{
		Root:       filepath.Join(dir, "clusters"),
		Out:        out,
		Kubeconfig: filepath.Join(dir, "kube", "config"),
		Programs: Programs{
			APIServer: exe, APIServerArgs: []string{"stand-in-apiserver"},
			Kubelet: exe, KubeletArgs: []string{"stand-in-kubelet"},
			Init: []string{exe, "node-init"},
		},
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, name := range clusters {
			if err := m.Delete(ctx, name); err != nil && !errors.Is(err, ErrNotFound) {
				t.Errorf("clean up: %v", err)
			}
			noLeftovers(t, m, name)
		}
		if t.Failed() {
			t.Logf("output:\n%s", out)
		}
	})
	return m, out
}

func noLeftovers(t *testing.T, m *Machine, name string) {
	t.Helper()
	left, err := m.Leftovers(context.Background(), name)
	if err != nil {
		t.Error(err)
	}
	if len(left) > 0 {
		t.Errorf("left of cluster %s:\n%s", name, strings.Join(left, "\n"))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ask returns the name that a node's stand-in kubelet answers with.
func ask(address string) string {
	client := &http.Client{
		Timeout:   500 * time.Millisecond,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
	}
	resp, err := client.Get("https://" + net.JoinHostPort(address, "10250") + "/ping")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return ""
	}
	return string(body)
}

// eventually polls a condition for a short while.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 15 s: %s", what)
		}
	}
}

func state(t *testing.T, m *Machine, name string) Info {
	t.Helper()
	list, err := m.List()
	must(t, err)
	for _, i := range list {
		if i.Name == name {
			return i
		}
	}
	t.Fatalf("cluster %s is not listed in %v", name, list)
	return Info{}
}

func currentContext(t *testing.T, m *Machine) string {
	t.Helper()
	cfg, err := clientcmd.LoadFromFile(m.Kubeconfig)
	if errors.Is(err, os.ErrNotExist) {
		return "(no file)"
	}
	must(t, err)
	return cfg.CurrentContext
}

// TestLifecycle takes a real cluster with real containerds through its life.
func TestLifecycle(t *testing.T) {
	m, out := testMachine(t, "cl-life", "cl-other")
	ctx := t.Context()
	must(t, m.Create(ctx, CreateOptions{Name: "cl-life", Nodes: 3}))
	t.Logf("\n%s", out)
	if got := state(t, m, "cl-life"); got.State != "running" || got.Running != 3 {
		t.Errorf("after create: %+v", got)
	}
	if got := currentContext(t, m); got != "cl-life" {
		t.Errorf("current context %q", got)
	}
	nodes, err := m.Nodes("cl-life")
	must(t, err)
	for _, n := range nodes {
		if got := ask(n.Address); got != n.Name {
			t.Errorf("node %s at %s answers %q", n.Name, n.Address, got)
		}
	}
	checkImages(t, m)
	checkIsolation(t, m, nodes[0])
	checkClosed(t, m, nodes[0])

	// A second cluster lives beside the first.
	must(t, m.Create(ctx, CreateOptions{Name: "cl-other", Nodes: 1}))
	if a, b := state(t, m, "cl-life"), state(t, m, "cl-other"); a.Endpoint == b.Endpoint || b.State != "running" {
		t.Errorf("two clusters: %+v, %+v", a, b)
	}
	if err := m.Create(ctx, CreateOptions{Name: "cl-life"}); !errors.Is(err, ErrExists) {
		t.Errorf("creating it again: %v", err)
	}
	must(t, m.Create(ctx, CreateOptions{Name: "cl-life", Ensure: true}))

	checkNodePower(t, m, nodes)
	checkStopStart(t, m)

	must(t, m.Delete(ctx, "cl-other"))
	noLeftovers(t, m, "cl-other")
	if got := state(t, m, "cl-life"); got.State != "running" {
		t.Errorf("deleting one cluster changed the other: %+v", got)
	}
	must(t, m.Delete(ctx, "cl-life"))
	noLeftovers(t, m, "cl-life")
	if got := currentContext(t, m); got != "(no file)" {
		t.Errorf("the kubeconfig is still there, context %q", got)
	}
	if there, _ := exists(m.Root); there {
		t.Errorf("%s is still there", m.Root)
	}
	if err := m.Delete(ctx, "cl-life"); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleting it again: %v", err)
	}
}

func checkImages(t *testing.T, m *Machine) {
	t.Helper()
	img, err := image.Build(image.Spec{Files: []image.File{{Path: "/f", Data: []byte("x")}}})
	must(t, err)
	named := []image.Named{{Ref: "coracle.dev/test:v1", Image: img}}
	changed, nodes, err := m.LoadImages(t.Context(), "cl-life", named)
	if err != nil || changed != 3 || nodes != 3 {
		t.Errorf("first load: %d on %d nodes, %v", changed, nodes, err)
	}
	changed, _, err = m.LoadImages(t.Context(), "cl-life", named)
	if err != nil || changed != 0 {
		t.Errorf("second load changed %d, %v", changed, err)
	}
	images, err := m.NodeImages(t.Context(), "cl-life")
	must(t, err)
	for node, list := range images {
		var refs []string
		for _, i := range list {
			if i.Size == 0 || !strings.HasPrefix(i.Digest, "sha256:") {
				t.Errorf("%s: %+v", node, i)
			}
			refs = append(refs, i.Ref)
		}
		for _, want := range append(image.BusyboxRefs(), image.PauseRef, "coracle.dev/test:v1") {
			if !strings.Contains(strings.Join(refs, " "), want) {
				t.Errorf("node %s lacks %s: %v", node, want, refs)
			}
		}
	}
}

// checkIsolation looks at a node from the host through its init.
func checkIsolation(t *testing.T, m *Machine, n NodeInfo) {
	t.Helper()
	root := func(p string) string { return filepath.Join("/proc", strconv.Itoa(n.PID), "root", p) }
	if host, err := os.ReadFile(root("etc/hostname")); err != nil || strings.TrimSpace(string(host)) != n.Name {
		t.Errorf("/etc/hostname is %q, %v", host, err)
	}
	// What a node writes is in its own folder and nowhere on the host.
	must(t, os.WriteFile(root("srv/cl-life-mark"), nil, 0o600))
	if there, _ := exists("/srv/cl-life-mark"); there {
		t.Error("a file of the node appeared on the host")
	}
	if there, _ := exists(m.folder("cl-life").rootfs(n.Name, "srv/cl-life-mark")); !there {
		t.Error("a file of the node is not in its folder")
	}
	if err := os.WriteFile(root("usr/cl-life-mark"), nil, 0o600); err == nil {
		t.Error("a node can write to the host's /usr")
	}
	if there, _ := exists(root(m.Root)); there {
		t.Error("a node sees the clusters' folder")
	}
	for _, ns := range []string{"net", "mnt", "uts", "ipc", "pid_for_children", "cgroup"} {
		own, err := os.Readlink("/proc/self/ns/" + ns)
		must(t, err)
		for _, task := range threads(t, n.PID) {
			if theirs, err := os.Readlink(filepath.Join(task, "ns", ns)); err == nil && theirs != own {
				own = ""
			}
		}
		if own != "" {
			t.Errorf("the node shares the host's %s namespace", ns)
		}
	}
}

// checkClosed: a node of a closed cluster reaches the API server, and nothing
// else of the host.
func checkClosed(t *testing.T, m *Machine, n NodeInfo) {
	t.Helper()
	s, err := m.folder("cl-life").load()
	must(t, err)
	node, err := network.PIDNS(n.PID)
	must(t, err)
	defer node.Close()
	l, err := net.Listen("tcp", net.JoinHostPort(s.hostEnd().String(), "0"))
	must(t, err)
	defer l.Close()
	dial := func(address string) error {
		return node.Do(func() error {
			// Numeric and with one address, this dials on this very thread.
			c, err := net.DialTimeout("tcp", address, 3*time.Second)
			if err == nil {
				c.Close()
			}
			return err
		})
	}
	if err := dial(net.JoinHostPort(s.hostEnd().String(), strconv.Itoa(s.Port))); err != nil {
		t.Errorf("the node does not reach the API server: %v", err)
	}
	if err := dial(l.Addr().String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the node reaches another port of the host: %v", err)
	}
	if err := dial("192.0.2.77:80"); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("the node has a way out: %v", err)
	}
}

func threads(t *testing.T, pid int) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*"))
	must(t, err)
	return list
}

func checkNodePower(t *testing.T, m *Machine, nodes []NodeInfo) {
	t.Helper()
	ctx := t.Context()
	one, two := nodes[0], nodes[1]
	must(t, m.NodePartition(ctx, "cl-life", one.Name))
	if got := ask(one.Address); got != "" {
		t.Errorf("a partitioned node answers %q", got)
	}
	if list, err := m.Nodes("cl-life"); err != nil || list[0].Connected || !list[0].Running || !list[1].Connected {
		t.Errorf("nodes during a partition: %+v, %v", list, err)
	}
	if got := ask(two.Address); got != two.Name {
		t.Errorf("the other node answers %q", got)
	}
	must(t, m.NodeHeal(ctx, "cl-life", one.Name))
	eventually(t, "the healed node answers", func() bool { return ask(one.Address) == one.Name })

	// Somebody looks into the node's network: it outlives the node.
	ns, err := network.PIDNS(one.PID)
	must(t, err)
	defer ns.Close()
	begin := time.Now()
	must(t, m.NodeKill(ctx, "cl-life", one.Name))
	t.Logf("killed in %s", time.Since(begin))
	if _, linked := ns.LinkWith(netip.MustParseAddr(one.Address)); linked {
		t.Error("a killed node is still on the bridge, and its network answers")
	}
	if there, _ := exists(filepath.Join("/proc", strconv.Itoa(one.PID))); there {
		t.Error("the init of a killed node is still there")
	}
	if left := leftProcesses(t, "cl-life", one.Name); len(left) > 0 {
		t.Errorf("a killed node still has processes %v", left)
	}
	if len(leftProcesses(t, "cl-life", two.Name)) < 3 {
		t.Error("a running node has not even init, containerd and kubelet in its cgroups")
	}
	if got := state(t, m, "cl-life"); got.State != "partial" || got.Running != 2 {
		t.Errorf("after a kill: %+v", got)
	}
	must(t, m.NodeStart(ctx, "cl-life", one.Name))
	eventually(t, "the restarted node answers", func() bool { return ask(one.Address) == one.Name })

	begin = time.Now()
	must(t, m.NodeStop(ctx, "cl-life", two.Name))
	t.Logf("stopped in %s", time.Since(begin))
	must(t, m.NodeStop(ctx, "cl-life", two.Name))
	if err := m.NodePartition(ctx, "cl-life", two.Name); err == nil {
		t.Error("a node that is off was partitioned")
	}
	must(t, m.NodeStart(ctx, "cl-life", two.Name))
	eventually(t, "the second node answers", func() bool { return ask(two.Address) == two.Name })
	if err := m.NodeKill(ctx, "cl-life", "nobody"); err == nil || !strings.Contains(err.Error(), one.Name) {
		t.Errorf("killing an unknown node: %v", err)
	}
}

// leftProcesses lists the processes in one node's cgroups.
func leftProcesses(t *testing.T, cluster, node string) []int {
	t.Helper()
	dirs, err := findCgroups(cluster)
	must(t, err)
	var pids []int
	for _, dir := range dirs {
		pids = append(pids, cgroupProcesses(filepath.Join(dir, node))...)
	}
	return pids
}

func checkStopStart(t *testing.T, m *Machine) {
	t.Helper()
	ctx := t.Context()
	f := m.folder("cl-life")
	mark := f.rootfs("cl-life-1", "var/lib/kubelet/mark")
	must(t, os.WriteFile(mark, nil, 0o600))
	must(t, m.Stop(ctx, "cl-life"))
	if got := state(t, m, "cl-life"); got.State != "stopped" {
		t.Errorf("after stop: %+v", got)
	}
	left, err := m.Leftovers(ctx, "cl-life")
	must(t, err)
	want := []string{"folder " + string(f), "context cl-life in " + m.Kubeconfig}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("a stopped cluster (-want +got):\n%s", diff)
	}
	if err := m.NodeStart(ctx, "cl-life", "cl-life-1"); err == nil || !strings.Contains(err.Error(), "ctl cluster start") {
		t.Errorf("starting a node of a stopped cluster: %v", err)
	}
	must(t, m.Stop(ctx, "cl-life"))
	must(t, m.Start(ctx, "cl-life"))
	if got := state(t, m, "cl-life"); got.State != "running" {
		t.Errorf("after start: %+v", got)
	}
	if there, _ := exists(mark); !there {
		t.Error("a node lost a file over stop and start")
	}
	must(t, m.Start(ctx, "cl-life"))
}
