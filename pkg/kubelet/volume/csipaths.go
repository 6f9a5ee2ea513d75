package volume

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/attachment"
)

// Names of CSI volumes on disk and in the API. They are those of Kubernetes'
// own agent, since drivers and tools look there.
const (
	csiPlugin       = "kubernetes.io/csi"
	csiFolder       = "kubernetes.io~csi"
	csiDataFile     = "vol_data.json"
	csiMountFolder  = "mount"
	csiGlobalFolder = "globalmount"
	csiDevices      = "volumeDevices"
	// maxCSIData bounds what is read of a vol_data.json.
	maxCSIData = 64 << 10
)

// csiUse is what a pod's use of a CSI volume is noted as, so that it can be
// taken down by an agent that knows nothing else of it.
type csiUse struct {
	Name       string                        `json:"specVolID,omitempty"` // of the folder
	Handle     string                        `json:"volumeHandle"`
	Driver     string                        `json:"driverName"`
	Node       string                        `json:"nodeName,omitempty"`
	Attachment string                        `json:"attachmentID,omitempty"`
	Lifecycle  storagev1.VolumeLifecycleMode `json:"volumeLifecycleMode,omitempty"`
	// block is set for a volume without a file system; its notes are elsewhere.
	block bool
	// pod is whose use it is.
	pod types.UID
}

// unique is the volume's name in the status of the Node.
func (u *csiUse) unique() corev1.UniqueVolumeName {
	return attachment.InStatus(u.Driver, u.Handle)
}

func (u *csiUse) persistent() bool { return u.Lifecycle == storagev1.VolumeLifecyclePersistent }

// parseCSIUse reads a vol_data.json. Driver and handle become parts of paths and
// requests, so both must be there.
func parseCSIUse(data []byte) (csiUse, error) {
	var u csiUse
	if err := json.Unmarshal(data, &u); err != nil {
		return u, err
	}
	if u.Handle == "" {
		return u, errors.New("it names no volume")
	}
	return u, checkElement(u.Driver)
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// inlineHandle is the handle of a volume that lives and dies with its pod.
func inlineHandle(pod types.UID, name string) string { return "csi-" + digest(string(pod)+name) }

func (m *Manager) csiDir() string { return filepath.Join(m.cfg.RootDir, "plugins", csiPlugin) }

// csiUsePath is the folder of a pod's mounted CSI volume, and its device.
func (m *Manager) csiUsePath(u *csiUse) string {
	folder := volumesDir
	if u.block {
		folder = csiDevices
	}
	return filepath.Join(m.PodDir(u.pod), folder, csiFolder, u.Name)
}

// csiTarget is where the driver publishes the volume for the pod.
func (m *Manager) csiTarget(u *csiUse) string {
	if u.block {
		return filepath.Join(m.csiDir(), csiDevices, "publish", u.Name, string(u.pod))
	}
	return filepath.Join(m.csiUsePath(u), csiMountFolder)
}

// csiStaging is where the driver stages the volume for the node.
func (m *Manager) csiStaging(u *csiUse) string {
	if u.block {
		return filepath.Join(m.csiDir(), csiDevices, "staging", u.Name)
	}
	return filepath.Join(m.csiDir(), u.Driver, digest(u.Handle), csiGlobalFolder)
}

// csiStagingData is where a staged volume is noted.
func (m *Manager) csiStagingData(u *csiUse) string {
	if u.block {
		return filepath.Join(m.csiDir(), csiDevices, u.Name, "data", csiDataFile)
	}
	return filepath.Join(filepath.Dir(m.csiStaging(u)), csiDataFile)
}

// csiUseData is where a pod's use is noted. The pods that have a device share
// one note: they differ in their links only.
func (m *Manager) csiUseData(u *csiUse) string {
	if u.block {
		return m.csiStagingData(u)
	}
	return filepath.Join(m.csiUsePath(u), csiDataFile)
}

// readCSIUse reads a note. The error matches fs.ErrNotExist if there is none.
func readCSIUse(file string) (csiUse, error) {
	f, err := os.Open(file)
	if err != nil {
		return csiUse{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCSIData+1))
	if err != nil {
		return csiUse{}, err
	}
	if len(data) > maxCSIData {
		return csiUse{}, fmt.Errorf("%s is larger than %d bytes", file, maxCSIData)
	}
	u, err := parseCSIUse(data)
	if err != nil {
		return u, fmt.Errorf("reading %s: %w", file, err)
	}
	return u, nil
}

// writeCSIUse notes a use, whole or not at all. A folder that another volume
// has taken is refused.
func writeCSIUse(file string, u csiUse) error {
	have, err := readCSIUse(file)
	if err == nil && (have.Handle != u.Handle || have.Driver != u.Driver) {
		return fmt.Errorf("%s is taken by volume %q of driver %s", filepath.Dir(file), have.Handle, have.Driver)
	}
	data, err := json.Marshal(u)
	if err != nil {
		return err
	}
	return replaceFile(file, append(data, '\n'))
}

// replaceFile gives a file its content, whole or not at all.
func replaceFile(file string, data []byte) error {
	if have, err := os.ReadFile(file); err == nil && bytes.Equal(have, data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// removeEmpty removes files and empty folders in their order; what is not there
// is no error, and what is not empty is.
func removeEmpty(paths ...string) error {
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// csiUses lists the CSI volumes of a pod, by what is on disk.
func (m *Manager) csiUses(pod types.UID) ([]csiUse, error) {
	var uses []csiUse
	for _, block := range []bool{false, true} {
		parent := filepath.Dir(m.csiUsePath(&csiUse{pod: pod, block: block, Name: "x"}))
		entries, err := os.ReadDir(parent)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("listing the pod's CSI volumes: %w", err)
		}
		for _, e := range entries {
			at := csiUse{pod: pod, block: block, Name: e.Name()}
			u, err := readCSIUse(m.csiUseData(&at))
			if errors.Is(err, fs.ErrNotExist) {
				continue // nothing was mounted: the note is written first, and removed last
			}
			if err != nil {
				m.cfg.Log.Warn("a CSI volume's note cannot be read; what is mounted is unmounted without its driver",
					"pod", pod, "volume", e.Name(), "err", err)
				continue
			}
			u.Name, u.pod, u.block = e.Name(), pod, block
			uses = append(uses, u)
		}
	}
	return uses, nil
}

// csiShared reports whether a pod other than u's has the volume.
func (m *Manager) csiShared(u *csiUse) (bool, error) {
	pattern := m.csiUsePath(&csiUse{pod: "*", block: u.block, Name: "*"})
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return false, err
	}
	for _, path := range paths {
		if path == m.csiUsePath(u) {
			continue
		}
		if u.block {
			if filepath.Base(path) == u.Name {
				return true, nil
			}
			continue
		}
		other, err := readCSIUse(filepath.Join(path, csiDataFile))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("looking for other pods that have the volume: %w", err)
		}
		if other.Driver == u.Driver && other.Handle == u.Handle {
			return true, nil
		}
	}
	return false, nil
}
