package logs

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// idleCheck is how often a follower that hears nothing looks whether the
// container still runs.
const idleCheck = time.Second

// pollEvery is how often it looks at the file where the kernel gives no events.
const pollEvery = 200 * time.Millisecond

// follow prints the file, and the ones that replace it when it is rotated,
// until the container has ended.
func (r *reader) follow(ctx context.Context, f *os.File, lines *pieces) error {
	w := newWatcher(r.dir.fd)
	defer w.close()
	stop := context.AfterFunc(ctx, w.interrupt)
	defer stop()
	missed, err := r.newTrack(f)
	if err != nil {
		return err
	}
	current := f
	defer func() {
		if current != f {
			current.Close()
		}
	}()
	for {
		// Asked before reading: what a container wrote before it ended is then read.
		running := r.file.Running != nil && r.file.Running()
		if err := r.drain(ctx, lines); err != nil {
			return err
		}
		next, err := r.successor(current)
		if err != nil {
			return err
		}
		if next != nil {
			// Nothing is written to the old file any more: empty it, read
			// what was rotated away unseen, go on.
			err := r.drain(ctx, lines)
			if err == nil {
				err = missed.read(ctx, next)
			}
			if err != nil {
				next.Close()
				return err
			}
			if current != f {
				current.Close()
			}
			current, lines = next, newPieces(next)
			continue
		}
		if !running {
			if p, ok := lines.rest(); ok {
				return r.printer.print(p)
			}
			return nil
		}
		r.printer.flush()
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
}

// successor opens the file that has taken the log's name, nil if it is still
// the one that is open or if a rotation is under way.
func (r *reader) successor(current *os.File) (*os.File, error) {
	next, err := r.dir.open(r.dir.base)
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if sameFile(next, current) {
		return nil, next.Close()
	}
	return next, nil
}

// track knows which rotated files have been read, so that a follower that was
// away for several rotations misses none.
type track struct {
	r *reader
	// done holds their names without the suffix of compressed ones.
	done map[string]bool
}

// newTrack takes all rotated files as read, but for the one that is current by
// another name.
func (r *reader) newTrack(current *os.File) (*track, error) {
	t := &track{r: r, done: make(map[string]bool)}
	names, err := r.dir.rotated()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		s, err := r.openRotated(name, current)
		if errors.Is(err, errCurrent) {
			break
		}
		if err == nil {
			s.file.Close()
		} else if !isGone(err) {
			return nil, err
		}
		t.done[strings.TrimSuffix(name, gzipSuffix)] = true
	}
	return t, nil
}

// read prints the rotated files between the one just left, which is the first
// that is not done, and next.
func (t *track) read(ctx context.Context, next *os.File) error {
	names, err := t.r.dir.rotated()
	if err != nil {
		return err
	}
	first := true
	for _, name := range names {
		plain := strings.TrimSuffix(name, gzipSuffix)
		if t.done[plain] {
			continue
		}
		s, err := t.r.openRotated(name, next)
		if errors.Is(err, errCurrent) {
			return nil
		}
		if err != nil && !isGone(err) {
			return err
		}
		t.done[plain] = true
		if err != nil {
			first = false
			continue
		}
		if !first {
			err = t.r.copySegment(ctx, s, false)
		}
		s.file.Close()
		if err != nil {
			return err
		}
		first = false
	}
	return nil
}

// watcher waits for changes in a folder.
type watcher struct {
	events *os.File // nil where the kernel refuses events
}

func newWatcher(dir int) *watcher {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return &watcher{}
	}
	const mask = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_CLOSE_WRITE
	if _, err := unix.InotifyAddWatch(fd, "/proc/self/fd/"+strconv.Itoa(dir), mask); err != nil {
		unix.Close(fd)
		return &watcher{}
	}
	return &watcher{events: os.NewFile(uintptr(fd), "inotify")}
}

func (w *watcher) close() {
	if w.events != nil {
		w.events.Close()
	}
}

// interrupt ends a wait at once.
func (w *watcher) interrupt() {
	if w.events != nil {
		_ = w.events.SetReadDeadline(time.Unix(1, 0))
	}
}

// wait returns when something has changed, or after a while.
func (w *watcher) wait(ctx context.Context) error {
	if w.events == nil {
		timer := time.NewTimer(pollEvery)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		}
	}
	if err := w.events.SetReadDeadline(time.Now().Add(idleCheck)); err != nil {
		return err
	}
	// An interrupt that came before the line above has been overwritten by it.
	if err := ctx.Err(); err != nil {
		return err
	}
	var events [4096]byte
	_, err := w.events.Read(events[:])
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}
