package kubelet

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/criconfig"
	"coracle/pkg/kubelet/podenv"
)

// maxNodeFile bounds what is read of the node's own configuration files.
const maxNodeFile = 1 << 20

func (k *Kubelet) seccompRoot() string { return filepath.Join(k.cfg.RootDir, "seccomp") }

// makeFolders makes the pod's folder and the folders of its logs.
func (k *Kubelet) makeFolders(pod *corev1.Pod) error {
	if k.cfg.Simulated {
		return nil
	}
	if err := os.MkdirAll(k.volumes.PodDir(pod.UID), 0o750); err != nil {
		return fmt.Errorf("making the pod's folder: %w", err)
	}
	if err := os.MkdirAll(criconfig.LogDir(k.cfg.LogDir, pod), 0o755); err != nil {
		return fmt.Errorf("making the pod's log folder: %w", err)
	}
	return nil
}

// removeLogs deletes all logs of a pod.
func (k *Kubelet) removeLogs(pod *corev1.Pod) {
	if k.cfg.Simulated || pod.Name == "" || pod.Namespace == "" {
		return
	}
	if err := os.RemoveAll(criconfig.LogDir(k.cfg.LogDir, pod)); err != nil {
		k.log.Warn("logs of a deleted pod not removed", "pod", pod.Namespace+"/"+pod.Name, "error", err)
	}
}

// removeLog deletes the log of one attempt with its rotated parts.
func (k *Kubelet) removeLog(logPath string) {
	if k.cfg.Simulated || logPath == "" || !strings.HasPrefix(logPath, k.cfg.LogDir+string(filepath.Separator)) {
		return
	}
	parts, _ := filepath.Glob(logPath + "*")
	for _, p := range parts {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			k.log.Warn("log of a removed container not deleted", "path", p, "error", err)
		}
	}
}

// ownMounts makes the files that the agent itself puts into a container: its
// hosts file, unless it mounts one, and the file for its termination message.
func (k *Kubelet) ownMounts(pod *corev1.Pod, spec *corev1.Container, podIPs []string, attempt int32) ([]*runtimeapi.Mount, error) {
	if k.cfg.Simulated {
		return nil, nil
	}
	if err := os.MkdirAll(filepath.Join(criconfig.LogDir(k.cfg.LogDir, pod), spec.Name), 0o755); err != nil {
		return nil, fmt.Errorf("making the container's log folder: %w", err)
	}
	var out []*runtimeapi.Mount
	if !mountsAt(spec, "/etc/hosts") && len(podIPs) > 0 {
		hosts := filepath.Join(k.volumes.PodDir(pod.UID), "etc-hosts")
		if err := k.writeHosts(pod, podIPs, hosts); err != nil {
			return nil, err
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: "/etc/hosts", HostPath: hosts})
	}
	message := criconfig.MessagePath(spec)
	if !mountsAt(spec, message) {
		file, err := k.makeMessageFile(pod.UID, spec.Name, attempt)
		if err != nil {
			return nil, err
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: message, HostPath: file})
	}
	return out, nil
}

func mountsAt(spec *corev1.Container, containerPath string) bool {
	for _, m := range spec.VolumeMounts {
		if path.Clean(m.MountPath) == containerPath {
			return true
		}
	}
	return false
}

// writeHosts replaces the content, not the file: running containers have it
// mounted.
func (k *Kubelet) writeHosts(pod *corev1.Pod, podIPs []string, file string) error {
	in := podenv.Hosts{Pod: pod, PodIPs: podIPs, ClusterDomain: k.cfg.ClusterDomain}
	if pod.Spec.HostNetwork {
		in.NodeHosts = readBounded(k.cfg.HostsFile)
	}
	if err := os.WriteFile(file, podenv.HostsFile(in), 0o644); err != nil {
		return fmt.Errorf("writing the pod's hosts file: %w", err)
	}
	return nil
}

// makeMessageFile makes an empty file that every user may write.
func (k *Kubelet) makeMessageFile(uid types.UID, container string, attempt int32) (string, error) {
	dir := filepath.Join(k.volumes.PodDir(uid), "containers", container)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("making the container's folder: %w", err)
	}
	var id [4]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", err
	}
	name := filepath.Join(dir, fmt.Sprintf("%d-%s", attempt, hex.EncodeToString(id[:])))
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return "", fmt.Errorf("making the termination message file: %w", err)
	}
	defer f.Close()
	return name, os.Chmod(name, 0o666) // whatever the umask
}

// hostResolvConf is read anew for each sandbox, for the node's network may
// have changed.
func (k *Kubelet) hostResolvConf() []byte {
	if k.cfg.Simulated {
		return nil
	}
	return readBounded(k.cfg.ResolvConf)
}

// readBounded returns what a file has, or nothing.
func readBounded(name string) []byte {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxNodeFile))
	if err != nil {
		return nil
	}
	return data
}
