package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// wantedControllers are what pods use on a machine with cgroup v2 alone; they
// cannot do without neededControllers.
var (
	wantedControllers = []string{"cpu", "cpuset", "io", "memory", "pids"}
	neededControllers = []string{"cpu", "memory", "pids"}
)

// hierarchy is one mounted cgroup file system of the host.
type hierarchy struct {
	// Mount is where the host has it; the node mounts it at the same place.
	Mount string
	// V2 tells the unified hierarchy from a version 1 one.
	V2 bool
	// Options are the mount options that name a version 1 hierarchy, for
	// example "cpu,cpuacct" or "name=systemd".
	Options string
	// Own is the calling process's cgroup below Mount, "/" at the top.
	Own string
}

// hostHierarchies reads which cgroup file systems this machine has and where
// the calling process is in them.
func hostHierarchies() ([]hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find the cgroup file systems: %w", err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("find this process's cgroups: %w", err)
	}
	list := parseHierarchies(mounts, own)
	if len(list) == 0 {
		return nil, errors.New("no cgroup file system is mounted under /sys/fs/cgroup: mount one (mount -t cgroup2 cgroup2 /sys/fs/cgroup)")
	}
	return list, nil
}

// parseHierarchies matches /proc/self/mountinfo with /proc/self/cgroup.
func parseHierarchies(mountinfo, own []byte) []hierarchy {
	paths := map[string]string{} // controllers as the kernel lists them, "" for v2
	for line := range strings.Lines(string(own)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 {
			paths[parts[1]] = parts[2]
		}
	}
	var list []hierarchy
	scanner := bufio.NewScanner(bytes.NewReader(mountinfo))
	for scanner.Scan() {
		before, after, ok := strings.Cut(scanner.Text(), " - ")
		fields, tail := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(tail) < 3 || !strings.HasPrefix(fields[4], "/sys/fs/cgroup") {
			continue
		}
		// A hierarchy mounted from below its root shows only a part of it.
		root, mount := fields[3], fields[4]
		switch tail[0] {
		case "cgroup2":
			list = append(list, hierarchy{Mount: mount, V2: true, Own: below(paths[""], root)})
		case "cgroup":
			for names, path := range paths {
				if names != "" && sameControllers(names, tail[2]) {
					list = append(list, hierarchy{Mount: mount, Options: names, Own: below(path, root)})
				}
			}
		}
	}
	slices.SortFunc(list, func(a, b hierarchy) int { return strings.Compare(a.Mount, b.Mount) })
	return list
}

// below returns path as seen in a mount of root.
func below(path, root string) string {
	rel, err := filepath.Rel(root, path)
	if err != nil || strings.HasPrefix(rel, "..") {
		return "/"
	}
	return filepath.Join("/", rel)
}

// sameControllers reports whether super-block options hold all of the names.
func sameControllers(names, options string) bool {
	return containsAll(strings.Split(options, ","), strings.Split(names, ","))
}

// clusterCgroup is the name of a cluster's cgroup in every hierarchy.
func clusterCgroup(cluster string) string { return "coracle-" + cluster }

// parent is the directory below which this hierarchy's cluster cgroups are
// made. In version 1 that is the caller's own cgroup, so that whatever bounds
// the caller bounds the cluster. In version 2 a cgroup with processes cannot
// hand out controllers, so it is the nearest ancestor that hands out all that
// pods need, or the top, where they can be switched on.
func (h hierarchy) parent() string {
	dir := filepath.Join(h.Mount, h.Own)
	if !h.V2 {
		return dir
	}
	for ; dir != h.Mount; dir = filepath.Dir(dir) {
		enabled, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
		if err == nil && containsAll(strings.Fields(string(enabled)), neededControllers) {
			break
		}
	}
	return dir
}

func containsAll(have, want []string) bool {
	for _, w := range want {
		if !slices.Contains(have, w) {
			return false
		}
	}
	return true
}

// createCgroups makes the cgroup of one part of a cluster, a node or the
// control plane, in every hierarchy and returns the directories. It is safe to
// repeat.
func createCgroups(list []hierarchy, cluster, part string) ([]string, error) {
	var dirs []string
	for _, h := range list {
		top := filepath.Join(h.parent(), clusterCgroup(cluster))
		dir := filepath.Join(top, part)
		for _, d := range []string{top, dir} {
			if err := makeCgroup(h, d); err != nil {
				return dirs, fmt.Errorf("make cgroup %s: %w", d, err)
			}
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// makeCgroup makes one directory and lets it use its parent's resources.
func makeCgroup(h hierarchy, dir string) error {
	if h.V2 {
		if err := enableControllers(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// A new version 1 cpuset is empty, and an empty cpuset admits no process.
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		if h.V2 || !sameControllers("cpuset", h.Options) {
			break
		}
		value, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), value, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// enableControllers hands all wanted controllers that dir has to its children.
func enableControllers(dir string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "cgroup.subtree_control")
	on, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var missing []string
	for _, c := range wantedControllers {
		if slices.Contains(strings.Fields(string(have)), c) && !slices.Contains(strings.Fields(string(on)), c) {
			missing = append(missing, "+"+c)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	err = os.WriteFile(file, []byte(strings.Join(missing, " ")), 0o644)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("cgroup %s has processes of its own, so it cannot hand out controllers (inside a container: move its processes into a cgroup below): %w", dir, err)
	}
	return err
}

// joinCgroups moves a process into the directories.
func joinCgroups(dirs []string, pid int) error {
	for _, dir := range dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return fmt.Errorf("move process %d into cgroup %s: %w", pid, dir, err)
		}
	}
	return nil
}

// mountCgroups mounts the hierarchies inside a node. It runs in the node's
// cgroup namespace, so the node's own cgroup is the top of what it sees.
func mountCgroups(list []hierarchy) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	const top = "/sys/fs/cgroup"
	if len(list) == 0 || list[0].Mount != top {
		if err := unix.Mount("tmpfs", top, "tmpfs", flags, "mode=0755"); err != nil {
			return fmt.Errorf("mount %s: %w", top, err)
		}
	}
	for _, h := range list {
		if err := os.MkdirAll(h.Mount, 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
		fstype := "cgroup"
		if h.V2 {
			fstype = "cgroup2"
		}
		if err := unix.Mount("cgroup", h.Mount, fstype, flags, h.Options); err != nil {
			return fmt.Errorf("mount cgroups at %s: %w", h.Mount, err)
		}
		if h.V2 {
			if err := leaveTop(h.Mount); err != nil {
				return err
			}
			continue
		}
		for _, name := range strings.Split(h.Options, ",") {
			link := filepath.Join(top, name)
			if _, err := os.Lstat(link); err != nil && !strings.Contains(name, "=") {
				if err := os.Symlink(filepath.Base(h.Mount), link); err != nil {
					return fmt.Errorf("link %s: %w", link, err)
				}
			}
		}
	}
	return nil
}

// leaveTop moves the init into a cgroup of its own, for a version 2 cgroup
// with processes cannot hand controllers to the pods' cgroups.
func leaveTop(mount string) error {
	leaf := filepath.Join(mount, "init")
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the init's cgroup: %w", err)
	}
	if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("1"), 0o644); err != nil {
		return fmt.Errorf("move the init into its cgroup: %w", err)
	}
	if err := enableControllers(mount); err != nil {
		return fmt.Errorf("enable the node's cgroup controllers: %w", err)
	}
	return nil
}

// findCgroups returns a cluster's directories in all hierarchies, wherever
// below the mounts they were made.
func findCgroups(cluster string) ([]string, error) {
	list, err := hostHierarchies()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, h := range list {
		err := filepath.WalkDir(h.Mount, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil // cgroups come and go while we look
			}
			if d.Name() == clusterCgroup(cluster) {
				found = append(found, path)
				return fs.SkipDir
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("look for cgroups below %s: %w", h.Mount, err)
		}
	}
	return found, nil
}

// cgroupProcesses lists the processes in a cgroup and all below it.
func cgroupProcesses(dir string) []int {
	var pids []int
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // a cgroup that is gone has no processes
		}
		data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return nil
		}
		for _, f := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// thawCluster lets the processes of a cluster run that a dead runtime has left
// frozen.
func thawCluster(cluster string) {
	dirs, err := findCgroups(cluster)
	if err != nil {
		return // what cannot be found cannot be thawed; the kill says what is stuck
	}
	for _, dir := range dirs {
		thaw(dir)
	}
}

// awaitEmpty waits until nothing runs in a part's cgroups any more, for
// processes that were frozen when they were killed end a little later.
func awaitEmpty(ctx context.Context, cluster, part string) error {
	dirs, err := findCgroups(cluster)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(killPatience); ; {
		var left []int
		for _, dir := range dirs {
			left = append(left, cgroupProcesses(filepath.Join(dir, part))...)
		}
		if len(left) == 0 || ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not end although their node is off", left)
		}
		thawCluster(cluster)
		time.Sleep(2 * time.Millisecond)
	}
}

// thaw undoes the freezing of a cgroup and of all below it, in either version
// of cgroups.
func thaw(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // a cgroup that is gone is not frozen
		}
		for file, value := range map[string]string{"freezer.state": "THAWED", "cgroup.freeze": "0"} {
			file = filepath.Join(path, file)
			if _, err := os.Stat(file); err == nil {
				_ = os.WriteFile(file, []byte(value), 0)
			}
		}
		return nil
	})
}

// removeEmptyCgroups removes one part's cgroups of a cluster, and the cluster's
// when nothing else is in them.
func removeEmptyCgroups(cluster, part string) error {
	dirs, err := findCgroups(cluster)
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, removeCgroup(filepath.Join(dir, part), cgroupPatience))
		if err := os.Remove(dir); err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove cgroup: %w", err))
		}
	}
	return errors.Join(errs...)
}

// removeCgroup removes a directory and all below it, deepest first. The
// kernel keeps a cgroup busy for a moment after its last process has ended.
func removeCgroup(dir string, patience time.Duration) error {
	var dirs []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	deadline := time.Now().Add(patience)
	for _, d := range slices.Backward(dirs) {
		for {
			err := os.Remove(d)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
				return fmt.Errorf("remove cgroup: %w", err)
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	return nil
}
