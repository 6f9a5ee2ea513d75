package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"coracle/pkg/image"
	"coracle/pkg/nodeconfig"
)

const (
	// kubeletProgram is the kubelet as seen in a node.
	kubeletProgram = "/opt/coracle/bin/kubelet"
	nodePath       = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// bootTimeout bounds the time from fork to the node's programs starting.
	bootTimeout = 20 * time.Second
	// powerOffGrace is how long a node gets to stop in order.
	powerOffGrace = 25 * time.Second
)

// hostFiles are files of the host's /etc that programs in a node read. Those
// that the host lacks are left out.
var hostFiles = []string{
	"group", "ld.so.cache", "localtime", "nsswitch.conf", "os-release", "passwd", "protocols", "services",
}

// prepareNode writes a node's files: everything but its certificates.
func prepareNode(f folder, s *Spec, n *NodeSpec, hierarchies []hierarchy) error {
	for _, d := range rootDirs {
		if err := os.MkdirAll(f.rootfs(n.Name, d), 0o755); err != nil {
			return fmt.Errorf("make the node's folders: %w", err)
		}
	}
	for _, d := range []string{"tmp", "var/tmp"} {
		if err := os.Chmod(f.rootfs(n.Name, d), 0o777|os.ModeSticky); err != nil {
			return fmt.Errorf("make the node's folders: %w", err)
		}
	}
	if err := writeEtc(f, s, n); err != nil {
		return err
	}
	canLower, err := mayLowerOOMScore()
	if err != nil {
		return err
	}
	containerd, err := containerdConfig(containerdSettings{
		PauseImage:       image.PauseRef,
		Snapshotter:      s.Snapshotter,
		Socket:           runtimeSocket,
		CNIBinDir:        cniBinDir,
		CNIConfDir:       cniConfDir,
		RestrictOOMScore: !canLower,
	})
	if err != nil {
		return err
	}
	if err := writeFile(f.rootfs(n.Name, "etc/containerd/config.toml"), []byte(containerd), 0o644); err != nil {
		return err
	}
	return writeJSON(f.node(n.Name, "init.json"), nodeInitConfig(f, s, n, hierarchies))
}

// writeEtc gives the node an /etc of its own.
func writeEtc(f folder, s *Spec, n *NodeSpec) error {
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost\n"
	for _, other := range s.Nodes {
		hosts += fmt.Sprintf("%s\t%s\n", other.Address, other.Name)
	}
	resolv := ""
	if s.Egress {
		resolv = hostNameservers()
	}
	files := map[string]string{
		"hostname":    n.Name + "\n",
		"hosts":       hosts,
		"machine-id":  f.machineID(n.Name, s.Created) + "\n",
		"resolv.conf": resolv,
	}
	for name, content := range files {
		if err := writeFile(f.rootfs(n.Name, "etc", name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	for _, name := range hostFiles {
		data, err := os.ReadFile(filepath.Join("/etc", name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("copy a file for the node: %w", err)
		}
		if err := writeFile(f.rootfs(n.Name, "etc", name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// hostNameservers is the host's resolv.conf without what only the host can
// reach.
func hostNameservers() string {
	data, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return ""
	}
	var b strings.Builder
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) >= 2 && fields[0] == "nameserver" && !strings.HasPrefix(fields[1], "127.") && fields[1] != "::1" {
			fmt.Fprintf(&b, "nameserver %s\n", fields[1])
		}
	}
	return b.String()
}

// nodeInitConfig describes the machine that a node's init builds.
func nodeInitConfig(f folder, s *Spec, n *NodeSpec, hierarchies []hierarchy) *initConfig {
	cfg := &initConfig{
		Hostname:    n.Name,
		Root:        f.rootfs(n.Name),
		Links:       map[string]string{"var/run": "/run", "var/lock": "/run/lock"},
		Hierarchies: hierarchies,
		Binds:       []bind{{Source: "/usr", Target: "usr", ReadOnly: true, Recursive: true}},
		Processes: []process{{
			Name: "containerd",
			Args: []string{"containerd", "--config", "/etc/containerd/config.toml"},
			Env:  []string{nodePath},
			Log:  "/var/log/containerd.log",
		}},
		StopOrder: []string{"kubelet", "containerd"},
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		path := "/" + name
		if target, err := os.Readlink(path); err == nil {
			cfg.Links[name] = target
		} else if st, err := os.Stat(path); err == nil && st.IsDir() {
			cfg.Binds = append(cfg.Binds, bind{Source: path, Target: name, ReadOnly: true, Recursive: true})
		}
	}
	for _, path := range []string{"/etc/alternatives", "/etc/ssl"} {
		if _, err := os.Stat(path); err == nil {
			cfg.Binds = append(cfg.Binds, bind{Source: path, Target: path, ReadOnly: true})
		}
	}
	if s.Programs.Kubelet == "" {
		return cfg
	}
	cfg.Binds = append(cfg.Binds, bind{Source: s.Programs.Kubelet, Target: kubeletProgram, ReadOnly: true})
	cfg.Processes = append(cfg.Processes, process{
		Name:  "kubelet",
		Args:  append(append([]string{kubeletProgram}, s.Programs.KubeletArgs...), "--config", nodeconfig.Path),
		Env:   []string{nodePath},
		Log:   "/var/log/kubelet.log",
		After: []string{nodeconfig.Path, runtimeSocket},
	})
	return cfg
}

// startNode powers a prepared node on and returns when its programs are being
// started. A node that is on is left alone.
func startNode(ctx context.Context, f folder, s *Spec, index int, hierarchies []hierarchy) error {
	n := &s.Nodes[index]
	if p, err := readProcess(f.nodePID(n.Name)); err == nil && p.alive() {
		return nil
	}
	if err := prepareNode(f, s, n, hierarchies); err != nil {
		return fmt.Errorf("start node %s: %w", n.Name, err)
	}
	cgroups, err := createCgroups(hierarchies, s.Name, n.Name)
	if err != nil {
		return fmt.Errorf("start node %s: %w", n.Name, err)
	}
	if err := bootNode(ctx, f, s, index, cgroups); err != nil {
		return fmt.Errorf("start node %s (its log is %s): %w", n.Name, f.nodeLog(n.Name), err)
	}
	return nil
}

// bootNode forks the init into new namespaces, gives it its cgroups and its
// network, and waits for its report.
func bootNode(ctx context.Context, f folder, s *Spec, index int, cgroups []string) error {
	n := &s.Nodes[index]
	goRead, goWrite, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer goRead.Close()
	defer goWrite.Close()
	reportRead, reportWrite, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer reportRead.Close()
	defer reportWrite.Close()
	args := append(append([]string(nil), s.Programs.Init...), f.node(n.Name, "init.json"))
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{nodePath}
	cmd.ExtraFiles = []*os.File{goRead, reportWrite}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID,
	}
	p, err := startDetached(cmd, f.nodeLog(n.Name), f.nodePID(n.Name))
	if err != nil {
		return err
	}
	// The parent's copies must go, so that each side sees the other's end.
	goRead.Close()
	reportWrite.Close()
	err = errors.Join(joinCgroups(cgroups, p.PID), connectNode(f, s, index, p.PID))
	if err == nil {
		err = awaitReport(ctx, goWrite, reportRead)
	}
	if err != nil {
		return errors.Join(err, p.kill(context.WithoutCancel(ctx), nil))
	}
	return nil
}

// awaitReport gives the go sign and reads the init's one line.
func awaitReport(ctx context.Context, sign io.Writer, report *os.File) error {
	if _, err := sign.Write([]byte{1}); err != nil {
		return fmt.Errorf("the node's init ended before it began: %w", err)
	}
	deadline := time.Now().Add(bootTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := report.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("wait for the node's init: %w", err)
	}
	line, err := bufio.NewReader(report).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the node's init gave no report: %w", err)
	}
	if line = strings.TrimSpace(line); line != initReady {
		return errors.New(line)
	}
	return nil
}

// runtimePath is a node's containerd socket as seen from the host.
func (f folder) runtimePath(node string) (string, error) {
	p, err := readProcess(f.nodePID(node))
	if err != nil {
		return "", err
	}
	if !p.alive() {
		return "", fmt.Errorf("node %s is not running: start it with \"ctl cluster node start\"", node)
	}
	return fmt.Sprintf("/proc/%d/root%s", p.PID, runtimeSocket), nil
}
