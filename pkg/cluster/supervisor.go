package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// firstPoll is how often the files a program waits for are looked for.
	firstPoll = 5 * time.Millisecond
	// restartMin and restartMax bound the delay before a program that ended
	// is started again; steadyAfter is how long it must have run for the
	// delay to begin anew.
	restartMin  = 200 * time.Millisecond
	restartMax  = 10 * time.Second
	steadyAfter = 30 * time.Second
	// stopGrace is how long one program gets to end by itself.
	stopGrace = 10 * time.Second
	// maxLogBytes is when a program's log is moved aside (one old log is
	// kept), looked at every logCheck.
	maxLogBytes = 16 << 20
	logCheck    = time.Minute
)

// supervisor is the running init. All of it belongs to the goroutine in run,
// which is bound to the thread that entered the cgroup namespace.
type supervisor struct {
	cfg      *initConfig
	children []*child
	stopping bool
}

// child is one program and what the init knows of it.
type child struct {
	process
	// pid is zero while the program does not run.
	pid     int
	started time.Time
	// delay precedes the next start, which is due at next.
	delay time.Duration
	next  time.Time
}

func newSupervisor(cfg *initConfig) *supervisor {
	s := &supervisor{cfg: cfg}
	for _, p := range cfg.Processes {
		s.children = append(s.children, &child{process: p, delay: restartMin})
	}
	return s
}

// run returns when the node has been asked to stop and its programs ended.
func (s *supervisor) run(ctx context.Context, sigs <-chan os.Signal) int {
	logs := time.NewTicker(logCheck)
	defer logs.Stop()
	for {
		wake := s.startDue(time.Now())
		if s.stopping {
			s.stopAll(sigs)
			return 0
		}
		var timer <-chan time.Time
		if wake > 0 {
			timer = time.After(wake)
		}
		select {
		case <-ctx.Done():
			s.stopping = true
		case sig := <-sigs:
			if sig != unix.SIGCHLD {
				s.stopping = true
			}
			s.reap(time.Now())
		case <-timer:
		case <-logs.C:
			for _, c := range s.children {
				if err := trimLog(c.Log); err != nil {
					fmt.Fprintln(os.Stderr, "node init:", err)
				}
			}
		}
	}
}

// startDue starts what can be started and returns how long to wait before
// looking again; zero means until something happens.
func (s *supervisor) startDue(now time.Time) (wake time.Duration) {
	soonest := func(d time.Duration) {
		if wake == 0 || d < wake {
			wake = d
		}
	}
	for _, c := range s.children {
		switch {
		case s.stopping || c.pid != 0:
		case now.Before(c.next):
			soonest(c.next.Sub(now))
		case !allExist(c.After):
			soonest(firstPoll)
		default:
			if err := c.start(now); err != nil {
				fmt.Fprintln(os.Stderr, "node init:", err)
				c.ended(now)
				soonest(c.next.Sub(now))
			}
		}
	}
	return wake
}

func allExist(paths []string) bool {
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			return false
		}
	}
	return true
}

// start forks the program from this thread, so that it lives in the node's
// cgroup namespace.
func (c *child) start(now time.Time) error {
	if err := os.MkdirAll(filepath.Dir(c.Log), 0o755); err != nil {
		return fmt.Errorf("start %s: %w", c.Name, err)
	}
	log, err := os.OpenFile(c.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("start %s: %w", c.Name, err)
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("start %s: %w", c.Name, err)
	}
	defer null.Close()
	pid, err := forkExec(c.Args, c.Env, []uintptr{null.Fd(), log.Fd(), log.Fd()})
	if err != nil {
		return fmt.Errorf("start %s: %w", c.Name, err)
	}
	c.pid, c.started = pid, now
	return nil
}

// ended notes that the program is gone and when it is to run again.
func (c *child) ended(now time.Time) {
	if !c.started.IsZero() && now.Sub(c.started) >= steadyAfter {
		c.delay = restartMin
	}
	c.pid, c.next = 0, now.Add(c.delay)
	c.delay = min(c.delay*2, restartMax)
}

// reap collects every child that has ended, the node's orphans included.
func (s *supervisor) reap(now time.Time) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		for _, c := range s.children {
			if c.pid != pid {
				continue
			}
			c.ended(now)
			if !s.stopping {
				fmt.Fprintf(os.Stderr, "node init: %s ended (%s); it starts again in %s, its log is %s\n",
					c.Name, describe(status), c.next.Sub(now), c.Log)
			}
		}
	}
}

func describe(s unix.WaitStatus) string {
	if s.Signaled() {
		return "signal " + s.Signal().String()
	}
	return fmt.Sprintf("exit code %d", s.ExitStatus())
}

// stopAll ends the programs one after another in StopOrder. What is left dies
// with the init.
func (s *supervisor) stopAll(sigs <-chan os.Signal) {
	for _, name := range s.cfg.StopOrder {
		for _, c := range s.children {
			if c.Name == name && c.pid != 0 {
				s.stopOne(c, sigs)
			}
		}
	}
}

func (s *supervisor) stopOne(c *child, sigs <-chan os.Signal) {
	if err := unix.Kill(c.pid, unix.SIGTERM); err != nil {
		return // it has ended and is only not reaped yet
	}
	timeout := time.After(stopGrace)
	for c.pid != 0 {
		select {
		case <-sigs:
			s.reap(time.Now())
		case <-timeout:
			fmt.Fprintf(os.Stderr, "node init: %s did not end within %s of SIGTERM; it is killed\n", c.Name, stopGrace)
			return
		}
	}
}

// trimLog moves a log that has grown too large aside. Programs keep their
// descriptor and append, so the content is copied and the file cut.
func trimLog(path string) error {
	st, err := os.Stat(path)
	if err != nil || st.Size() < maxLogBytes {
		return nil // no log yet, or a small one
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("rotate %s: %w", path, err)
	}
	if err := os.WriteFile(path+".1", data, 0o640); err != nil {
		return fmt.Errorf("rotate %s: %w", path, err)
	}
	if err := os.Truncate(path, 0); err != nil {
		return fmt.Errorf("rotate %s: %w", path, err)
	}
	return nil
}
