// Package cgroup gives each pod a control group of its own, below one for each
// quality-of-service class:
//
//	ROOT/pod<uid>              guaranteed pods
//	ROOT/burstable/pod<uid>
//	ROOT/besteffort/pod<uid>
//
// The runtime puts the pod's containers below. The pod's group carries the sum
// of the containers' limits, so that what they share (memory-backed volumes,
// the sandbox) counts too. Both cgroup v1 and v2 are understood, by the plain
// filesystem, without systemd.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/resource"

	"coracle/pkg/kubelet/criconfig"
	"coracle/pkg/kubelet/lifecycle"
)

const (
	cpuPeriod = 100_000 // microseconds
	// removeTries and removeWait bound the wait for the kernel to reap the last
	// processes of a group.
	removeTries = 50
	removeWait  = 10 * time.Millisecond
)

// Config says where groups are made.
type Config struct {
	Mount string // where cgroups are mounted, "/sys/fs/cgroup" if empty
	Root  string // group below which pods live, relative to each hierarchy, "/kubepods" if empty
	// PidsLimit bounds the processes of a pod; 0 sets no bound.
	PidsLimit int64
	Log       *slog.Logger // nil discards
}

// Manager makes and removes groups. Its methods may be called concurrently.
type Manager struct {
	cfg Config
	v2  bool
	// hierarchies are the folders below which the root group exists: one for
	// v2, one for each controller for v1.
	hierarchies []string

	mu       sync.Mutex
	requests map[types.UID]int64 // thousandths of a CPU asked for by burstable pods; guarded by mu
}

// V2 tells whether mount is a cgroup v2 hierarchy.
func V2(mount string) bool {
	_, err := os.Stat(filepath.Join(mount, "cgroup.controllers"))
	return err == nil
}

// New makes the root group and those of the classes. The error says why the
// machine does not let it.
func New(cfg Config) (*Manager, error) {
	if cfg.Mount == "" {
		cfg.Mount = "/sys/fs/cgroup"
	}
	if cfg.Root == "" {
		cfg.Root = "/kubepods"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if !filepath.IsAbs(cfg.Root) || strings.Contains(cfg.Root, "..") {
		return nil, fmt.Errorf("cgroup root %q is not an absolute path within the hierarchy", cfg.Root)
	}
	m := &Manager{cfg: cfg, v2: V2(cfg.Mount), requests: map[types.UID]int64{}}
	if m.v2 {
		m.hierarchies = []string{cfg.Mount}
	} else {
		m.hierarchies = v1Hierarchies(cfg.Mount)
	}
	if len(m.hierarchies) == 0 {
		return nil, fmt.Errorf("no cgroup hierarchy is mounted below %s", cfg.Mount)
	}
	for _, class := range []string{"", "burstable", "besteffort"} {
		if err := m.make(filepath.Join(cfg.Root, class)); err != nil {
			return nil, err
		}
	}
	return m, m.weigh("besteffort", 0)
}

// v1Hierarchies finds the mounted controllers that pods are limited by or
// counted in. One folder may be there under several names.
func v1Hierarchies(mount string) []string {
	var out []string
	seen := map[string]bool{}
	for _, name := range []string{"cpu", "cpuacct", "memory", "pids", "hugetlb"} {
		dir, err := filepath.EvalSymlinks(filepath.Join(mount, name))
		if err != nil || seen[dir] {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			seen[dir] = true
			out = append(out, dir)
		}
	}
	return out
}

// make makes a group in every hierarchy; on v2 it hands the controllers down
// to it.
func (m *Manager) make(group string) error {
	for _, h := range m.hierarchies {
		if m.v2 {
			if err := m.delegate(h, group); err != nil {
				return err
			}
		}
		if err := os.MkdirAll(filepath.Join(h, group), 0o755); err != nil {
			return fmt.Errorf("making cgroup %s: %w", group, err)
		}
	}
	return nil
}

// delegate enables the controllers in every group above the given one.
func (m *Manager) delegate(hierarchy, group string) error {
	dir := hierarchy
	for _, part := range strings.Split(strings.Trim(group, "/"), "/") {
		if err := enable(dir); err != nil {
			return err
		}
		dir = filepath.Join(dir, part)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making cgroup %s: %w", dir, err)
		}
	}
	return nil
}

func enable(dir string) error {
	available, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("reading the controllers of a cgroup: %w", err)
	}
	enabled, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return fmt.Errorf("reading the controllers of a cgroup: %w", err)
	}
	have := strings.Fields(string(enabled))
	for _, c := range strings.Fields(string(available)) {
		if contains(have, c) || !contains([]string{"cpu", "cpuset", "io", "memory", "pids", "hugetlb"}, c) {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil {
			return fmt.Errorf("enabling the %s controller below %s: %w", c, dir, err)
		}
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func class(pod *corev1.Pod) string {
	switch lifecycle.QOS(pod) {
	case corev1.PodQOSBestEffort:
		return "besteffort"
	case corev1.PodQOSBurstable:
		return "burstable"
	}
	return ""
}

// Parent returns the group of a pod.
func (m *Manager) Parent(pod *corev1.Pod) string {
	return filepath.Join(m.cfg.Root, class(pod), "pod"+string(pod.UID))
}

// Create makes the pod's group and sets its limits. It may be repeated.
func (m *Manager) Create(pod *corev1.Pod) error {
	group := m.Parent(pod)
	if err := m.make(group); err != nil {
		return err
	}
	requests := resource.PodRequests(pod, resource.PodResourcesOptions{})
	if class(pod) == "burstable" {
		m.mu.Lock()
		m.requests[pod.UID] = requests.Cpu().MilliValue()
		m.mu.Unlock()
		if err := m.weighBurstable(); err != nil {
			return err
		}
	}
	var errs []error
	for _, s := range m.settings(pod, requests) {
		errs = append(errs, m.set(group, s))
	}
	return errors.Join(errs...)
}

// setting is one value of a group.
type setting struct {
	controller, file, value string
}

// settings are the limits of a pod's group.
func (m *Manager) settings(pod *corev1.Pod, requests corev1.ResourceList) []setting {
	limits := resource.PodLimits(pod, resource.PodResourcesOptions{})
	shares := criconfig.CPUShares(requests.Cpu().MilliValue())
	quota, memory := int64(-1), int64(-1)
	if everyContainer(pod, corev1.ResourceCPU) {
		quota = criconfig.CPUQuota(limits.Cpu().MilliValue())
	}
	if everyContainer(pod, corev1.ResourceMemory) {
		memory = limits.Memory().Value()
	}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	var out []setting
	if m.v2 {
		out = append(out, setting{"cpu", "cpu.weight", number(weight(shares))})
		if quota > 0 {
			out = append(out, setting{"cpu", "cpu.max", number(quota) + " " + number(cpuPeriod)})
		}
		if memory > 0 {
			out = append(out, setting{"memory", "memory.max", number(memory)})
		}
	} else {
		out = append(out, setting{"cpu", "cpu.shares", number(shares)})
		if quota > 0 {
			out = append(out, setting{"cpu", "cpu.cfs_period_us", number(cpuPeriod)}, setting{"cpu", "cpu.cfs_quota_us", number(quota)})
		}
		if memory > 0 {
			out = append(out, setting{"memory", "memory.limit_in_bytes", number(memory)})
		}
	}
	if m.cfg.PidsLimit > 0 {
		out = append(out, setting{"pids", "pids.max", number(m.cfg.PidsLimit)})
	}
	return out
}

// everyContainer tells whether each app container and sidecar limits a
// resource: only then has the pod as a whole a limit.
func everyContainer(pod *corev1.Pod, name corev1.ResourceName) bool {
	if r := pod.Spec.Resources; r != nil {
		if _, ok := r.Limits[name]; ok {
			return true
		}
	}
	for i := range pod.Spec.Containers {
		if q := pod.Spec.Containers[i].Resources.Limits[name]; q.IsZero() {
			return false
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy == nil {
			continue
		}
		if q := c.Resources.Limits[name]; q.IsZero() {
			return false
		}
	}
	return len(pod.Spec.Containers) > 0
}

// weight converts v1 shares (2..262144) to v2's scale (1..10000).
func weight(shares int64) int64 {
	return 1 + (min(max(shares, 2), 262144)-2)*9999/262142
}

// set writes a value into a group. A controller that the machine lacks, or a
// file that the kernel lacks, limits nothing.
func (m *Manager) set(group string, s setting) error {
	dir := m.cfg.Mount
	if !m.v2 {
		dir = filepath.Join(m.cfg.Mount, s.controller)
	}
	name := filepath.Join(dir, group, s.file)
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("limiting a pod: %w", err)
	}
	_, err = f.WriteString(s.value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("setting %s to %s: %w", name, s.value, err)
	}
	return nil
}

// weighBurstable gives the class of burstable pods the weight of what they
// request together.
func (m *Manager) weighBurstable() error {
	m.mu.Lock()
	var sum int64
	for _, r := range m.requests {
		sum += r
	}
	m.mu.Unlock()
	return m.weigh("burstable", sum)
}

func (m *Manager) weigh(class string, milli int64) error {
	shares := criconfig.CPUShares(milli)
	s := setting{"cpu", "cpu.shares", strconv.FormatInt(shares, 10)}
	if m.v2 {
		s = setting{"cpu", "cpu.weight", strconv.FormatInt(weight(shares), 10)}
	}
	return m.set(filepath.Join(m.cfg.Root, class), s)
}

// Remove deletes the group of a pod, whatever its class, with all groups below
// it. Processes must have ended; the kernel is given a moment to notice.
func (m *Manager) Remove(uid types.UID) error {
	m.mu.Lock()
	_, burstable := m.requests[uid]
	delete(m.requests, uid)
	m.mu.Unlock()
	var errs []error
	for _, dir := range m.everywhere() {
		for _, class := range []string{"", "burstable", "besteffort"} {
			errs = append(errs, removeTree(filepath.Join(dir, m.cfg.Root, class, "pod"+string(uid))))
		}
	}
	if burstable {
		errs = append(errs, m.weighBurstable())
	}
	return errors.Join(errs...)
}

// everywhere lists all hierarchies: the runtime makes the pod's group in those
// that this package does not use, too.
func (m *Manager) everywhere() []string {
	if m.v2 {
		return m.hierarchies
	}
	entries, err := os.ReadDir(m.cfg.Mount)
	if err != nil {
		return m.hierarchies
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, filepath.Join(m.cfg.Mount, e.Name()))
		}
	}
	return out
}

// removeTree removes a group and those below it, deepest first. Groups are
// removed by rmdir alone: their files go with them.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing a cgroup: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	for range removeTries {
		if err = os.Remove(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		time.Sleep(removeWait) // processes that were killed are still being reaped
	}
	return fmt.Errorf("removing a cgroup: %w", err)
}
