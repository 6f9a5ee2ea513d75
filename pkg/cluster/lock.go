package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockPatience is how long one command waits for another on the same cluster.
const lockPatience = 60 * time.Second

// lockDir takes the lock of an existing folder: the folder itself, so that
// nothing is left of it. The lock ends with unlock or with the process.
func lockDir(ctx context.Context, dir string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	for {
		f, err := os.Open(dir)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && sameDir(f, dir) {
			return func() { f.Close() }, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("another command is working on %s: wait for it to end, then try again", dir)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sameDir reports whether the opened folder is still the one at the path: the
// one who held the lock may have deleted it.
func sameDir(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// lockCluster locks a cluster's folder. The error is ErrNotFound when there is
// none.
func lockCluster(ctx context.Context, f folder, name string) (unlock func(), err error) {
	unlock, err = lockDir(ctx, string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s (\"ctl cluster list\" shows those that exist)", ErrNotFound, name)
	}
	return unlock, err
}
