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
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"coracle/pkg/network"
)

// createCluster is the program of a test that kills it in the middle.
func createCluster(machineFile, name string) error {
	data, err := os.ReadFile(machineFile)
	if err != nil {
		return err
	}
	m := new(Machine)
	if err := json.Unmarshal(data, m); err != nil {
		return err
	}
	return m.Create(context.Background(), CreateOptions{Name: name})
}

func TestFailedCreateIsUndone(t *testing.T) {
	m, out := testMachine(t, "cl-fail")
	m.Programs.APIServerArgs = []string{"failing-apiserver"}
	log := failureLog("cl-fail")
	t.Cleanup(func() { os.Remove(log) })
	err := m.Create(t.Context(), CreateOptions{Name: "cl-fail", Nodes: 2})
	if err == nil {
		t.Fatal("the cluster was created without an API server")
	}
	for _, want := range []string{"Wait for the API server", "the disk is on fire", log} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
	if !strings.Contains(out.String(), "undone") {
		t.Errorf("the output does not say that it was undone:\n%s", out)
	}
	if data, err := os.ReadFile(log); err != nil || !strings.Contains(string(data), "disk is on fire") || !strings.Contains(string(data), "containerd.log") {
		t.Errorf("the log that stays: %v\n%.300s", err, data)
	}
	noLeftovers(t, m, "cl-fail")
	if there, _ := exists(m.Kubeconfig); there {
		t.Error("a kubeconfig was written")
	}
	if there, _ := exists(m.Root); there {
		t.Error("the folder of all clusters stays")
	}
}

func TestCancelledCreateIsUndone(t *testing.T) {
	m, _ := testMachine(t, "cl-cancel")
	t.Cleanup(func() { os.Remove(failureLog("cl-cancel")) })
	m.Programs.KubeletArgs = []string{"idle-kubelet"} // no node becomes ready
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		file := m.folder("cl-cancel").rootfs("cl-cancel-1", "var/log/kubelet.log")
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if there, _ := exists(file); there {
				return
			}
		}
	}()
	if err := m.Create(ctx, CreateOptions{Name: "cl-cancel", Nodes: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("create: %v", err)
	}
	noLeftovers(t, m, "cl-cancel")
}

// TestKilledCreate leaves half a cluster, which Delete must remove.
func TestKilledCreate(t *testing.T) {
	m, _ := testMachine(t, "cl-half")
	file := filepath.Join(t.TempDir(), "machine.json")
	must(t, writeJSON(file, &Machine{Root: m.Root, Programs: m.Programs, Kubeconfig: m.Kubeconfig}))
	cmd := exec.Command(m.Programs.APIServer, "create", file, "cl-half")
	must(t, cmd.Start())
	eventually(t, "a node has been started", func() bool {
		there, _ := exists(m.folder("cl-half").nodePID("cl-half-2"))
		return there
	})
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if got := state(t, m, "cl-half"); got.State != "broken" {
		t.Errorf("state %+v", got)
	}
	for what, err := range map[string]error{
		"create": m.Create(t.Context(), CreateOptions{Name: "cl-half"}),
		"ensure": m.Create(t.Context(), CreateOptions{Name: "cl-half", Ensure: true}),
		"start":  m.Start(t.Context(), "cl-half"),
	} {
		if err == nil || !strings.Contains(err.Error(), "ctl cluster delete cl-half") {
			t.Errorf("%s of half a cluster: %v", what, err)
		}
	}
	must(t, m.Delete(t.Context(), "cl-half"))
	noLeftovers(t, m, "cl-half")
}

func TestDeleteWithoutDescription(t *testing.T) {
	for name, damage := range map[string]func(f folder) error{
		"cl-torn": func(f folder) error { return os.WriteFile(f.specFile(), []byte("{"), 0o600) },
		"cl-gone": func(f folder) error { return os.RemoveAll(f.path("nodes", "cl-gone-1", "init.pid")) },
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := testMachine(t, name)
			must(t, m.Create(t.Context(), CreateOptions{Name: name, Nodes: 1}))
			f := m.folder(name)
			must(t, damage(f))
			must(t, os.RemoveAll(f.apiserverPID()))
			must(t, m.Delete(t.Context(), name))
			noLeftovers(t, m, name)
		})
	}
}

// TestDeleteWithoutFolder: somebody has removed the folder of a running
// cluster; what runs is found by its cgroups.
func TestDeleteWithoutFolder(t *testing.T) {
	m, _ := testMachine(t, "cl-lost")
	must(t, m.Create(t.Context(), CreateOptions{Name: "cl-lost", Nodes: 1}))
	f := m.folder("cl-lost")
	must(t, network.DeleteNS(f.bridgeFile()))
	must(t, os.RemoveAll(string(f)))
	must(t, m.Delete(t.Context(), "cl-lost"))
	noLeftovers(t, m, "cl-lost")
}

// TestReboot takes away all that a reboot takes away and starts the cluster
// from its folder.
func TestReboot(t *testing.T) {
	m, _ := testMachine(t, "cl-boot")
	ctx := t.Context()
	must(t, m.Create(ctx, CreateOptions{Name: "cl-boot", Nodes: 2}))
	f := m.folder("cl-boot")
	must(t, killNodes(ctx, f, "cl-boot"))
	must(t, endControlPlane(ctx, f, 0))
	must(t, removeClusterCgroups(ctx, "cl-boot"))
	must(t, removeHostRules(ctx, "cl-boot"))
	must(t, disconnectHost(f))
	// The process files of the boot before name numbers that may be in use.
	must(t, writeJSON(f.nodePID("cl-boot-1"), runningProcess{PID: os.Getpid(), StartTime: 1, BootID: "before"}))
	must(t, writeJSON(f.apiserverPID(), runningProcess{PID: os.Getpid(), StartTime: 1, BootID: "before"}))
	if got := state(t, m, "cl-boot"); got.State != "stopped" {
		t.Errorf("after the reboot: %+v", got)
	}
	must(t, m.Start(ctx, "cl-boot"))
	nodes, err := m.Nodes("cl-boot")
	must(t, err)
	for _, n := range nodes {
		if got := ask(n.Address); got != n.Name {
			t.Errorf("node %s answers %q", n.Name, got)
		}
	}
}

// TestSupervision: the init starts a program again that has died.
func TestSupervision(t *testing.T) {
	m, _ := testMachine(t, "cl-super")
	must(t, m.Create(t.Context(), CreateOptions{Name: "cl-super", Nodes: 1}))
	nodes, err := m.Nodes("cl-super")
	must(t, err)
	killed := 0
	for _, pid := range leftProcesses(t, "cl-super", "cl-super-1") {
		cmdline, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if err == nil && strings.HasPrefix(string(cmdline), kubeletProgram) && killed != pid {
			must(t, unix.Kill(pid, unix.SIGKILL))
			killed = pid
			break
		}
	}
	if killed == 0 {
		t.Fatal("the node runs no kubelet")
	}
	eventually(t, "the kubelet answers again", func() bool {
		there, _ := exists(filepath.Join("/proc", strconv.Itoa(killed)))
		return !there && ask(nodes[0].Address) == "cl-super-1"
	})
	if log := tail(m.folder("cl-super").nodeLog("cl-super-1"), 1000); !strings.Contains(log, "kubelet ended (signal killed)") {
		t.Errorf("the init's log:\n%s", log)
	}
}

func TestBusyPort(t *testing.T) {
	m, _ := testMachine(t, "cl-port")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	err = m.Create(t.Context(), CreateOptions{Name: "cl-port", Port: l.Addr().(*net.TCPAddr).Port})
	if err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("create: %v", err)
	}
	if there, _ := exists(m.Root); there {
		t.Error("the folder of all clusters stays")
	}
}

func TestRefusals(t *testing.T) {
	m, _ := testMachine(t, "cl-none")
	ctx := t.Context()
	m.Programs.Kubelet = "/nowhere/kubelet"
	for want, err := range map[string]error{
		"is not valid":                       m.Create(ctx, CreateOptions{Name: "../x"}),
		"use 1 to":                           m.Create(ctx, CreateOptions{Name: "cl-none", Nodes: maxNodes + 1}),
		"make build":                         m.Create(ctx, CreateOptions{Name: "cl-none"}),
		"no such cluster: cl-none":           m.Start(ctx, "cl-none"),
		"no such cluster: cl-none (\"ctl cl": m.NodeKill(ctx, "cl-none", "x"),
	} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("error %v, want one sentence with %q", err, want)
		}
	}
}

func TestEgress(t *testing.T) {
	m, _ := testMachine(t, "cl-open")
	before, err := os.ReadFile(forwardingFile)
	must(t, err)
	must(t, m.Create(t.Context(), CreateOptions{Name: "cl-open", Nodes: 1, Egress: true}))
	nodes, err := m.Nodes("cl-open")
	must(t, err)
	routes, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(nodes[0].PID), "net", "route"))
	must(t, err)
	if !strings.Contains(string(routes), "eth0\t00000000\t") {
		t.Errorf("the node has no default route:\n%s", routes)
	}
	if on, err := os.ReadFile(forwardingFile); err != nil || string(on) != "1\n" {
		t.Errorf("forwarding is %q, %v", on, err)
	}
	checkOutside(t, nodes[0])
	must(t, m.Delete(t.Context(), "cl-open"))
	if after, err := os.ReadFile(forwardingFile); err != nil || string(after) != string(before) {
		t.Errorf("forwarding was %q and is %q, %v", before, after, err)
	}
}

// checkOutside puts a server beyond the host, in a namespace of its own, which
// knows no way back to the cluster: the node reaches it under the host's
// address.
func checkOutside(t *testing.T, node NodeInfo) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "outside")
	outside, err := network.CreateNS(file)
	must(t, err)
	t.Cleanup(func() { must(t, network.DeleteNS(file)) })
	defer outside.Close()
	host, err := network.CurrentNS()
	must(t, err)
	defer host.Close()
	const link, hostAddr, outsideAddr = "cl-outside", "198.51.100.1", "198.51.100.2"
	must(t, network.EnsureVeth(network.VethEnd{NS: host, Name: link}, network.VethEnd{NS: outside, Name: "eth0"}, 1500))
	must(t, host.EnsureAddr(link, netip.MustParsePrefix(hostAddr+"/30")))
	must(t, host.SetUp(link))
	must(t, outside.EnsureAddr("eth0", netip.MustParsePrefix(outsideAddr+"/30")))
	must(t, outside.SetUp("eth0"))
	var listener net.Listener
	must(t, outside.Do(func() (err error) {
		listener, err = net.Listen("tcp", outsideAddr+":0")
		return err
	}))
	defer listener.Close()
	seen := make(chan string, 1)
	go func() {
		if c, err := listener.Accept(); err == nil {
			seen <- c.RemoteAddr().(*net.TCPAddr).IP.String()
			c.Close()
		}
	}()
	inside, err := network.PIDNS(node.PID)
	must(t, err)
	defer inside.Close()
	must(t, inside.Do(func() error {
		c, err := net.DialTimeout("tcp", listener.Addr().String(), 10*time.Second)
		if err == nil {
			c.Close()
		}
		return err
	}))
	if from := <-seen; from != hostAddr {
		t.Errorf("the server outside saw %s, want the host's %s", from, hostAddr)
	}
}

// TestWithoutRoot runs the commands as nobody.
func TestWithoutRoot(t *testing.T) {
	m, _ := testMachine(t, "cl-user")
	// The test's own folders are closed to others.
	dir, err := os.MkdirTemp("", "cl-user-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	program := filepath.Join(dir, "program")
	data, err := os.ReadFile(m.Programs.APIServer)
	must(t, err)
	must(t, os.WriteFile(program, data, 0o755))
	file := filepath.Join(dir, "machine.json")
	must(t, writeJSON(file, &Machine{Root: filepath.Join(dir, "clusters"), Programs: m.Programs, Kubeconfig: filepath.Join(dir, "config")}))
	must(t, os.Chmod(file, 0o644))
	cmd := exec.Command(program, "create", file, "cl-user")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err == nil || strings.TrimSpace(string(out)) != ErrNotRoot.Error() {
		t.Errorf("create as nobody: %v, %q", err, out)
	}
}
