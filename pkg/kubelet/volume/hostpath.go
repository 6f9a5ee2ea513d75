package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

func hostPathKind() kind {
	return kind{
		is: func(v *corev1.VolumeSource) bool { return v.HostPath != nil },
		mount: func(_ context.Context, _ *Manager, r request) (Source, error) {
			return hostPath(r.volume.HostPath)
		},
	}
}

// hostPath checks, or makes, what the type of the volume asks for. Links are
// followed: the path is the cluster administrator's to choose.
func hostPath(v *corev1.HostPathVolumeSource) (Source, error) {
	if !filepath.IsAbs(v.Path) || slices.Contains(strings.Split(v.Path, "/"), "..") {
		return Source{}, fmt.Errorf("hostPath %q must be absolute and hold no '..'", v.Path)
	}
	want := corev1.HostPathUnset
	if v.Type != nil {
		want = *v.Type
	}
	if err := makeHostPath(v.Path, want); err != nil {
		return Source{}, fmt.Errorf("hostPath: %w", err)
	}
	if want == corev1.HostPathUnset {
		return Source{HostPath: v.Path}, nil
	}
	info, err := os.Stat(v.Path)
	if err != nil {
		return Source{}, fmt.Errorf("hostPath type check failed: %w", err)
	}
	if !isOfType(info.Mode(), want) {
		return Source{}, fmt.Errorf("hostPath type check failed: %s is not a %s", v.Path, want)
	}
	return Source{HostPath: v.Path}, nil
}

func makeHostPath(path string, want corev1.HostPathType) error {
	switch want {
	case corev1.HostPathDirectoryOrCreate:
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return os.MkdirAll(path, 0o755)
		}
	case corev1.HostPathFileOrCreate:
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return f.Close()
	}
	return nil
}

func isOfType(mode fs.FileMode, want corev1.HostPathType) bool {
	switch want {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		return mode.IsDir()
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		return mode.IsRegular()
	case corev1.HostPathSocket:
		return mode&fs.ModeSocket != 0
	case corev1.HostPathCharDev:
		return mode&fs.ModeCharDevice != 0
	case corev1.HostPathBlockDev:
		return mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0
	}
	return false
}
