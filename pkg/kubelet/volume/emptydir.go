package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

func emptyDirKind() kind {
	return kind{
		folder: "kubernetes.io~empty-dir",
		is:     func(v *corev1.VolumeSource) bool { return v.EmptyDir != nil },
		mount:  mountEmptyDir,
	}
}

func mountEmptyDir(_ context.Context, m *Manager, r request) (Source, error) {
	medium := r.volume.EmptyDir.Medium
	var err error
	switch {
	case medium == corev1.StorageMediumDefault:
		err = makeSharedDir(r.dir, fsGroup(r.pod))
	case medium == corev1.StorageMediumMemory:
		err = mountTmpfs(r.dir, memorySize(r.pod, r.volume.EmptyDir.SizeLimit, m.cfg.NodeAllocatable()), fsGroup(r.pod))
	case medium == corev1.StorageMediumHugePages || strings.HasPrefix(string(medium), string(corev1.StorageMediumHugePagesPrefix)):
		var size resource.Quantity
		if size, err = hugePageSize(r.pod, medium); err == nil {
			err = mountHugePages(r.dir, size, fsGroup(r.pod))
		}
	default:
		err = fmt.Errorf("medium %q is not known", medium)
	}
	return Source{HostPath: r.dir}, err
}

// makeSharedDir makes a folder that every user of the pod may write to. It
// appears complete or not at all: a folder that exists has its mode and owner,
// and containers may have changed them since.
func makeSharedDir(dir string, group *int64) error {
	if _, err := os.Lstat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o750); err != nil {
		return err
	}
	// Volume names hold no dot, so this name is free but for a crashed attempt.
	fresh := dir + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return err
	}
	mode := uint32(0o777)
	if group != nil {
		if err := os.Lchown(fresh, -1, int(*group)); err != nil {
			return err
		}
		mode |= unix.S_ISGID
	}
	if err := unix.Chmod(fresh, mode); err != nil {
		return fmt.Errorf("setting the mode of %s: %w", fresh, err)
	}
	return os.Rename(fresh, dir)
}

// memorySize is how large a memory-backed volume may grow: its own limit, but
// no more than all containers together may use, nor than the node has.
func memorySize(pod *corev1.Pod, limit *resource.Quantity, allocatable corev1.ResourceList) int64 {
	size := allocatable.Memory().Value()
	smaller := func(q *resource.Quantity) {
		if v := q.Value(); v > 0 && (size == 0 || v < size) {
			size = v
		}
	}
	if allLimited(pod) {
		limits := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
		smaller(limits.Memory())
	}
	if limit != nil {
		smaller(limit)
	}
	return size
}

// allLimited reports whether the pod as a whole has a memory limit: one
// container without a limit takes it away from all.
func allLimited(pod *corev1.Pod) bool {
	if pod.Spec.Resources != nil && !pod.Spec.Resources.Limits.Memory().IsZero() {
		return true
	}
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Resources.Limits.Memory().IsZero() {
			return false
		}
	}
	return true
}

// hugePageSize is the page size that the medium names or, where it names none,
// the only one that the pod's containers ask for.
func hugePageSize(pod *corev1.Pod, medium corev1.StorageMedium) (resource.Quantity, error) {
	if text, ok := strings.CutPrefix(string(medium), string(corev1.StorageMediumHugePagesPrefix)); ok {
		size, err := resource.ParseQuantity(text)
		if err != nil {
			return size, fmt.Errorf("medium %q: %w", medium, err)
		}
		return size, nil
	}
	found := make(map[string]bool)
	for i := range pod.Spec.Containers {
		for name := range pod.Spec.Containers[i].Resources.Limits {
			if text, ok := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix); ok {
				found[text] = true
			}
		}
	}
	if len(found) != 1 {
		return resource.Quantity{}, fmt.Errorf("medium HugePages needs containers that ask for huge pages of exactly one size, these ask for %d", len(found))
	}
	for text := range found {
		return resource.ParseQuantity(text)
	}
	return resource.Quantity{}, nil
}
