package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	reconnectDelay = time.Second
	// settleFirst and settleLimit bound the wait between the end of a process
	// and the runtime's noticing it.
	settleFirst = time.Millisecond
	settleLimit = 5 * time.Second
)

// Watch implements Runtime.
func (c *Client) Watch(ctx context.Context, emit func(Change)) error {
	for ctx.Err() == nil {
		err := c.stream(ctx, emit)
		if status.Code(err) == codes.Unimplemented {
			c.log.Info("runtime serves no event stream, watching processes instead")
			return c.watchProcesses(ctx, emit)
		}
		if ctx.Err() == nil {
			c.log.Warn("runtime event stream ended, reconnecting", "error", err)
			sleep(ctx, reconnectDelay)
		}
	}
	return nil
}

// stream forwards the runtime's events until the stream breaks.
func (c *Client) stream(ctx context.Context, emit func(Change)) error {
	events, err := c.runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		return err
	}
	for {
		e, err := events.Recv()
		if err != nil {
			return err
		}
		c.watcher.disable() // the stream works: no pidfds needed
		emit(Change{PodUID: e.GetPodSandboxStatus().GetMetadata().GetUid(), ID: e.GetContainerId()})
	}
}

// watchProcesses reports the end of each tracked process once the runtime has
// noticed it too.
func (c *Client) watchProcesses(ctx context.Context, emit func(Change)) error {
	var settling sync.WaitGroup
	defer settling.Wait()
	return c.watcher.run(ctx, func(p process) {
		settling.Go(func() {
			c.settle(ctx, p.id)
			emit(Change{PodUID: p.podUID, ID: p.id})
		})
	})
}

// settle waits until the runtime no longer calls a container or sandbox
// running whose process has ended.
func (c *Client) settle(ctx context.Context, id string) {
	for wait, waited := settleFirst, time.Duration(0); waited < settleLimit && ctx.Err() == nil; wait *= 2 {
		cctx, cancel := context.WithTimeout(ctx, quickTimeout)
		resp, err := c.runtime.ContainerStatus(cctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
		running := resp.GetStatus().GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING
		if err != nil {
			resp, err2 := c.runtime.PodSandboxStatus(cctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
			running = err2 == nil && resp.GetStatus().GetState() == runtimeapi.PodSandboxState_SANDBOX_READY
		}
		cancel()
		if !running {
			return
		}
		sleep(ctx, wait)
		waited += wait
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// pidOf reads the process id out of the verbose part of a status, where
// containerd and CRI-O both keep it. 0 means it is not there.
func pidOf(info map[string]string) int {
	var v struct {
		Pid int `json:"pid"`
	}
	if json.Unmarshal([]byte(info["info"]), &v) != nil || v.Pid < 0 {
		return 0
	}
	return v.Pid
}

// process is one tracked container or sandbox process.
type process struct {
	id, podUID string
	fd         int
}

// watcher holds a pidfd of each process of interest in one epoll set.
type watcher struct {
	mu       sync.Mutex
	disabled bool               // set once the runtime's own events arrive; guarded by mu
	tracked  map[string]process // by runtime id; guarded by mu
	byFD     map[int]string     // guarded by mu
	epoll    int                // -1 until run, and after it; guarded by mu
	ended    chan process       // processes found dead when they were to be tracked
}

func newWatcher() *watcher {
	return &watcher{tracked: map[string]process{}, byFD: map[int]string{}, epoll: -1, ended: make(chan process, 1024)}
}

// wants tells whether the process of id should be looked up and tracked.
func (w *watcher) wants(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, known := w.tracked[id]
	return !w.disabled && !known
}

// disable gives up process watching: the runtime's event stream replaces it.
func (w *watcher) disable() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.disabled = true
	w.closeAll()
}

// closeAll needs mu.
func (w *watcher) closeAll() {
	for _, p := range w.tracked {
		_ = unix.Close(p.fd)
	}
	clear(w.tracked)
	clear(w.byFD)
}

// track begins to watch a process. One that is already gone is reported.
func (w *watcher) track(id, podUID string, pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.tracked[id]; known || w.disabled || pid == 0 {
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			select {
			case w.ended <- process{id: id, podUID: podUID}:
			default: // the relist finds it
			}
		}
		return
	}
	p := process{id: id, podUID: podUID, fd: fd}
	if w.epoll >= 0 && w.arm(fd) != nil {
		_ = unix.Close(fd)
		return
	}
	w.tracked[id], w.byFD[fd] = p, id
}

// arm needs mu.
func (w *watcher) arm(fd int) error {
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// run reports each end of a tracked process until ctx ends.
func (w *watcher) run(ctx context.Context, emit func(process)) error {
	wake, err := w.open()
	if err != nil {
		return err
	}
	defer w.shut(wake)
	var helper sync.WaitGroup
	defer helper.Wait()
	stop := make(chan struct{})
	defer close(stop)
	helper.Go(func() {
		for {
			select {
			case p := <-w.ended:
				emit(p)
			case <-ctx.Done():
				_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
				return
			case <-stop:
				return
			}
		}
	})
	events := make([]unix.EpollEvent, 128)
	for {
		n, err := unix.EpollWait(w.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("watching container processes: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) == wake {
				return nil
			}
			if p, ok := w.take(int(e.Fd)); ok {
				emit(p)
			}
		}
	}
}

// open makes the epoll set with everything tracked so far, and an eventfd that
// ends the wait.
func (w *watcher) open() (wake int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		w.epoll = -1
		return 0, fmt.Errorf("watching container processes: %w", err)
	}
	wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = w.arm(wake)
	}
	if err != nil {
		return 0, fmt.Errorf("watching container processes: %w", err)
	}
	for fd := range w.byFD {
		if err := w.arm(fd); err != nil {
			return 0, fmt.Errorf("watching container processes: %w", err)
		}
	}
	return wake, nil
}

func (w *watcher) take(fd int) (process, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id, ok := w.byFD[fd]
	if !ok {
		return process{}, false
	}
	p := w.tracked[id]
	delete(w.tracked, id)
	delete(w.byFD, fd)
	_ = unix.Close(fd) // leaves the epoll set with it
	return p, true
}

func (w *watcher) shut(wake int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closeAll()
	_ = unix.Close(wake)
	_ = unix.Close(w.epoll)
	w.epoll = -1
}
