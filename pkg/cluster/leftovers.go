package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"coracle/pkg/network"
)

// Leftovers lists everything on this machine that belongs to a cluster of this
// name, running or not: after a deletion, nothing.
func (m *Machine) Leftovers(ctx context.Context, name string) ([]string, error) {
	f := m.folder(name)
	var left []string
	there, err := exists(string(f))
	if err != nil {
		return nil, err
	}
	if there {
		left = append(left, "folder "+string(f))
	}
	mounts, err := mountsBelow(string(f))
	if err != nil {
		return nil, err
	}
	for _, at := range mounts {
		left = append(left, "mount "+at)
	}
	dirs, err := findCgroups(name)
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		left = append(left, "cgroup "+dir)
	}
	processes, err := processesOf(f, name)
	if err != nil {
		return nil, err
	}
	left = append(left, processes...)
	network, err := networkOf(ctx, f, name)
	if err != nil {
		return nil, err
	}
	left = append(left, network...)
	file, err := m.kubeconfigFile()
	if err != nil {
		return left, nil // no kubeconfig, no context
	}
	cfg, _, err := readKubeconfig(file)
	if err != nil {
		return nil, err
	}
	if _, mine := ours(cfg, f, name); mine {
		left = append(left, fmt.Sprintf("context %s in %s", name, file))
	}
	return left, nil
}

// networkOf lists the host's link and firewall table of a cluster.
func networkOf(ctx context.Context, f folder, name string) ([]string, error) {
	var left []string
	host, err := network.CurrentNS()
	if err != nil {
		return nil, err
	}
	defer host.Close()
	link, err := host.HasLink(f.linkName())
	if err != nil {
		return nil, err
	}
	if link {
		left = append(left, "network link "+f.linkName())
	}
	rules, err := hasHostRules(ctx, name)
	if err != nil {
		return nil, err
	}
	if rules {
		left = append(left, "nftables table "+hostTable(name))
	}
	return left, nil
}

// processesOf lists processes in the cluster's cgroups or with the cluster's
// folder on their command line: init, containerd, shims, containers, kubelet
// and control plane.
func processesOf(f folder, name string) ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var left []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if _, state, err := processStat(pid); err != nil || state == 'Z' {
			continue // it has ended, and only its parent can do more
		}
		cmdline, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		cgroup, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cgroup"))
		inCgroup := bytes.Contains(cgroup, []byte("/"+clusterCgroup(name)+"/"))
		inFolder := bytes.Contains(cmdline, []byte(string(f)+"/"))
		if inCgroup || inFolder {
			left = append(left, fmt.Sprintf("process %d (%s)", pid, bytes.TrimSpace(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}))))
		}
	}
	return left, nil
}
