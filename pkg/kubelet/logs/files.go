package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// folder is the folder of one container's logs, held open.
type folder struct {
	fd   int
	base string // name of the current log file in the folder
}

// openFolder opens the folder of a log file without following a link on the
// way down from the folder of all pods.
func openFolder(podDir, name string) (*folder, error) {
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("log file name %q leads out of the pod's log folder", name)
	}
	all, err := unix.Open(filepath.Dir(podDir), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Dir(podDir), Err: err}
	}
	defer unix.Close(all)
	rel := filepath.Join(filepath.Base(podDir), filepath.Dir(name))
	fd, err := openPlain(all, rel, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Join(filepath.Dir(podDir), rel), Err: err}
	}
	return &folder{fd: fd, base: filepath.Base(name)}, nil
}

func (d *folder) close() { unix.Close(d.fd) }

// open opens a regular file of the folder.
func (d *folder) open(name string) (*os.File, error) {
	// Without O_NONBLOCK a pipe in place of the file would hang the caller.
	fd, err := openPlain(d.fd, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, fmt.Errorf("log file %s is not a regular file", name)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func openPlain(dir int, path string, flags int) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(dir, path, &how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// rotated lists the older files of the log, the oldest first. A file is listed
// once: its compressed form, or itself while that is being made.
func (d *folder) rotated() ([]string, error) {
	listing, err := openPlain(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: ".", Err: err}
	}
	dir := os.NewFile(uintptr(listing), ".")
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	return rotatedOf(names, d.base), nil
}

// rotatedOf picks the rotated files of base, named base.<time>[.gz].
func rotatedOf(names []string, base string) []string {
	var out []string
	for _, name := range names {
		suffix, ok := strings.CutPrefix(name, base+".")
		if !ok || !isStamp(strings.TrimSuffix(suffix, gzipSuffix)) {
			continue
		}
		if strings.HasSuffix(name, gzipSuffix) && slices.Contains(names, strings.TrimSuffix(name, gzipSuffix)) {
			continue
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

const (
	gzipSuffix  = ".gz"
	stampLayout = "20060102-150405"
)

// isStamp reports whether the text looks like the time of a rotation.
func isStamp(s string) bool {
	if len(s) != len(stampLayout) {
		return false
	}
	for i := range len(s) {
		if digit := s[i] >= '0' && s[i] <= '9'; digit == (i == 8) || i == 8 && s[i] != '-' {
			return false
		}
	}
	return true
}

// sameFile reports whether two open files are one.
func sameFile(a, b *os.File) bool {
	x, errX := a.Stat()
	y, errY := b.Stat()
	return errX == nil && errY == nil && os.SameFile(x, y)
}

func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
