package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"coracle/pkg/localpath"
)

// ErrInUse is what RemoveLocal returns while a pod has the volume.
var ErrInUse = errors.New("a pod of this node still has the volume")

// localDir is the folder, below RootDir, of the volumes that the cluster made
// on this node.
const localDir = "local-volumes"

// LocalDir is where the node keeps the volumes that the cluster makes on it.
func (m *Manager) LocalDir() string { return filepath.Join(m.cfg.RootDir, localDir) }

// takeLocal makes the folder of a volume that the cluster made, with its first
// use, and notes that the pod has it, so that nothing removes it. Other folders
// than those in LocalDir must be there already.
func (m *Manager) takeLocal(r request, pv *corev1.PersistentVolume, readOnly bool) error {
	path := localpath.Path(m.LocalDir(), pv.Name)
	if pv.Spec.Local == nil || pv.Spec.Local.Path != path || checkElement(pv.Name) != nil {
		return nil
	}
	m.local.Lock()
	defer m.local.Unlock()
	if err := makeSharedDir(path, nil); err != nil {
		return err
	}
	return m.remember(r, Source{HostPath: path, ReadOnly: readOnly})
}

// localVolume gives the place of a local volume, which must be there.
func (m *Manager) localVolume(r request, pv *corev1.PersistentVolume) (Source, error) {
	path := pv.Spec.Local.Path
	info, err := os.Stat(path)
	if err != nil {
		return Source{}, fmt.Errorf("local volume %q: %w", pv.Name, err)
	}
	if !info.IsDir() {
		return Source{}, fmt.Errorf("local volume %q: %s is not a directory, and this node does not format devices", pv.Name, path)
	}
	if err := applyGroup(path, r.pod); err != nil {
		return Source{}, fmt.Errorf("local volume %q: %w", pv.Name, err)
	}
	return Source{HostPath: path}, nil
}

// RemoveLocal removes the volume of that name, which the cluster made on this
// node, with all that is in it. It is no error if there is none. ErrInUse means
// that a pod whose folder is still there has it.
func (m *Manager) RemoveLocal(name string) error {
	if err := checkElement(name); err != nil || name[0] == '.' {
		return fmt.Errorf("a volume cannot be called %q", name)
	}
	dir := m.LocalDir()
	// No volume's name begins with a dot, so this one is free but for a
	// removal that was cut short.
	going := ".gone-" + name
	m.local.Lock()
	err := m.putAside(filepath.Join(dir, name), filepath.Join(dir, going))
	m.local.Unlock()
	if err != nil {
		return err
	}
	if err := removeTree(dir, going); err != nil {
		return fmt.Errorf("removing volume %q: %w", name, err)
	}
	return nil
}

// putAside needs local. After it, no pod can find the volume any more.
func (m *Manager) putAside(path, aside string) error {
	used, err := m.used(path)
	if err != nil {
		return err
	}
	if used {
		return ErrInUse
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := removeTree(filepath.Dir(aside), filepath.Base(aside)); err != nil {
		return err
	}
	return os.Rename(path, aside)
}

// used reports whether a pod with a folder on the node has the volume at path.
func (m *Manager) used(path string) (bool, error) {
	files, err := filepath.Glob(filepath.Join(m.cfg.RootDir, "pods", "*", "claims", "*"))
	if err != nil {
		return false, err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // unmounted meanwhile
		}
		if err != nil {
			return false, fmt.Errorf("looking for pods that use %s: %w", path, err)
		}
		var src Source
		if json.Unmarshal(data, &src) == nil && src.HostPath == path {
			return true, nil
		}
	}
	return false, nil
}
