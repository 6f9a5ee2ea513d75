package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU time in /proc/PID/stat, the same on every machine.
const tick = time.Second / 100

// cpuOf is the CPU time that a process has used. The nanoseconds of its
// threads are taken where the kernel has them, else its hundredths of a
// second.
func cpuOf(pid int) (time.Duration, error) {
	if d, err := threadCPU(pid); err == nil {
		return d, nil
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(string(data))
}

// threadCPU adds up the schedstat of all threads. Threads of Go programs do
// not end as a rule, so that nothing is lost between two readings.
func threadCPU(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	if len(files) == 0 {
		return 0, errors.New("no schedstat")
	}
	var sum time.Duration
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		d, err := parseSchedstat(string(data))
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// parseSchedstat reads the first field of a schedstat file: time on the CPU.
func parseSchedstat(text string) (time.Duration, error) {
	fields := strings.Fields(text)
	if len(fields) != 3 {
		return 0, fmt.Errorf("a schedstat file in /proc is not readable: %q", text)
	}
	n, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("a schedstat file in /proc is not readable: %w", err)
	}
	return time.Duration(n), nil
}

// parseStat reads user and system time of /proc/PID/stat.
func parseStat(text string) (time.Duration, error) {
	// The second field is the program's name, which may itself hold blanks.
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("a stat file in /proc is not readable: %q", text)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return 0, fmt.Errorf("a stat file in /proc is not readable: %w", err)
	}
	return time.Duration(user+system) * tick, nil
}

// anonOf is the anonymous memory that a process has resident, in bytes.
func anonOf(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parseAnon(string(data))
}

// parseAnon reads RssAnon of /proc/PID/status.
func parseAnon(text string) (int64, error) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "RssAnon:")
		if !ok {
			continue
		}
		fields := strings.Fields(rest)
		if len(fields) != 2 || fields[1] != "kB" {
			break
		}
		kb, err := strconv.ParseInt(fields[0], 10, 64)
		return kb << 10, err
	}
	return 0, errors.New("a status file in /proc has no RssAnon")
}
