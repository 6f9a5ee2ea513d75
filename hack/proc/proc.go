// Package proc reads what processes use.
package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ticksPerSecond is the unit of CPU time in /proc, the same on every machine.
const ticksPerSecond = 100

// Usage is what a process uses: memory in MB, CPU since its start in seconds.
type Usage struct{ RSS, Anon, File, CPU float64 }

// Of reads what a process uses now.
func Of(pid int) (Usage, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Usage{}, err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, err
	}
	u := parseStatus(string(status))
	u.CPU, err = parseCPU(string(stat))
	return u, err
}

// parseStatus reads the memory of /proc/PID/status.
func parseStatus(status string) Usage {
	var u Usage
	for line := range strings.Lines(status) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if len(fields) != 2 || fields[1] != "kB" {
			continue
		}
		kb, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			continue
		}
		switch mb := kb * 1024 / 1e6; name {
		case "VmRSS":
			u.RSS = mb
		case "RssAnon":
			u.Anon = mb
		case "RssFile":
			u.File = mb
		}
	}
	return u
}

// parseCPU reads user and system time of /proc/PID/stat.
func parseCPU(stat string) (float64, error) {
	// The second field is the program's name, which may itself hold blanks.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("a stat file in /proc is not readable: %q", stat)
	}
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("a stat file in /proc is not readable: %q", stat)
	}
	return (user + system) / ticksPerSecond, nil
}
