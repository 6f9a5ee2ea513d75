package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// netlinkTimeout bounds each netlink request; the kernel answers in
// microseconds, so only a broken socket can reach it.
const netlinkTimeout = 10 * time.Second

// NS is a network namespace that links, addresses and routes are managed in.
// It holds a file descriptor and a netlink socket bound to the namespace, so no
// thread has to enter it. Safe for concurrent use until Close.
type NS struct {
	fd netns.NsHandle
	h  *netlink.Handle
}

// CurrentNS returns the namespace of the calling thread.
func CurrentNS() (*NS, error) {
	return OpenNS("/proc/thread-self/ns/net")
}

// PIDNS returns the namespace of a process.
func PIDNS(pid int) (*NS, error) {
	return OpenNS(fmt.Sprintf("/proc/%d/ns/net", pid))
}

// OpenNS opens the namespace at a path: /proc/PID/ns/net, or a file that
// CreateNS made. The error is fs.ErrNotExist if there is none.
func OpenNS(path string) (*NS, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	h, err := netlink.NewHandleAt(netns.NsHandle(fd), unix.NETLINK_ROUTE)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open netlink in %s (is it a network namespace, and are you root?): %w", path, err)
	}
	if err := h.SetSocketTimeout(netlinkTimeout); err != nil {
		h.Close()
		_ = unix.Close(fd)
		return nil, fmt.Errorf("set netlink timeout: %w", err)
	}
	return &NS{fd: netns.NsHandle(fd), h: h}, nil
}

// CreateNS makes a namespace that lives until DeleteNS: it is bound to the file
// at path, which is created. A namespace already bound there is opened as it is.
func CreateNS(path string) (*NS, error) {
	if isNS(path) {
		return OpenNS(path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("create the folder of network namespace %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return nil, fmt.Errorf("create the file of network namespace %s: %w", path, err)
	}
	_ = f.Close()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare network namespace (root is needed): %w", err)
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
	if err != nil {
		_ = os.Remove(path)
		return nil, fmt.Errorf("create network namespace %s: %w", path, err)
	}
	ns, err := OpenNS(path)
	if err != nil {
		return nil, errors.Join(err, DeleteNS(path))
	}
	return ns, nil
}

// DeleteNS removes what CreateNS made. The namespace itself ends when the last
// process and open descriptor in it is gone. No file at path is no error.
func DeleteNS(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount network namespace %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove network namespace file: %w", err)
	}
	return nil
}

// isNS reports whether a namespace is bound at path.
func isNS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// FD is the namespace's descriptor, owned by ns and valid until Close.
func (ns *NS) FD() int { return int(ns.fd) }

// Close frees the handle; the namespace itself stays.
func (ns *NS) Close() {
	ns.h.Close()
	_ = ns.fd.Close()
}

// Do runs fn on a thread inside the namespace. What fn opens (sockets, files
// under /proc/sys/net) belongs to the namespace; goroutines that fn starts do
// not run in it.
func (ns *NS) Do(fn func() error) error {
	return onThread(func() error {
		if err := netns.Set(ns.fd); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return fn()
	})
}

// onThread runs fn on an operating system thread that ends with it, so that a
// changed namespace never leaks into the scheduler's pool.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- fn()
	}()
	return <-done
}
