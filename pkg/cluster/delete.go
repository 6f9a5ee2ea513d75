package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupPatience is how long the kernel may keep a cgroup busy after its last
// process has ended.
const cgroupPatience = 5 * time.Second

// Delete removes a cluster and all traces of it: processes, cgroups, mounts,
// namespaces, links, firewall rules, its context in the kubeconfig, and its
// folder. It also removes what an interrupted Create or Delete left. The error
// is ErrNotFound when there is nothing of that name.
func (m *Machine) Delete(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return ErrNotRoot
	}
	f := m.folder(name)
	unlock, err := lockCluster(ctx, f, name)
	if errors.Is(err, ErrNotFound) {
		return m.deleteRemains(ctx, f, name, err)
	}
	if err != nil {
		return err
	}
	defer unlock()
	begin := time.Now()
	// A half-made cluster may have no readable description; everything
	// needed follows from its name and its folder.
	s, err := f.load()
	if err != nil {
		s = &Spec{Name: name}
	}
	if err := m.tearDown(ctx, f, s); err != nil {
		return fmt.Errorf("cluster %s was not deleted completely (\"ctl cluster delete %[1]s\" can be run again): %w", name, err)
	}
	_ = os.Remove(failureLog(name)) // of a failed creation
	fmt.Fprintf(m.out(), "Cluster %s is deleted after %s\n", name, seconds(time.Since(begin)))
	return nil
}

// deleteRemains removes what outlived a cluster's folder, if anything did.
func (m *Machine) deleteRemains(ctx context.Context, f folder, name string, notFound error) error {
	left, err := m.Leftovers(ctx, name)
	if err != nil {
		return err
	}
	if len(left) == 0 {
		return notFound
	}
	if err := m.tearDown(ctx, f, &Spec{Name: name}); err != nil {
		return fmt.Errorf("what is left of cluster %s was not removed completely: %w", name, err)
	}
	fmt.Fprintf(m.out(), "Removed what was left of cluster %s\n", name)
	return nil
}

// tearDown goes on after an error, so that one stubborn part does not keep the
// others; but the folder, which says what else there is, goes only at the end.
func (m *Machine) tearDown(ctx context.Context, f folder, s *Spec) error {
	kubeconfig := s.Kubeconfig
	if kubeconfig == "" && s.Created.IsZero() {
		// Without a description, look where the context would be.
		kubeconfig, _ = m.kubeconfigFile()
	}
	parts := []struct {
		name string
		do   func() error
	}{
		{"Take the context out of the kubeconfig", func() error { return removeContext(ctx, kubeconfig, f, s.Name) }},
		{"End the simulated nodes", func() error { return endSimulated(ctx, f) }},
		{"Power off the nodes", func() error { return killNodes(ctx, f, s.Name) }},
		{"End the control plane", func() error { return endControlPlane(ctx, f, 0) }},
		{"Remove the cgroups", func() error { return removeClusterCgroups(ctx, s.Name) }},
		{"Remove the firewall rules", func() error { return removeHostRules(ctx, s.Name) }},
		{"Restore forwarding", func() error { return m.giveBackForwarding(f, s.Name) }},
		{"Remove the network", func() error { return disconnectHost(f) }},
	}
	var errs []error
	for _, p := range parts {
		begin := time.Now()
		if err := p.do(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
			continue
		}
		fmt.Fprintf(m.out(), "  %-40s %s\n", p.name, seconds(time.Since(begin)))
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return removeFolder(m.root(), f)
}

// killNodes pulls the plug of every node that has a process file.
func killNodes(ctx context.Context, f folder, cluster string) error {
	files, err := filepath.Glob(f.nodePID("*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range files {
		p, err := readProcess(file)
		if err != nil {
			// A damaged file names no process; if one runs, it is found by
			// its cgroup.
			continue
		}
		if err := p.kill(ctx, func() { thawCluster(cluster) }); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, os.Remove(file))
	}
	return errors.Join(errs...)
}

// removeClusterCgroups kills what still lives in a cluster's cgroups and
// removes them.
func removeClusterCgroups(ctx context.Context, cluster string) error {
	dirs, err := findCgroups(cluster)
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		thaw(dir)
	}
	for _, dir := range dirs {
		for _, pid := range cgroupProcesses(dir) {
			p, err := identify(pid)
			if err != nil {
				continue // it has ended
			}
			if err := p.kill(ctx, func() { thawCluster(cluster) }); err != nil {
				errs = append(errs, err)
			}
		}
		errs = append(errs, removeCgroup(dir, cgroupPatience))
	}
	return errors.Join(errs...)
}

// removeFolder removes a cluster's folder, and the folders above that hold
// clusters when they are empty. It never follows a mount: what is mounted
// below the folder is not the cluster's to delete.
func removeFolder(root string, f folder) error {
	mounts, err := mountsBelow(string(f))
	if err != nil {
		return err
	}
	for _, mount := range slices.Backward(mounts) {
		if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", mount, err)
		}
	}
	if mounts, err = mountsBelow(string(f)); err != nil || len(mounts) > 0 {
		return errors.Join(err, fmt.Errorf("the folder %s is kept, for something is mounted in it: %s", f, strings.Join(mounts, ", ")))
	}
	if err := os.RemoveAll(string(f)); err != nil {
		return fmt.Errorf("remove the cluster's folder: %w", err)
	}
	for dir := root; ; dir = filepath.Dir(dir) {
		// Stops at the first folder that is in use, and above the project's.
		if os.Remove(dir) != nil || root != DefaultRoot || filepath.Base(dir) == "coracle" {
			return nil
		}
	}
}

// mountsBelow lists the mounts at and below a folder in the order they were
// made.
func mountsBelow(dir string) ([]string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer file.Close()
	var out []string
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		if len(fields) < 5 {
			continue
		}
		at := unescapeMount.Replace(fields[4])
		if at == dir || strings.HasPrefix(at, dir+"/") {
			out = append(out, at)
		}
	}
	return out, scanner.Err()
}

// unescapeMount undoes the kernel's octal escapes in mountinfo.
var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// exists reports whether a path is there.
func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
