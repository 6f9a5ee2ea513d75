package volume

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxRemoveDepth bounds the recursion, and with it the open descriptors;
// deeper folders are moved to the top first.
const maxRemoveDepth = 64

// removeTree removes name and all below it from the folder parent. It follows
// no symbolic link and stops with an error at a mount, so that it can only ever
// remove what lies in the tree itself.
func removeTree(parent, name string) error {
	fd, err := unix.Open(parent, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: parent, Err: err}
	}
	defer unix.Close(fd)
	top, err := openPlainDir(fd, name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return unix.Unlinkat(fd, name, 0)
	case err != nil:
		return fmt.Errorf("opening %s/%s: %w", parent, name, err)
	}
	r := remover{top: top}
	// Each pass removes everything but the folders that it had to move up.
	for again := true; again; {
		r.moved = 0
		if err := r.empty(top, 0); err != nil {
			unix.Close(top)
			return err
		}
		again = r.moved > 0
	}
	unix.Close(top)
	return unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
}

// remover empties one tree.
type remover struct {
	top int // descriptor of the tree's root
	// moved counts the folders that this pass moved to the root.
	moved int
	// serial makes their names differ.
	serial int
}

func (r *remover) empty(fd, depth int) error {
	// A descriptor of its own, since the listing has a position to keep.
	listing, err := openPlainDir(fd, ".")
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(listing), "volume")
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(512)
		for _, name := range names {
			if err := r.remove(fd, name, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *remover) remove(parent int, name string, depth int) error {
	err := unix.Unlinkat(parent, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	if depth >= maxRemoveDepth {
		r.serial++
		r.moved++
		return unix.Renameat(parent, name, r.top, "..moved-"+strconv.Itoa(r.serial))
	}
	child, openErr := openPlainDir(parent, name)
	if openErr != nil {
		return &os.PathError{Op: "remove", Path: name, Err: openErr}
	}
	err = r.empty(child, depth+1)
	unix.Close(child)
	if err != nil {
		return err
	}
	err = unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return &os.PathError{Op: "remove", Path: name, Err: err}
}

// openPlainDir opens a folder that is neither a link nor a mount.
func openPlainDir(parent int, name string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	fd, err := unix.Openat2(parent, name, &how)
	if errors.Is(err, unix.EXDEV) {
		return -1, errors.New("something is still mounted there")
	}
	return fd, err
}
