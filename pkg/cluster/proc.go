package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runningProcess identifies a process beyond its number: a number can be
// given to another process, or mean another one after a reboot.
type runningProcess struct {
	PID int `json:"pid"`
	// StartTime is when it started, in clock ticks since boot.
	StartTime uint64 `json:"startTime"`
	// BootID is the kernel's identifier of the current boot.
	BootID string `json:"bootID"`
}

// identify describes a process that is running now.
func identify(pid int) (runningProcess, error) {
	start, _, err := processStat(pid)
	if err != nil {
		return runningProcess{}, err
	}
	boot, err := bootID()
	if err != nil {
		return runningProcess{}, err
	}
	return runningProcess{PID: pid, StartTime: start, BootID: boot}, nil
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// processStat reads start time and state letter from /proc.
func processStat(pid int) (start uint64, state byte, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The second field is the program's name in brackets, which may itself
	// hold blanks and brackets.
	i := bytes.LastIndexByte(data, ')')
	if i < 0 {
		return 0, 0, fmt.Errorf("process %d: unreadable stat file", pid)
	}
	fields := strings.Fields(string(data[i+1:]))
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("process %d: unreadable stat file", pid)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0][0], err
}

// alive reports whether this very process runs. A zombie does not.
func (p runningProcess) alive() bool {
	if p.PID <= 0 {
		return false
	}
	boot, err := bootID()
	if err != nil || boot != p.BootID {
		return false
	}
	start, state, err := processStat(p.PID)
	return err == nil && start == p.StartTime && state != 'Z' && state != 'X'
}

// signalAndWait sends a signal and waits until the process is gone. The
// signal goes through a descriptor that was checked to be the right process.
// It reports whether the process was gone in time.
func (p runningProcess) signalAndWait(ctx context.Context, sig unix.Signal, patience time.Duration) (bool, error) {
	if p.PID <= 0 {
		return true, nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("open process %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	if !p.alive() {
		return true, nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return false, fmt.Errorf("send %s to process %d: %w", unix.SignalName(sig), p.PID, err)
	}
	deadline := time.Now().Add(patience)
	for ctx.Err() == nil {
		left := time.Until(deadline)
		if left <= 0 {
			return false, nil
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(min(left, 100*time.Millisecond).Milliseconds())+1)
		if err == nil && n > 0 {
			return true, nil
		}
	}
	return false, ctx.Err()
}

// stop asks a process to end, and kills it when it does not in time.
func (p runningProcess) stop(ctx context.Context, grace time.Duration) error {
	gone, err := p.signalAndWait(ctx, unix.SIGTERM, grace)
	if err != nil || gone {
		return err
	}
	return p.kill(ctx, nil)
}

// killPatience bounds how long a killed process may take to end, and
// freezePatience how long until it is taken to be frozen.
const (
	killPatience   = 10 * time.Second
	freezePatience = 200 * time.Millisecond
)

// kill ends a process. A runtime freezes cgroups while it kills containers,
// and when it dies in the midst of that, their processes cannot end, nor can
// the init of the PID namespace they are in: thaw is called for those, when
// the process does not end at once. It may be nil.
func (p runningProcess) kill(ctx context.Context, thaw func()) error {
	for deadline := time.Now().Add(killPatience); ; {
		gone, err := p.signalAndWait(ctx, unix.SIGKILL, freezePatience)
		if err != nil || gone {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d does not end although it was killed: look at /proc/%d/stack", p.PID, p.PID)
		}
		if thaw != nil {
			thaw()
		}
	}
}

// readProcess reads a process file; a missing one gives the zero value, which
// is never alive.
func readProcess(path string) (runningProcess, error) {
	var p runningProcess
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("read process file: %w", err)
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fmt.Errorf("read process file %s: %w", path, err)
	}
	return p, nil
}

// forkExec starts args with the given descriptors from the calling thread, in
// a session of its own, and returns its number. The caller reaps it.
func forkExec(args, env []string, files []uintptr) (int, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return 0, err
	}
	return syscall.ForkExec(path, args, &syscall.ProcAttr{
		Dir:   "/",
		Env:   env,
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
}

// startDetached starts a program that outlives this one, with its output
// appended to logFile, and records it in pidFile.
func startDetached(cmd *exec.Cmd, logFile, pidFile string) (runningProcess, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return runningProcess{}, fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	if err := cmd.Start(); err != nil {
		return runningProcess{}, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	// While this program runs it is the parent and has to reap.
	go func() { _ = cmd.Wait() }()
	p, err := identify(cmd.Process.Pid)
	if err != nil {
		_ = cmd.Process.Kill()
		return p, fmt.Errorf("%s ended at once: see %s", cmd.Path, logFile)
	}
	if err := writeJSON(pidFile, p); err != nil {
		_ = cmd.Process.Kill()
		return p, err
	}
	return p, nil
}
