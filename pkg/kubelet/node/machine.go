package node

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// maxInfoFile bounds what is read of a file about the machine.
const maxInfoFile = 64 << 10

func architecture() string { return runtime.GOARCH }

// measure reads from the kernel what the machine has and is. What cannot be
// read is left out.
func measure(rootDir string) (corev1.ResourceList, corev1.NodeSystemInfo) {
	capacity := corev1.ResourceList{corev1.ResourceCPU: *quantity(int64(runtime.NumCPU()))}
	if bytes := MemoryBytes(); bytes > 0 {
		capacity[corev1.ResourceMemory] = *resource.NewQuantity(bytes, resource.BinarySI)
	}
	if bytes := filesystemBytes(rootDir); bytes > 0 {
		capacity[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(bytes, resource.BinarySI)
	}
	for name, bytes := range hugepages() {
		capacity[name] = *resource.NewQuantity(bytes, resource.BinarySI)
	}
	return capacity, corev1.NodeSystemInfo{
		MachineID:       line("/etc/machine-id"),
		SystemUUID:      line("/sys/class/dmi/id/product_uuid"),
		BootID:          line("/proc/sys/kernel/random/boot_id"),
		KernelVersion:   line("/proc/sys/kernel/osrelease"),
		OSImage:         osImage(read("/etc/os-release")),
		OperatingSystem: "linux",
	}
}

func read(name string) []byte {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxInfoFile))
	if err != nil {
		return nil
	}
	return data
}

func line(name string) string {
	first, _, _ := bytes.Cut(read(name), []byte("\n"))
	return strings.TrimSpace(string(first))
}

// MemoryBytes is the machine's memory, 0 when it cannot be read.
func MemoryBytes() int64 { return memTotal(read("/proc/meminfo")) }

// memTotal reads the first figure of /proc/meminfo, which is in KiB.
func memTotal(meminfo []byte) int64 {
	scan := bufio.NewScanner(bytes.NewReader(meminfo))
	for scan.Scan() {
		fields := strings.Fields(scan.Text())
		if len(fields) >= 2 && fields[0] == "MemTotal:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil || kib < 0 || kib > 1<<50 {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}

func filesystemBytes(dir string) int64 {
	var s unix.Statfs_t
	for dir != "" && unix.Statfs(dir, &s) != nil {
		parent := filepath.Dir(dir)
		if parent == dir {
			return 0
		}
		dir = parent // the folder may not have been made yet
	}
	return int64(s.Blocks) * s.Bsize
}

// hugepages lists the sizes the kernel knows and what is set aside of each.
func hugepages() map[corev1.ResourceName]int64 {
	out := map[corev1.ResourceName]int64{}
	dirs, _ := filepath.Glob("/sys/kernel/mm/hugepages/hugepages-*kB")
	for _, dir := range dirs {
		size := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(dir), "hugepages-"), "kB")
		kib, err := strconv.ParseInt(size, 10, 64)
		count, err2 := strconv.ParseInt(line(filepath.Join(dir, "nr_hugepages")), 10, 64)
		if err != nil || err2 != nil || kib <= 0 || count < 0 {
			continue
		}
		q := resource.NewQuantity(kib<<10, resource.BinarySI)
		out[corev1.ResourceName(corev1.ResourceHugePagesPrefix+q.String())] = kib << 10 * count
	}
	return out
}

func osImage(release []byte) string {
	for l := range strings.SplitSeq(string(release), "\n") {
		if value, ok := strings.CutPrefix(l, "PRETTY_NAME="); ok {
			return strings.Trim(value, `"'`)
		}
	}
	return "linux"
}
