package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"

	"golang.org/x/sys/unix"
)

// The init inherits two pipes from the process that starts the node.
const (
	// goPipe becomes readable when the cgroups and the network are in place.
	goPipe = 3
	// reportPipe takes one line: "ok" once the node's programs are being
	// started, or the reason why they cannot be.
	reportPipe = 4
)

const initReady = "ok"

// NodeInit is the first process of a node: the program that started the node,
// run again inside new namespaces. It turns its namespaces into a machine,
// starts containerd and the kubelet, keeps them running, reaps orphans, and
// ends them in order on SIGTERM. It returns the exit code. When it is killed,
// the kernel ends every process of the node and drops every mount.
func NodeInit(ctx context.Context, path string) int {
	// The cgroup namespace is a property of the thread: children must be
	// forked from the one that entered it. The thread is never given back.
	runtime.LockOSThread()
	// SIGCHLD before the first child, so that none is missed.
	sigs := make(chan os.Signal, 64)
	signal.Notify(sigs, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGPWR)
	report := os.NewFile(reportPipe, "report")
	s, err := becomeNode(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, "node init:", err)
		fmt.Fprintln(report, err)
		return 1
	}
	fmt.Fprintln(report, initReady)
	report.Close()
	return s.run(ctx, sigs)
}

// becomeNode waits for the go sign and sets the machine up.
func becomeNode(path string) (*supervisor, error) {
	if unix.Getpid() != 1 {
		return nil, errors.New("this command is the first process of a node and is started by \"ctl cluster\"; it does nothing by itself")
	}
	cfg, err := readInitConfig(path)
	if err != nil {
		return nil, err
	}
	sign := os.NewFile(goPipe, "go")
	if _, err := io.ReadFull(sign, make([]byte, 1)); err != nil {
		return nil, errors.New("the process that was starting this node ended before the node was ready")
	}
	sign.Close()
	if err := setUpMachine(cfg); err != nil {
		return nil, err
	}
	return newSupervisor(cfg), nil
}

// setUpMachine gives the node its hostname, file system and cgroups.
func setUpMachine(cfg *initConfig) error {
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("enter a cgroup namespace: %w", err)
	}
	if err := unix.Sethostname([]byte(cfg.Hostname)); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	if err := mountRoot(cfg); err != nil {
		return err
	}
	if err := mountCgroups(cfg.Hierarchies); err != nil {
		return err
	}
	// Volumes that propagate out of a container need a shared root; the
	// peers are this node's own, for its mounts were cut off from the host's.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share the node's mounts with its containers: %w", err)
	}
	return nil
}
