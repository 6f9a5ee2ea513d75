package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what all processes of a machine, or of a node that is a group of
// processes, have used and hold.
type Usage struct {
	// CPU is the time that they ran, in sum.
	CPU time.Duration
	// Memory is their working set in bytes: without the pages of files that were
	// not used lately, which the kernel drops first.
	Memory uint64
}

// ReadUsage reads the outermost group that is seen below mount.
func ReadUsage(mount string) (Usage, error) {
	if V2(mount) {
		cpu, err := field(filepath.Join(mount, "cpu.stat"), "usage_usec")
		if err != nil {
			return Usage{}, err
		}
		memory, err := number(filepath.Join(mount, "memory.current"))
		if errors.Is(err, os.ErrNotExist) {
			memory, err = machineMemory("/proc/meminfo") // the root group of a machine counts no memory
			return Usage{CPU: time.Duration(cpu) * time.Microsecond, Memory: memory}, err
		}
		return usage(time.Duration(cpu)*time.Microsecond, memory, err, filepath.Join(mount, "memory.stat"), "inactive_file")
	}
	cpu, err := number(filepath.Join(mount, "cpuacct", "cpuacct.usage"))
	if err != nil {
		return Usage{}, err
	}
	memory, err := number(filepath.Join(mount, "memory", "memory.usage_in_bytes"))
	return usage(time.Duration(cpu), memory, err, filepath.Join(mount, "memory", "memory.stat"), "total_inactive_file")
}

// usage takes the pages that do not count out of memory, which was read with err.
func usage(cpu time.Duration, memory uint64, err error, stat, idle string) (Usage, error) {
	if err != nil {
		return Usage{}, err
	}
	cold, err := field(stat, idle)
	if err != nil {
		return Usage{}, err
	}
	return Usage{CPU: cpu, Memory: memory - min(cold, memory)}, nil
}

// machineMemory is what a machine's memory lacks to be all available, of the form
// of /proc/meminfo.
func machineMemory(path string) (uint64, error) {
	total, err := field(path, "MemTotal:")
	if err != nil {
		return 0, err
	}
	available, err := field(path, "MemAvailable:")
	if err != nil {
		return 0, err
	}
	return (total - min(available, total)) << 10, nil
}

// number reads a file that holds one number.
func number(path string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("reading what is used: %w", err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s holds no number: %w", path, err)
	}
	return n, nil
}

// field reads the number behind a name at the beginning of a line.
func field(path, name string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("reading what is used: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name {
			n, err := strconv.ParseUint(f[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %s is no number: %w", path, name, err)
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("%s has no line %s", path, name)
}
