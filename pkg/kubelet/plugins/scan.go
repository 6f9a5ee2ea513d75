package plugins

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of a look at the folder.
const (
	maxDepth   = 4
	maxEntries = 1024
)

// identity tells a socket from another one that was made at the same path.
type identity struct {
	device, inode uint64
	made          unix.Timespec
}

// found is what a look at the folder saw.
type found struct {
	folders []string
	sockets map[string]identity // by path
}

// errTooMany says that a look was cut short.
var errTooMany = errors.New("the folder of plugins holds too many files: remove what is not a plugin's socket")

// scan looks for sockets in the folder and in those below it. Names that begin
// with a dot are somebody's private matter. What vanishes meanwhile was not there.
func scan(dir string) (found, error) {
	f := found{sockets: map[string]identity{}}
	entries := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		}
		if entries++; entries > maxEntries {
			return errTooMany
		}
		hidden := path != dir && strings.HasPrefix(e.Name(), ".")
		switch {
		case e.IsDir() && (hidden || depth(dir, path) > maxDepth):
			return fs.SkipDir
		case e.IsDir():
			f.folders = append(f.folders, path)
		case !hidden && e.Type()&fs.ModeSocket != 0:
			id, err := identify(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			f.sockets[path] = id
		}
		return nil
	})
	return f, err
}

func depth(dir, path string) int {
	if path == dir {
		return 0
	}
	return 1 + strings.Count(strings.TrimPrefix(path, dir+"/"), "/")
}

func identify(path string) (identity, error) {
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		return identity{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return identity{device: stat.Dev, inode: stat.Ino, made: stat.Mtim}, nil
}
