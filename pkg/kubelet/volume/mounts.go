package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/resource"
)

// mountTmpfs mounts memory at the folder, which it makes; a size of 0 leaves
// the limit to the kernel (half of the memory). It does nothing if the folder
// is a mount already.
func mountTmpfs(dir string, size int64, group *int64) error {
	options := memoryOptions(group)
	if size > 0 {
		options += ",size=" + strconv.FormatInt(size, 10)
	}
	// Pages of a Secret must not reach the swap device; kernels before 6.3 do
	// not know the option and are asked without it.
	err := mountNew(dir, "tmpfs", options+",noswap", unix.MS_NOSUID|unix.MS_NODEV)
	if errors.Is(err, unix.EINVAL) {
		err = mountNew(dir, "tmpfs", options, unix.MS_NOSUID|unix.MS_NODEV)
	}
	return err
}

func mountHugePages(dir string, size resource.Quantity, group *int64) error {
	options := memoryOptions(group) + ",pagesize=" + strconv.FormatInt(size.Value(), 10)
	return mountNew(dir, "hugetlbfs", options, unix.MS_NOSUID|unix.MS_NODEV)
}

func memoryOptions(group *int64) string {
	if group == nil {
		return "mode=777"
	}
	return "mode=2777,gid=" + strconv.FormatInt(*group, 10)
}

func mountNew(dir, fstype, options string, flags uintptr) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	mounted, err := isMount(dir)
	if err != nil || mounted {
		return err
	}
	if err := unix.Mount(fstype, dir, fstype, flags, options); err != nil {
		return fmt.Errorf("mounting %s at %s: %w", fstype, dir, err)
	}
	return nil
}

// isMount reports whether the folder or file is the root of a mount.
func isMount(path string) (bool, error) {
	var stat unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &stat); err != nil {
		return false, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	if stat.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return false, errors.New("this kernel does not tell mounts from folders: Linux 5.8 or later is needed")
	}
	return stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// unmountBeneath takes down all mounts at and below the folder, the innermost
// first, until none is left. A mount that is still in use disappears from view
// at once and ends with its last user.
func unmountBeneath(ctx context.Context, dir string) error {
	resolved, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// More than one pass is needed only where something mounts meanwhile.
	for range 5 {
		points, err := mountsBeneath(resolved)
		if err != nil || len(points) == 0 {
			return err
		}
		for _, point := range slices.Backward(points) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := unmount(point); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("something keeps mounting below %s", dir)
}

func unmount(point string) error {
	err := unix.Unmount(point, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(point, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	// Not a mount any more, or gone altogether: somebody else was faster.
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return fmt.Errorf("unmounting %s: %w", point, err)
}

func mountsBeneath(dir string) ([]string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("reading the table of mounts: %w", err)
	}
	return parseMounts(table, dir), nil
}

// parseMounts lists the mount points at or below dir in the order of the table,
// in which a mount stands behind those that it is mounted on.
func parseMounts(table []byte, dir string) []string {
	var points []string
	for line := range bytes.Lines(table) {
		fields := strings.Fields(string(line))
		if len(fields) < 5 {
			continue
		}
		point := unescape(fields[4])
		if point == dir || strings.HasPrefix(point, dir+"/") {
			points = append(points, point)
		}
	}
	return points
}

// unescape undoes the kernel's octal escapes of white space and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
