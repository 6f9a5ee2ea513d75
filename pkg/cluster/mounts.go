package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// rootDirs are the directories of a node's root that are its own. /tmp has
// the usual sticky bit.
var rootDirs = []string{
	"dev", "etc", "home", "media", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp", "usr",
	"var/cache", "var/lib/cni", "var/lib/containerd", "var/lib/kubelet", "var/log", "var/tmp",
	"etc/cni/net.d", "etc/containerd", "etc/coracle",
}

// mountRoot builds the node's file system in cfg.Root and makes it "/". The
// mount namespace must be new: nothing done here is seen by the host.
func mountRoot(cfg *initConfig) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cut the node's mounts off from the host's: %w", err)
	}
	root := cfg.Root
	if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount the node's root %s: %w", root, err)
	}
	for name, target := range cfg.Links {
		if err := ensureLink(filepath.Join(root, name), target); err != nil {
			return err
		}
	}
	if err := mountKernel(root); err != nil {
		return err
	}
	for _, b := range cfg.Binds {
		if err := bindMount(root, b); err != nil {
			return err
		}
	}
	return pivot(root)
}

func ensureLink(path, target string) error {
	if have, err := os.Readlink(path); err == nil && have == target {
		return nil
	}
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	if err := os.Symlink(target, path); err != nil {
		return fmt.Errorf("link %s: %w", path, err)
	}
	return nil
}

// mountKernel mounts the file systems that the kernel provides.
func mountKernel(root string) error {
	const plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	mounts := []struct {
		source, target, fstype string
		flags                  uintptr
		data                   string
	}{
		{"proc", "proc", "proc", plain, ""},
		{"sysfs", "sys", "sysfs", plain, ""},
		{"/dev", "dev", "", unix.MS_BIND, ""},
		{"devpts", "dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
		{"tmpfs", "dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"mqueue", "dev/mqueue", "mqueue", plain, ""},
		{"tmpfs", "run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	}
	for _, m := range mounts {
		target := filepath.Join(root, m.target)
		err := unix.Mount(m.source, target, m.fstype, m.flags, m.data)
		// A minimal /dev may lack these mount points; no container needs them
		// from the node, for the runtime gives each its own.
		if errors.Is(err, unix.ENOENT) && strings.HasPrefix(m.target, "dev/") {
			continue
		}
		if err != nil {
			return fmt.Errorf("mount %s at %s: %w", m.source, target, err)
		}
	}
	return nil
}

func bindMount(root string, b bind) error {
	target := filepath.Join(root, b.Target)
	if err := mountPoint(b.Source, target); err != nil {
		return err
	}
	flags := uintptr(unix.MS_BIND)
	if b.Recursive {
		flags |= unix.MS_REC
	}
	if err := unix.Mount(b.Source, target, "", flags, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", b.Source, target, err)
	}
	if !b.ReadOnly {
		return nil
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	recursive := uint(0)
	if b.Recursive {
		recursive = unix.AT_RECURSIVE
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, target, recursive, &attr); err != nil {
		return fmt.Errorf("make %s read-only: %w", target, err)
	}
	return nil
}

// mountPoint makes target a file or a directory, like source.
func mountPoint(source, target string) error {
	st, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("bind into the node: %w", err)
	}
	dir := target
	if !st.IsDir() {
		dir = filepath.Dir(target)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	if st.IsDir() {
		return nil
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	return f.Close()
}

// pivot makes root "/" and lets go of the host's tree.
func pivot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("enter %s: %w", root, err)
	}
	// With both arguments ".", the old root ends up stacked on the new one
	// and one unmount takes it away.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("make %s the root: %w", root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the host's files: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter the node's root: %w", err)
	}
	return nil
}
