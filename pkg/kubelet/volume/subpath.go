package volume

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"k8s.io/apimachinery/pkg/types"
)

// beneath makes the kernel refuse every path that leads out of the folder it
// starts from, also by links and also while somebody moves things about.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS

// maxRetries bounds the retries of a resolution that raced with a rename.
const maxRetries = 128

// openBeneath resolves path beneath the folder root. Links are followed as long
// as they stay inside.
func openBeneath(root int, path string, flags int) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: beneath}
	for range maxRetries {
		fd, err := unix.Openat2(root, path, &how)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EXDEV) {
			err = errors.New("it leads out of the volume")
		}
		return fd, err
	}
	return -1, errors.New("the volume changes faster than the path can be resolved")
}

// makeBeneath is openBeneath that makes missing folders, with the mode given.
func makeBeneath(root int, path string, mode uint32) (int, error) {
	fd, err := openBeneath(root, path, unix.O_PATH)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	parent, err := unix.FcntlInt(uintptr(root), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	prefix := ""
	for element := range strings.SplitSeq(filepath.Clean(path), "/") {
		prefix = filepath.Join(prefix, element)
		next, err := openBeneath(root, prefix, unix.O_PATH)
		if errors.Is(err, unix.ENOENT) {
			next, err = makeDirAt(parent, element, mode)
		}
		unix.Close(parent)
		if err != nil {
			return -1, err
		}
		parent = next
	}
	return parent, nil
}

// makeDirAt makes one folder; a link that has taken its name is not followed.
func makeDirAt(parent int, name string, mode uint32) (int, error) {
	err := unix.Mkdirat(parent, name, mode)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	made := err == nil
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: beneath | unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(parent, name, &how)
	if err != nil || !made {
		return fd, err
	}
	// Undo the umask. The group bit that the parent handed down stays.
	var stat unix.Stat_t
	if err = unix.Fstat(fd, &stat); err == nil {
		err = unix.Fchmod(fd, mode|stat.Mode&unix.S_ISGID)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// checkSubPath refuses what Kubernetes refuses in a subPath, so that users get
// the reason in words.
func checkSubPath(path string) error {
	switch {
	case filepath.IsAbs(path):
		return fmt.Errorf("subPath %q must not be an absolute path", path)
	case slices.Contains(strings.Split(path, "/"), ".."):
		return fmt.Errorf("subPath %q must not contain '..'", path)
	case strings.Contains(path, "\x00"):
		return fmt.Errorf("subPath %q must not contain a NUL", path)
	}
	return nil
}

// subPathMount is one volumeMount with a subPath.
type subPathMount struct {
	pod       types.UID
	container string
	volume    string
	index     int // of the volumeMount in its container
	path      string
	source    Source
}

// mountSubPath shows a path in a volume at a place of its own, where nobody but
// the agent can exchange it, and gives that place.
func (m *Manager) mountSubPath(s subPathMount) (string, error) {
	if err := checkSubPath(s.path); err != nil {
		return "", err
	}
	if err := checkElement(s.container); err != nil {
		return "", fmt.Errorf("container name: %w", err)
	}
	root, err := unix.Open(s.source.HostPath, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: s.source.HostPath, Err: err}
	}
	defer unix.Close(root)
	var stat unix.Stat_t
	if err := unix.Fstat(root, &stat); err != nil {
		return "", err
	}
	fd := -1
	if s.source.ReadOnly {
		fd, err = openBeneath(root, s.path, unix.O_PATH)
	} else {
		fd, err = makeBeneath(root, s.path, stat.Mode&0o777)
	}
	target := filepath.Join(m.PodDir(s.pod), subPathsDir, s.volume, s.container, strconv.Itoa(s.index))
	if errors.Is(err, unix.ENOENT) && s.source.published {
		// An optional object or key that is not there shows as an empty folder.
		return target, emptyTarget(target)
	}
	if err != nil {
		return "", fmt.Errorf("subPath %q of volume %q: %w", s.path, s.volume, err)
	}
	defer unix.Close(fd)
	if err := bindTo(fd, target); err != nil {
		return "", fmt.Errorf("subPath %q of volume %q: %w", s.path, s.volume, err)
	}
	return target, nil
}

// bindTo mounts what the descriptor stands for at target, in place of what an
// earlier start of the container left there.
func bindTo(fd int, target string) error {
	var want unix.Stat_t
	if err := unix.Fstat(fd, &want); err != nil {
		return err
	}
	isDir := want.Mode&unix.S_IFMT == unix.S_IFDIR
	mounted, err := isMount(target)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if mounted {
		var have unix.Stat_t
		if err := unix.Lstat(target, &have); err == nil && have.Dev == want.Dev && have.Ino == want.Ino {
			return nil
		}
		if err := unmount(target); err != nil {
			return err
		}
	}
	if err := makeTarget(target, isDir); err != nil {
		return err
	}
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(fd), target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting at %s: %w", target, err)
	}
	return nil
}

// emptyTarget makes target an empty folder with nothing mounted on it.
func emptyTarget(target string) error {
	mounted, err := isMount(target)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if mounted {
		if err := unmount(target); err != nil {
			return err
		}
	}
	return makeTarget(target, true)
}

// makeTarget makes an empty folder or file to mount on, replacing one of the
// wrong type.
func makeTarget(target string, isDir bool) error {
	if info, err := os.Lstat(target); err == nil && info.IsDir() != isDir {
		if err := os.Remove(target); err != nil {
			return err
		}
	}
	if isDir {
		return os.MkdirAll(target, 0o750)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}
	return f.Close()
}

// maxEnvFile is the most that EnvFile reads.
const maxEnvFile = 64 << 10

// EnvFile reads a file of a mounted volume, for podenv.Input.EnvFile. It reads
// regular files only and never leaves the volume; a missing file gives an error
// that matches fs.ErrNotExist.
func (m *Manager) EnvFile(mounted Mounted, volumeName, path string) ([]byte, error) {
	src, ok := mounted[volumeName]
	if !ok {
		return nil, fmt.Errorf("the pod has no volume %q", volumeName)
	}
	if err := checkSubPath(path); err != nil {
		return nil, err
	}
	root, err := unix.Open(src.HostPath, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: src.HostPath, Err: err}
	}
	defer unix.Close(root)
	// Without O_NONBLOCK a pipe in place of the file would hang the agent.
	fd, err := openBeneath(root, path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxEnvFile+1))
	if err == nil && len(data) > maxEnvFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxEnvFile)
	}
	return data, err
}
