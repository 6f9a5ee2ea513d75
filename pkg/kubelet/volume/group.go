package volume

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// fsGroup is the group that shall be able to use the pod's volumes, nil if any.
func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// Modes that fsGroup adds: the group may do what an owner usually may, and what
// is made in a folder later belongs to the group as well.
const (
	groupFileMode = 0o660
	groupDirMode  = unix.S_ISGID | 0o770
)

// applyGroup gives everything in a volume to the pod's fsGroup, unless the
// pod's policy is to look at the root only and the root is right. It follows no
// link and leaves other file systems mounted in the volume alone.
func applyGroup(dir string, pod *corev1.Pod) error {
	group := fsGroup(pod)
	if group == nil {
		return nil
	}
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	var stat unix.Stat_t
	if err := unix.Fstat(root, &stat); err != nil {
		unix.Close(root)
		return fmt.Errorf("reading the owner of %s: %w", dir, err)
	}
	policy := pod.Spec.SecurityContext.FSGroupChangePolicy
	if policy != nil && *policy == corev1.FSGroupChangeOnRootMismatch &&
		stat.Gid == uint32(*group) && stat.Mode&groupDirMode == groupDirMode {
		return unix.Close(root)
	}
	if err := groupTree(root, int(*group), 0); err != nil {
		return fmt.Errorf("giving %s to group %d: %w", dir, *group, err)
	}
	return nil
}

// maxGroupDepth bounds the recursion, and with it the open descriptors.
const maxGroupDepth = 256

// groupTree changes the folder behind the descriptor, which it closes, and all
// below it.
func groupTree(fd, group, depth int) error {
	dir := os.NewFile(uintptr(fd), "volume")
	defer dir.Close()
	if depth > maxGroupDepth {
		return errors.New("its folders are nested too deep")
	}
	for {
		names, err := dir.Readdirnames(512)
		for _, name := range names {
			if err := groupEntry(fd, name, group, depth); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
		if err != nil || len(names) == 0 {
			break
		}
	}
	return groupOne(fd, group, groupDirMode)
}

func groupEntry(parent int, name string, group, depth int) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV}
	fd, err := unix.Openat2(parent, name, &how)
	if errors.Is(err, unix.EXDEV) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return unix.Fchownat(fd, "", -1, group, unix.AT_EMPTY_PATH)
	case unix.S_IFDIR:
		dir, err := unix.Openat2(fd, ".", &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC})
		if err != nil {
			return err
		}
		return groupTree(dir, group, depth+1)
	}
	return groupOne(fd, group, groupFileMode)
}

// groupOne changes what a descriptor stands for, opened with O_PATH or not.
func groupOne(fd, group int, add uint32) error {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if stat.Gid == uint32(group) && stat.Mode&add == add {
		return nil
	}
	if err := unix.Fchownat(fd, "", -1, group, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	// The magic link leads to the descriptor's own file, whatever its name is now.
	return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), stat.Mode&0o7777|add)
}
